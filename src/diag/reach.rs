//! Tools that reach out of the machine: `host_ping`, `host_dns`, `host_http`. For sessions of machines only, whose user
//! asked for a look at this machine; the hub's own agents have web tools that ask first.
//!
//! Threads: one `diag-dns` per name that is looked up. The system's resolver cannot be cancelled, so it is left behind;
//! it gives up by itself.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::checks::icmp::{self, PingError};
use crate::diag::args::{Args, Kind, Param};
use crate::diag::finding::{Finding, float, percent};
use crate::diag::probe::receive;
use crate::diag::report::{Report, clean_name};
use crate::diag::thresholds::{HTTP_STATUS, PING_LOSS_PERCENT};
use crate::net::address::AddressKind;
use crate::net::guard::Guard;
use crate::net::{Call, HttpClient, NetError, Timeouts};
use crate::rt::Threads;
use crate::tools::{ToolContext, ToolError};

pub(super) const PING: &str = "Pings a host: packets lost and round trip times.";
pub(super) const DNS: &str = "Looks a name up as this machine would: its addresses and how long it took.";
pub(super) const HTTP: &str = "Requests a URL: status and time, never the content. Redirects are named, not followed.";

pub(super) const PING_PARAMS: &[Param] = &[
    Param { name: "host", kind: Kind::Name, description: "Name or address." },
    Param { name: "count", kind: Kind::Integer { min: 1, max: 10 }, description: "Packets; default 3." },
];
pub(super) const DNS_PARAMS: &[Param] = &[Param { name: "name", kind: Kind::Name, description: "The name." }];
pub(super) const HTTP_PARAMS: &[Param] =
    &[Param { name: "url", kind: Kind::Url, description: "The address, http:// or https://." }];

const DNS_STACK_BYTES: usize = 256 * 1024;
const PING_GAP: Duration = Duration::from_millis(200);
const PING_WAIT: Duration = Duration::from_secs(2);
const HTTP_CONNECT: Duration = Duration::from_secs(4);

fn needed<'a>(args: &'a Args, name: &str) -> Result<&'a str, ToolError> {
    args.text(name).ok_or_else(|| ToolError::new(format!("argument \"{name}\" is missing")))
}

pub(super) fn ping(args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let host = needed(args, "host")?;
    let ip = *lookup(host, context)?.first().ok_or_else(|| ToolError::new(format!("{host} has no address")))?;
    // Whether a machine answers is no secret of it; a crowd is not asked.
    let kind = AddressKind::of(ip);
    if !matches!(kind, AddressKind::Public | AddressKind::Private | AddressKind::Loopback) {
        return Err(ToolError::new(format!("{host} is {}: only single machines are pinged", kind.name())));
    }
    let packets = args.integer("count").and_then(|count| u16::try_from(count).ok()).unwrap_or(3);
    let plan = icmp::Plan { packets, gap: PING_GAP, wait: PING_WAIT };
    let echoes =
        icmp::ping(SocketAddr::new(ip, 0), plan, context.deadline, context.cancel).map_err(|error| match error {
            PingError::NotPermitted => ToolError::new(
                "this process may not ping; an administrator can allow it: sysctl net.ipv4.ping_group_range",
            ),
            PingError::Cancelled => ToolError::new("cancelled"),
            PingError::System(error) => ToolError::new(format!("ping failed: {error}")),
        })?;
    let mut report = Report::new();
    let received = u64::try_from(echoes.round_trips.len()).unwrap_or(0);
    let lost = percent(u64::from(echoes.sent).saturating_sub(received), u64::from(echoes.sent));
    report.set("host", host);
    report.set("address", ip.to_string());
    report.set("sent", echoes.sent);
    report.set("received", received);
    report.set_round("loss_percent", lost);
    let millis: Vec<f64> = echoes.round_trips.iter().map(|trip| trip.as_secs_f64() * 1000.0).collect();
    if let (Some(least), Some(most)) =
        (millis.iter().copied().reduce(f64::min), millis.iter().copied().reduce(f64::max))
    {
        report.set_round("rtt_min_ms", least);
        report.set_round("rtt_avg_ms", millis.iter().sum::<f64>() / float(received));
        report.set_round("rtt_max_ms", most);
    }
    report.set_known("refused", echoes.refused.map(|error| error.to_string()));
    report.find(Finding::judge(&PING_LOSS_PERCENT, format!("packets lost to {host}"), lost));
    Ok(report)
}

pub(super) fn dns(args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let name = needed(args, "name")?;
    let started = Instant::now();
    let found = lookup(name, context)?;
    let mut report = Report::new();
    report.set("name", name);
    report.set("addresses", found.iter().take(20).map(ToString::to_string).collect::<Vec<_>>());
    report.set("took_ms", u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    Ok(report)
}

/// The addresses of a name, each once.
fn lookup(name: &str, context: &ToolContext<'_>) -> Result<Vec<IpAddr>, ToolError> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(vec![ip.to_canonical()]);
    }
    let (found_tx, found_rx) = bounded(1);
    let asked = (name.to_owned(), 0);
    let body = move || {
        let found = asked.to_socket_addrs().map(|found| found.map(|address| address.ip().to_canonical()).collect());
        // The asker may have gone: then nobody wants the answer.
        let _ = found_tx.send(found);
    };
    Threads::new().spawn("diag-dns", DNS_STACK_BYTES, body).map_err(|error| ToolError::new(error.to_string()))?;
    let answer = receive(&found_rx, context.deadline, context).map_err(|error| match error.kind() {
        std::io::ErrorKind::Interrupted => ToolError::new("cancelled"),
        _ => ToolError::new(format!("the name {name} was not resolved in time")),
    })?;
    let mut found: Vec<IpAddr> =
        answer.map_err(|error| ToolError::new(format!("the name {name} cannot be resolved: {error}")))?;
    found.dedup();
    Ok(found)
}

pub(super) fn http(guard: &Guard, args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let url = guard.check_url(needed(args, "url")?).map_err(|error| ToolError::new(error.to_string()))?;
    let left = context.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let timeouts = Timeouts { connect: HTTP_CONNECT.min(left), first_byte: left, idle: left, total: Some(left) };
    let client = HttpClient::new(timeouts).with_filter(url.filter()).without_reuse();
    let text = url.text();
    let started = Instant::now();
    let call = Call::get(&text).header("accept", "*/*").header("user-agent", "Holt");
    let answer = client.send(&call, context.cancel).map_err(|error| match error {
        NetError::Cancelled => ToolError::new("cancelled"),
        error => ToolError::new(format!("{} does not answer as it should: {error}", url.url().origin())),
    })?;
    let mut report = Report::new();
    report.set("url", crate::net::url::redact_url(&text));
    report.set("status", answer.status());
    report.set("took_ms", u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    for (field, header) in [("server", "server"), ("content_type", "content-type"), ("retry_after", "retry-after")] {
        report.set_known(field, answer.header(header).map(clean_name));
    }
    let location = answer.header("location").filter(|_| (300..400).contains(&answer.status()));
    report.set_known("redirects_to", location.map(|place| clean_name(&crate::net::url::redact_url(place))));
    let what = format!("status of {}", url.url().origin());
    report.find(Finding::judge(&HTTP_STATUS, what, f64::from(answer.status())));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use crate::diag::fixture::with_context;
    use crate::diag::{HostRoot, machine_tools};
    use crate::net::guard::{Guard, HostPattern, Origin};
    use crate::net::test_peer::{LONG, STACK_BYTES};
    use crate::rt::Threads;
    use serde_json::{Value, json};
    use std::io::{Read, Write};

    fn call(guard: Guard, name: &str, arguments: Value) -> Result<Value, String> {
        let tools = machine_tools(HostRoot::system(), guard);
        let tool = tools.iter().find(|tool| tool.spec().name == name).unwrap();
        let answer = with_context(|context| tool.call(&arguments, context)).map_err(|error| error.message)?;
        Ok(serde_json::from_str(&answer).unwrap())
    }

    fn untrusted() -> Guard {
        Guard::new(Origin::Untrusted)
    }

    #[test]
    fn urls_of_strangers_lead_to_the_internet_alone() {
        for url in [
            "http://127.0.0.1/",
            "http://192.168.1.1/",
            "http://169.254.169.254/latest",
            "http://[::1]/",
            "http://me:pw@example.org/",
        ] {
            let error = call(untrusted(), "host_http", json!({"url": url})).unwrap_err();
            assert!(error.contains("refused"), "{url}: {error}");
        }
        for url in ["file:///etc/passwd", "example.org", "http://", ""] {
            assert!(call(untrusted(), "host_http", json!({"url": url})).is_err(), "{url}");
        }
        assert!(call(untrusted(), "host_http", json!({})).unwrap_err().contains("missing"));
    }

    #[test]
    fn a_server_is_asked_and_its_content_is_not_shown() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}/health?token=abc", listener.local_addr().unwrap().port());
        let threads = Threads::new();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let answer = b"HTTP/1.1 302 Found\r\nServer: nginx\r\nLocation: http://10.0.0.1/x?token=abc\r\nContent-Length: 6\r\n\r\nsecret";
            stream.write_all(answer).unwrap();
        };
        threads.spawn("server", STACK_BYTES, serve).unwrap();
        let guard = untrusted().allow_inside(&[HostPattern::parse("127.0.0.1").unwrap()], "a test");
        let report = call(guard, "host_http", json!({"url": url})).unwrap();
        assert!(threads.join_all(LONG).is_empty());
        assert_eq!((&report["status"], &report["server"]), (&json!(302), &json!("nginx")));
        assert!(report["redirects_to"].as_str().unwrap().starts_with("http://10.0.0.1/x"));
        let text = report.to_string();
        assert!(!text.contains("secret") && !text.contains("abc"), "{text}");
    }

    #[test]
    fn names_are_looked_up_and_crowds_are_not_pinged() {
        let report = call(untrusted(), "host_dns", json!({"name": "localhost"})).unwrap();
        assert!(!report["addresses"].as_array().unwrap().is_empty(), "{report}");
        for host in ["224.0.0.1", "0.0.0.0", "255.255.255.255"] {
            let error = call(untrusted(), "host_ping", json!({"host": host})).unwrap_err();
            assert!(error.contains("only single machines"), "{error}");
        }
        match call(untrusted(), "host_ping", json!({"host": "127.0.0.1", "count": 1})) {
            Ok(report) => assert_eq!((&report["sent"], &report["received"]), (&json!(1), &json!(1))),
            Err(error) => assert!(error.contains("may not ping"), "{error}"),
        }
    }
}
