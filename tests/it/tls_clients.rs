//! `holt chat` and `holt agent` with a hub that speaks TLS, and with one that is not who it should be.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::hub::Builder;
use crate::support::machine::Machine;
use crate::support::tls;
use crate::support::{Hub, Model, Socket, wait_until};

fn holt(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(arguments).arg("--data-dir").arg(dir).env_clear().env("HOME", dir).stdin(Stdio::null());
    command
}

/// Its exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// The hub under a name of its certificates.
fn url(hub: &Hub, host: &str) -> String {
    format!("https://{host}:{}", hub.address.rsplit(':').next().unwrap())
}

#[test]
fn chat_speaks_tls_with_whom_it_believes() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).tls("hub.pem", "hub.key").model(&model).start();
    let ca = tls::file("ca.pem").display().to_string();
    for address in [url(&hub, "localhost"), url(&hub, "127.0.0.1").replace("https", "wss"), url(&hub, "LOCALHOST")] {
        let (code, out, error) =
            run(&mut holt(dir.path(), &["chat", "--url", &address, "--ca-file", &ca, "say hello"]));
        assert_eq!((code, out.as_str(), error.as_str()), (0, "hello\n", ""), "{address}");
    }
    let (code, out, _) = run(holt(dir.path(), &["chat", "deltas 3000"])
        .env("HOLT_URL", url(&hub, "localhost"))
        .env("HOLT_CA_FILE", &ca));
    assert!(code == 0 && out.trim_end().ends_with("w3000"), "{out}");
    // A hub of this machine needs no words at all: its own certificate file is what is believed.
    let settled = hub.address.clone();
    drop(hub);
    let hub = Builder::new(dir.path()).tls("self-signed.pem", "hub.key").model(&model).listen(&settled).start();
    let mut config = std::fs::read_to_string(dir.path().join("holt.toml")).unwrap();
    config = config.replacen("[api]", &format!("[api]\nlisten = \"{settled}\""), 1);
    std::fs::write(dir.path().join("holt.toml"), config).unwrap();
    let (code, out, error) = run(&mut holt(dir.path(), &["chat", "say hello"]));
    assert_eq!((code, out.as_str(), error.as_str()), (0, "hello\n", ""));
    // A certificate that nobody signed but itself is believed where it is named.
    let own = tls::file("self-signed.pem").display().to_string();
    let words = ["chat", "--url", &url(&hub, "localhost"), "--ca-file", &own, "say hello"];
    let (code, out, error) = run(&mut holt(dir.path(), &words));
    assert_eq!((code, out.as_str(), error.as_str()), (0, "hello\n", ""));
    // What speaks TLS is not reached without, and says so.
    let (code, _, error) = run(&mut holt(dir.path(), &["chat", "--url", &hub.address, "--key", "dk_x", "hi"]));
    assert!(code == 1 && error.contains("use an https:// address"), "{error}");
    drop(hub);
    let hub = Builder::new(dir.path()).config("[api]\ntls = false").listen(&settled).start();
    let (code, _, error) = run(&mut holt(dir.path(), &["chat", "--url", &url(&hub, "localhost"), "hi"]));
    assert!(code == 1 && error.contains("does not speak TLS"), "{error}");
}

#[test]
fn a_hub_that_is_not_who_it_should_be_is_refused() {
    let ca = tls::file("ca.pem").display().to_string();
    for (cert, with_ca, part) in [
        ("hub.pem", false, "signed by nobody who is known here"),
        ("self-signed.pem", true, "signed by nobody who is known here"),
        ("expired.pem", true, "has expired"),
        ("wrong-name.pem", true, "for another name: other.test"),
    ] {
        let (dir, machine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let hub = Builder::new(dir.path())
            .tls(cert, "hub.key")
            .config("[fleet]\nshared_token = \"shared-t0ken-of-tests\"")
            .start();
        let address = url(&hub, "localhost");
        let mut words = vec!["chat", "--url", address.as_str(), "--key", "dk_secret", "hi"];
        if with_ca {
            words.extend(["--ca-file", ca.as_str()]);
        }
        let (code, out, error) = run(&mut holt(dir.path(), &words));
        assert!(code == 1 && out.is_empty() && error.contains(part), "{cert}: {error}");
        let ca_line = if with_ca { format!("ca_file = \"{ca}\"\n") } else { String::new() };
        let config = format!("[server]\naddress = \"{address}\"\nagent_token = \"shared-t0ken-of-tests\"\n{ca_line}");
        let agent = Machine::start(machine.path(), &config, &[]);
        agent.said(part);
        assert!(hub.log_contains("listening") && !hub.log_contains("shared-t0ken-of-tests"));
    }
    let dir = tempfile::tempdir().unwrap();
    let (code, _, error) =
        run(&mut holt(dir.path(), &["chat", "--url", "https://127.0.0.1:1", "--ca-file", "/no/such", "hi"]));
    assert!(code == 1 && error.contains("certificates /no/such: "), "{error}");
}

#[test]
fn a_machine_joins_talks_and_asks_models_over_tls() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path())
        .tls("hub.pem", "hub.key")
        .model(&model)
        .config("[fleet]\nshared_token = \"shared-t0ken-of-tests\"")
        .start();
    let admin = hub.admin().new_key("all", &["admin", "chat", "machines:read"]);
    let machine = tempfile::tempdir().unwrap();
    let config = format!(
        "[server]\naddress = \"{}\"\nagent_token = \"shared-t0ken-of-tests\"\nca_file = \"{}\"\n[ai]\nenabled = true\n\
         [ai.gateway]\nenabled = true\n",
        url(&hub, "localhost"),
        tls::file("ca.pem").display()
    );
    let agent = Machine::start(machine.path(), &config, &[]);
    let id = wait_until("the machine is online", || {
        let machines = admin.get("/api/v1/machines").json()["machines"].clone();
        (machines[0]["presence"] == "online").then(|| machines[0]["id"].as_str().unwrap().to_owned())
    });
    let mut socket = Socket::open_tls(&admin);
    let words = json!({
        "type": "chat_request", "agent": format!("machine:{id}"), "session_id": "s", "message": "say words from the model",
    });
    socket.send(&words);
    let frames = socket.turn();
    assert!(frames[frames.len() - 2]["text"].as_str().unwrap().contains("words from the model"), "{frames:?}");
    assert!(!agent.log().contains("shared-t0ken-of-tests"));
}
