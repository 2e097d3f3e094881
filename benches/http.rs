//! HTTP: the hub against `tiny_http::Server` and, where it is installed, nginx, all in one run on the same machine.
//! What counts is the ratio (architecture section 10).
#![allow(clippy::pedantic, clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::time::Duration;

use support::{Load, Peer, directory, key, load, nginx, request, role};

const SECONDS: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

fn main() {
    if role().as_deref() == Some("tiny") {
        tiny_http_server();
        return;
    }
    let (_guard, dir) = directory();
    let hub = Peer::holt(&dir.join("data"));
    let tiny = Peer::role("tiny");
    let nginx = nginx(&dir);
    let key = key(&hub.address);
    let bearer = format!("Authorization: Bearer {key}\r\n");
    for _ in 0..100 {
        request(&hub.address, "POST", "/api/v1/chat", &bearer, r#"{"message":"hello"}"#);
    }
    request(&hub.address, "PUT", "/api/v1/kv/default/note", &bearer, r#"{"value":"buy milk"}"#);
    println!("{:<44} {:>12} {:>9} {:>9}   ratio", "", "requests/s", "p50 µs", "p99 µs");
    for connections in [50, 500] {
        let health = "/api/v1/health";
        let baseline = best(|| load(&tiny.address, health, "", connections, SECONDS));
        show(&format!("tiny_http::Server, {connections} connections"), &baseline, "");
        let ceiling = nginx.as_ref().map(|(_, address)| best(|| load(address, health, "", connections, SECONDS)));
        if let Some(ceiling) = &ceiling {
            show(&format!("nginx, {connections} connections"), ceiling, "");
        }
        let ours = best(|| load(&hub.address, health, "", connections, SECONDS));
        let ratio =
            format!("{:.2} x tiny_http{}", ours.per_second / baseline.per_second, against(&ours, ceiling.as_ref()));
        show(&format!("holt health, {connections} connections"), &ours, &ratio);
        if connections == 50 {
            let ours = best(|| load(&hub.address, "/api/v1/sessions", &bearer, connections, SECONDS));
            show(
                "holt sessions list (100), stored key",
                &ours,
                against(&ours, ceiling.as_ref()).trim_start_matches(", "),
            );
            let ours = best(|| load(&hub.address, "/api/v1/kv/default", &bearer, connections, SECONDS));
            show("holt kv of an agent, stored key", &ours, against(&ours, ceiling.as_ref()).trim_start_matches(", "));
        }
    }
}

/// The best of a few rounds: other work on the machine only ever takes away.
fn best(run: impl Fn() -> Load) -> Load {
    (0..ROUNDS).map(|_| run()).max_by(|a, b| a.per_second.total_cmp(&b.per_second)).expect("at least one round")
}

fn against(ours: &Load, ceiling: Option<&Load>) -> String {
    ceiling.map_or_else(String::new, |ceiling| format!(", {:.2} x nginx", ours.per_second / ceiling.per_second))
}

fn show(what: &str, load: &Load, ratio: &str) {
    println!("{what:<44} {:>12.0} {:>9} {:>9}   {ratio}", load.per_second, load.p50_us, load.p99_us);
}

/// The baseline: the library's own server with a few threads that answer.
fn tiny_http_server() {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a port");
    let address = server.server_addr().to_ip().expect("an address");
    eprintln!("listening on http://{address}");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(request) = server.recv() {
                    let body = "{\"status\":\"ok\",\"ws_enabled\":true}\n";
                    let header = "Content-Type: application/json".parse::<tiny_http::Header>().expect("a header");
                    let _ = request.respond(tiny_http::Response::from_string(body).with_header(header));
                }
            });
        }
    });
}
