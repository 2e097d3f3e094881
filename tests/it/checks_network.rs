//! `holt check` with checks of the network, logs and containers: the real binary against peers on real sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Level of each reading by check and target.
fn check(dir: &Path, names: &[&str]) -> Vec<(String, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.arg("check").args(names).args(["--json", "--data-dir"]).arg(dir).env_clear().stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = String::from_utf8(output.stdout).unwrap();
    let rows =
        rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|row| row["check"].is_string());
    rows.map(|row| (text(&row["check"]), text(&row["target"]), text(&row["level"]))).collect()
}

#[test]
fn pages_ports_containers_certificates_and_logs_are_looked_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let page = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
    let addr = page.local_addr().unwrap();
    std::fs::write(dir.path().join("app.log"), "bad, but old\n").unwrap();
    let config = format!(
        r#"
        [checks.http]
        targets = "http://{addr}/health"
        expect_body = "/^all (is )?well$/"
        redirects = 0
        [checks.net]
        targets = ["{addr}"]
        [checks.docker]
        targets = ["web", "gone"]
        socket = "{socket}"
        [checks.cert]
        files = ["{dir}/*.pem", "{dir}/gone.pem"]
        [checks.logfile]
        targets = "{dir}/*.log"
        filter_include = "bad"
        "#,
        socket = dir.path().join("docker.sock").display(),
        dir = dir.path().display(),
    );
    std::fs::write(dir.path().join("agent.toml"), config).unwrap();
    std::thread::scope(|scope| {
        // One page, one bare connection, in any order.
        scope.spawn(|| {
            for _ in 0..2 {
                let (mut socket, _) = page.accept().unwrap();
                if socket.read(&mut [0; 4096]).unwrap() > 0 {
                    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall well").unwrap();
                }
            }
        });
        scope.spawn(|| {
            let bodies = [
                ("/_ping", "OK"),
                ("/v1.44/containers/json", r#"[{"Id":"abc","Names":["/web"]},{"Id":"def","Names":["/other"]}]"#),
                ("/v1.44/containers/abc/json", r#"{"State":{"Status":"running","Running":true},"RestartCount":2}"#),
            ];
            for (path, body) in bodies {
                let (mut socket, _) = engine.accept().unwrap();
                let mut request = vec![0; 4096];
                let n = socket.read(&mut request).unwrap();
                assert!(request[..n].starts_with(format!("GET {path}").as_bytes()));
                let head = format!("HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: {}\r\n\r\n", body.len());
                socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        let mut found = check(dir.path(), &["http", "net", "docker", "cert", "logfile"]);
        // A check that did not come must not leave its peer waiting.
        for _ in 0..3 {
            let _ = (TcpStream::connect(addr), UnixStream::connect(dir.path().join("docker.sock")));
        }
        found.sort();
        let url = format!("http://{addr}/health");
        let gone = dir.path().join("gone.pem").display().to_string();
        let all = dir.path().join("*.pem").display().to_string();
        let log = dir.path().join("app.log").display().to_string();
        let mut expected = [
            ("cert::file_expiry", all.as_str(), "Critical"),
            ("cert::file_expiry", &gone, "Critical"),
            ("docker::container_running", "docker-engine", "Ok"),
            ("docker::container_running", "gone", "Critical"),
            ("docker::container_running", "web", "Ok"),
            ("docker::restart_detected", "web", "Ok"),
            ("http::connectivity", &url, "Ok"),
            ("http::response_body", &url, "Ok"),
            ("http::status_code", &url, "Ok"),
            ("logfile::match", &log, "Ok"),
            ("net::connectivity", &addr.to_string(), "Ok"),
        ]
        .map(|(check, target, level)| (check.to_owned(), target.to_owned(), level.to_owned()));
        expected.sort();
        assert_eq!(found, expected);
    });
}
