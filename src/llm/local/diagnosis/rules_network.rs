//! Network: the link, the way out, names, hosts and services beyond.

use serde_json::Value;

use crate::llm::local::diagnosis::cause::{Cause, Level, When};
use crate::llm::local::diagnosis::facts::Facts;
use crate::llm::local::diagnosis::rules_disk::quote;
use crate::llm::local::numbers::{code, list, number, plain, text};

pub(super) fn find(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    own(facts, causes);
    beyond(facts, causes);
}

/// The machine's own end of the network.
fn own(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let Some(network) = facts.tool("host_network") else { return };
    let asked = facts.is_about(&["netif", "net", "ping", "http", "ntp"]);
    if facts.level("default routes").is_some_and(|level| level > Level::Ok) {
        causes.push(
            Cause::new(Level::Critical, "This machine has no way out of its own network")
                .asked(asked)
                .by(35, "there is no default route")
                .act(When::Urgent, "Check cable, Wi-Fi and DHCP; a static address needs a gateway."),
        );
    }
    for (interface, level, share) in facts.bad("packet errors on ") {
        causes.push(
            Cause::new(level, format!("{} damages packets", code(interface)))
                .asked(asked)
                .by(25, format!("{share:.2} % of its packets had errors since the boot"))
                .act(When::Short, "Exchange the cable, try another port of the switch."),
        );
    }
    for (interface, level, share) in facts.bad("dropped packets on ") {
        let mut cause = Cause::new(level, format!("{} drops packets", code(interface)))
            .asked(asked)
            .by(15, format!("{} % of its packets were dropped since the boot", plain(share)));
        if facts.level("CPU use").is_some_and(|level| level > Level::Ok) {
            cause.add(10, "the processors are busy: there may be no time to take packets");
        }
        causes.push(
            cause.act(When::Short, "Compare the counters of `ip -s link` over a while: old drops do not matter."),
        );
    }
    let way_out = network.get("default_route").and_then(|route| text(route, "interface"));
    for row in list(network, "interfaces") {
        let Some(name) = text(row, "name") else { continue };
        let named = facts.is_about(&["netif"]) && facts.question.named_target() == Some(name);
        let down = matches!(text(row, "state"), Some("down" | "lowerlayerdown"));
        if down && (named || way_out == Some(name)) {
            causes.push(
                Cause::new(Level::Critical, format!("The link of {} is down", code(name)))
                    .asked(asked)
                    .by(35, format!("the kernel says {}", text(row, "state").unwrap_or("down")))
                    .act(When::Urgent, "Check cable and switch; `ip link set ... up` if somebody switched it off."),
            );
        }
    }
    let tcp = network.get("tcp").unwrap_or(&Value::Null);
    if let Some(count) = number(tcp, "close_wait").filter(|count| *count >= 100.0) {
        causes.push(
            Cause::new(Level::Warning, "A program does not close its connections")
                .asked(facts.is_about(&["net"]))
                .by(20, format!("{} connections wait for it to close them (CLOSE_WAIT)", plain(count)))
                .act(When::Short, "Find it with `ss -tnp state close-wait` and restart it."),
        );
    }
}

/// Does a host answer? None when it was not asked.
fn answers(facts: &Facts<'_>, host: &str) -> Option<bool> {
    Some(number(facts.asked("host_ping", "host", host)?, "received")? >= 1.0)
}

/// What the question is about, from the outside in: the first step that fails is the cause of those behind it.
fn beyond(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let Some(host) = facts.question.target_host().filter(|_| facts.is_about(&["http", "ping", "cert", "net"])) else {
        return;
    };
    let shown = code(host);
    let gateway = facts.tool("host_network").and_then(|value| text(value.get("default_route")?, "gateway"));
    let gateway_answers = gateway.and_then(|gateway| answers(facts, gateway));
    let host_answers = answers(facts, host);
    let served = facts.tool("host_http");
    let works = host_answers == Some(true) || served.is_some();
    if let (Some(error), false) = (facts.error("host_dns"), works) {
        let mut cause = Cause::new(Level::Critical, format!("The name {shown} cannot be resolved"))
            .asked(true)
            .by(30, quote(error));
        match gateway_answers {
            Some(true) => cause.add(10, "the gateway answers: the network itself works"),
            Some(false) => cause.but(10, "the gateway does not answer either: the network is the first suspect"),
            None => {}
        }
        causes.push(cause.act(When::Urgent, "Check the DNS servers in /etc/resolv.conf, and the name itself."));
    }
    if let (Some(gateway), Some(false), false) = (gateway, gateway_answers, works) {
        causes.push(
            Cause::new(Level::Critical, format!("The gateway {} does not answer", code(gateway)))
                .asked(true)
                .by(35, "no answer to ping; without it nothing beyond the own network can be reached")
                .act(When::Urgent, "Look at the router, and at the cable or Wi-Fi between."),
        );
    }
    // What stands before it in the way has said enough.
    let reachable = facts.error("host_dns").is_none() && gateway_answers != Some(false);
    if host_answers == Some(false) && !works && reachable {
        let mut cause =
            Cause::new(Level::Critical, format!("{shown} does not answer")).asked(true).by(20, "no answer to ping");
        if gateway_answers == Some(true) {
            cause.add(20, "the gateway answers, so the trouble is behind it");
        }
        if let Some(error) = facts.error("host_http") {
            cause.add(15, format!("and no web server: {}", quote(error)));
        }
        causes.push(cause.act(When::Urgent, format!("Check whether {shown} is on and connected.")));
    }
    if let (Some(error), Some(true)) = (facts.error("host_http"), host_answers) {
        causes.push(
            Cause::new(Level::Critical, format!("{shown} is up, but its web server does not answer"))
                .asked(true)
                .by(30, quote(error))
                .by(15, "the host answers to ping")
                .act(When::Urgent, format!("Look at the service on {shown}: stopped, another port, a firewall.")),
        );
    }
    loss(facts, host, causes);
    if let Some(served) = served {
        page(facts, served, &shown, causes);
    }
}

fn loss(facts: &Facts<'_>, host: &str, causes: &mut Vec<Cause>) {
    let Some(ping) = facts.asked("host_ping", "host", host) else { return };
    let lost = number(ping, "loss_percent").unwrap_or(0.0);
    if lost > 0.0 && lost < 100.0 {
        causes.push(
            Cause::new(Level::Warning, format!("The way to {} loses packets", code(host)))
                .asked(true)
                .by(20, format!("{} % of them in a short try", plain(lost)))
                .act(When::Short, "Try again over a longer while; Wi-Fi and busy links lose packets."),
        );
    }
}

fn page(facts: &Facts<'_>, served: &Value, shown: &str, causes: &mut Vec<Cause>) {
    let status = number(served, "status").unwrap_or(0.0);
    if status >= 400.0 {
        let said = match plain(status).as_str() {
            "401" | "403" => "it refuses the request: credentials or rights",
            "404" => "it does not know the address",
            "429" => "it is asked too often",
            "502" | "504" => "the service behind its proxy does not answer",
            "503" => "it says that it is not available now",
            _ if status >= 500.0 => "it failed by itself",
            _ => "it does not accept the request",
        };
        let level = if status >= 500.0 { Level::Critical } else { Level::Warning };
        causes.push(
            Cause::new(level, format!("{shown} answers with status {}: {said}", plain(status)))
                .asked(true)
                .by(
                    35,
                    format!(
                        "HTTP status {} after {} ms",
                        plain(status),
                        plain(number(served, "took_ms").unwrap_or(0.0))
                    ),
                )
                .soon(format!("Read the log of the service on {shown}.")),
        );
    }
    if let Some(took) = number(served, "took_ms").filter(|took| *took >= 2_000.0) {
        let mut cause = Cause::new(Level::Warning, format!("{shown} answers slowly: {} ms", plain(took))).asked(true);
        if let Some(rtt) = facts.tool("host_ping").and_then(|ping| number(ping, "rtt_avg_ms")) {
            if rtt < 100.0 {
                cause.add(20, format!("the network takes {} ms of it: the server is slow", plain(rtt)));
            } else {
                cause.add(10, format!("the network alone takes {} ms for each way and back", plain(rtt)));
            }
        }
        causes.push(cause.act(When::Short, format!("Look at the load of {shown}.")));
    }
}
