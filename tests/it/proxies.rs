//! The set-ups of the README with a proxy in front of the hub, tried with that proxy where it is installed.

use std::io::BufRead;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::json;

use crate::support::hub::Builder;
use crate::support::{Hub, Model, Socket, tls, wait_until};

/// A proxy that is running.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// The README's code block in that language, the first one that holds `part`.
fn block(language: &str, part: &str) -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    let mut blocks = readme.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(part)).unwrap().to_owned()
}

/// Where the program is; a line that says so when it is not there.
fn program(name: &str) -> Option<String> {
    let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|dir| format!("{dir}/{name}"));
    let found = found.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed, its set-up in the README was not tried");
    }
    found
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// All that passes a proxy: requests, cookies, event streams, sockets.
fn check(hub: &Hub, model: &Model, port: u16) {
    let config = Arc::new(tls::strict(rustls::ALL_VERSIONS));
    let address = format!("127.0.0.1:{port}");
    wait_until("the proxy listens", || std::net::TcpStream::connect(&address).ok());
    let client = hub.client().at(&address).with_tls(&config);
    assert_eq!(client.get("/api/v1/health").status, 200);
    let body = json!({"password": "correct horse", "pin": hub.pin}).to_string();
    let account = client.with("Origin", &format!("https://{address}")).post("/api/v1/setup/account", &body);
    assert_eq!(account.status, 200, "{}", account.text());
    assert!(account.header("set-cookie").contains("; Secure"), "{account:?}");
    let user = client.with_cookie_of(&account).with("Origin", &format!("https://{address}"));
    let events = user.with("Accept", "text/event-stream").chat(json!({"message": "deltas 50"})).events();
    assert_eq!(events.iter().filter(|event| event["type"] == "content_delta").count(), 50);
    let mut socket = Socket::open_tls(&user);
    socket.chat("s", "deltas 500");
    assert_eq!(socket.turn().last().unwrap()["type"], "done");
    // Nothing is held back on the way: what comes first is here before the rest exists.
    let body = json!({"message": "gate 3 2", "session_id": "held"}).to_string();
    let mut stream = user.with("Accept", "text/event-stream").open_tls("POST", "/api/v1/chat", &body);
    let mut before = String::new();
    while before.matches("content_delta").count() < 3 {
        assert!(stream.read_line(&mut before).unwrap() > 0, "{before}");
    }
    socket.attach("held", 0);
    socket.read_deltas(3);
    model.wait_at_gate();
    model.open_gate();
    assert_eq!(socket.turn().last().unwrap()["type"], "done");
    let mut line = String::new();
    while !line.contains("\"done\"") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ends before its last event");
    }
}

#[test]
fn nginx_as_the_readme_sets_it_up() {
    let Some(nginx) = program("nginx") else { return };
    let (dir, model, port) = (tempfile::tempdir().unwrap(), Model::start(), free_port());
    let proxies = block("toml", "trusted_proxies");
    let hub = Builder::new(dir.path()).config(&proxies).model(&model).start();
    let server = block("nginx", "proxy_pass")
        .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
        .replace("/etc/ssl/hub.pem", tls::file("hub.pem").to_str().unwrap())
        .replace("/etc/ssl/hub.key", tls::file("hub.key").to_str().unwrap())
        .replace("127.0.0.1:8080", &hub.address);
    let shown = dir.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {shown}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off;\nworker_processes 1;\npid {shown}/nginx.pid;\nerror_log {shown}/nginx.log;\n\
         events {{ worker_connections 64; }}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    );
    std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-c").arg(dir.path().join("nginx.conf")).arg("-e").arg(dir.path().join("nginx.log"));
    let proxy = Proxy(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    check(&hub, &model, port);
    drop(proxy);
}

#[test]
fn caddy_as_the_readme_sets_it_up() {
    let Some(caddy) = program("caddy") else { return };
    let (dir, model, port) = (tempfile::tempdir().unwrap(), Model::start(), free_port());
    let hub = Builder::new(dir.path()).config(&block("toml", "trusted_proxies")).model(&model).start();
    let (cert, key) = (tls::file("hub.pem"), tls::file("hub.key"));
    // Certificates of the world are not to be had here.
    let site = block("caddyfile", "reverse_proxy")
        .replace(
            "hub.example.net {",
            &format!("https://127.0.0.1:{port} {{\n    tls {} {}", cert.display(), key.display()),
        )
        .replace("127.0.0.1:8080", &hub.address);
    let config = format!("{{\n    admin off\n    auto_https disable_redirects\n}}\n{site}");
    std::fs::write(dir.path().join("Caddyfile"), config).unwrap();
    let mut command = Command::new(caddy);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(dir.path().join("Caddyfile"));
    command.env("HOME", dir.path());
    let proxy = Proxy(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    check(&hub, &model, port);
    drop(proxy);
}
