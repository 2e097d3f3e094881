//! The commands of the binary, against a running hub and its data directory.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::http::read_to_end;
use crate::support::hub::Builder;
use crate::support::model::words;
use crate::support::{Hub, Model};

/// A command on that data directory, with nothing else in its environment.
fn holt(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(arguments).arg("--data-dir").arg(dir);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    finished(command.output().unwrap())
}

fn finished(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn chat(hub: &Hub, arguments: &[&str]) -> Command {
    let mut command = holt(&hub.dir, &[&["chat", "--url", &hub.address], arguments].concat());
    command.env("HOME", &hub.dir);
    command
}

/// Runs with that text on stdin.
fn run_with(command: &mut Command, input: &str) -> (i32, String, String) {
    let mut child: Child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    finished(child.wait_with_output().unwrap())
}

/// The key in the output of `keys create` or `rotate`.
fn key_in(output: &str) -> String {
    output.lines().find_map(|line| line.strip_prefix("  dk_")).map(|rest| format!("dk_{rest}")).unwrap()
}

#[test]
fn what_is_not_understood_ends_with_2_and_help_with_0() {
    let bare = |words: &[&str]| run(Command::new(env!("CARGO_BIN_EXE_holt")).args(words).env_clear());
    let (code, out, error) = bare(&[]);
    assert!(code == 2 && out.is_empty() && error.contains("Commands:\n") && error.contains("\nerror: "), "{error}");
    let (code, out, error) = bare(&["keys", "lsit"]);
    assert!(code == 2 && out.is_empty(), "{out}");
    assert_eq!(error, "error: unknown command lsit, did you mean list?; see: holt keys --help\n");
    for words in [&["--help"][..], &["keys", "-h"], &["keys", "create", "--help"], &["--version"], &["version"]] {
        let (code, out, error) = bare(words);
        assert!(code == 0 && error.is_empty() && out.ends_with('\n') && !out.ends_with("\n\n"), "{out}{error}");
    }
}

#[test]
fn keys_live_and_die_while_the_hub_runs() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let (code, out, _) = run(&mut holt(&hub.dir, &["keys", "list"]));
    assert_eq!((code, out.as_str()), (0, "No API keys yet.\nMake one with: holt keys create <name>\n"));
    let (code, out, error) = run(&mut holt(&hub.dir, &["keys", "create", "my \"bot\"", "-s", "chat, sessions:read"]));
    assert_eq!(code, 0, "{error}");
    assert!(
        out.starts_with("Created API key \"my \\\"bot\\\"\" (") && out.ends_with("\nScopes: chat, sessions:read\n"),
        "{out}"
    );
    assert!(error.contains("setup is done"), "{error}");
    let client = hub.client().with_key(&key_in(&out));
    assert_eq!(client.get("/api/v1/sessions").status, 200);
    assert_eq!(client.get("/api/v1/keys").status, 403);
    assert_eq!(hub.client().get("/api/v1/setup").json()["setup_required"], false);

    let id = out[out.find(" (").unwrap() + 2..].split(')').next().unwrap().to_owned();
    let (code, out, _) = run(&mut holt(&hub.dir, &["keys", "rotate", &id[..8]]));
    assert_eq!(code, 0);
    let rotated = hub.client().with_key(&key_in(&out));
    assert_eq!(rotated.get("/api/v1/sessions").status, 200);
    assert_eq!(client.get("/api/v1/sessions").status, 401);

    let id = out[out.find(" (").unwrap() + 2..].split(')').next().unwrap().to_owned();
    let (_, out, _) = run(&mut holt(&hub.dir, &["keys", "list"]));
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("ID           NAME      SCOPES") && lines[0].ends_with("STATUS   CREATED     LAST USED"),
        "{out}"
    );
    assert!(lines[1].starts_with(&format!("{}...  my \"bot\"  chat,sessions:read  active ", &id[..8])), "{out}");
    assert!(lines[2].contains("  revoked  "), "{out}");

    assert_eq!(run(&mut holt(&hub.dir, &["keys", "revoke", &id])).0, 0);
    assert_eq!(rotated.get("/api/v1/sessions").status, 401);
    for (arguments, part) in [
        (["keys", "revoke", &id], "is revoked already"),
        (["keys", "revoke", "zz"], "no key has the id"),
        (["keys", "create", " "], "name is required"),
    ] {
        let (code, _, error) = run(&mut holt(&hub.dir, &arguments));
        assert!(code == 1 && error.starts_with("error: ") && error.contains(part), "{error}");
    }
    let (code, _, error) = run(&mut holt(&hub.dir, &["keys", "create", "x", "--scopes", "chat,fly"]));
    assert!(code == 1 && error.contains("unknown scope \"fly\""), "{error}");
}

#[test]
fn a_mistaken_directory_is_not_filled() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["keys", "list"][..], &["sessions", "list"], &["setup-pin"]] {
        let (code, _, error) = run(&mut holt(dir.path(), arguments));
        assert!(code == 1 && error.contains("no database at"), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_new_setup_pin_takes_the_place_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let (code, out, _) = run(&mut holt(&hub.dir, &["setup-pin"]));
    assert!(code == 0 && out.starts_with("FIRST-RUN SETUP PIN"), "{out}");
    let pin = out.trim().rsplit_once("pin=").unwrap().1.to_owned();
    assert!(pin.len() == 6 && pin.bytes().all(|byte| byte.is_ascii_digit()), "{out}");
    // A request that may come from elsewhere needs the PIN.
    let far = hub.client().with("X-Forwarded-For", "192.0.2.7");
    let old = hub.pin.clone().unwrap();
    if old != pin {
        assert_eq!(far.post("/api/v1/setup", &json!({"name": "a", "pin": old}).to_string()).status, 403);
    }
    assert_eq!(far.post("/api/v1/setup", &json!({"name": "a", "pin": pin}).to_string()).status, 201);
    let (code, out, error) = run(&mut holt(&hub.dir, &["setup-pin"]));
    assert!(code == 1 && out.is_empty(), "{out}");
    assert!(
        error.contains("setup is done already") && error.contains("holt passwd") && error.contains("holt keys create")
    );
}

#[test]
fn a_hub_is_found_wherever_it_listens() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let bare = |words: &[&str]| {
        let mut command = holt(dir.path(), words);
        command.env("HOME", dir.path());
        run(&mut command)
    };
    let (code, out, error) = bare(&["chat", "say hello"]);
    assert_eq!((code, out.as_str(), error.as_str()), (0, "hello\n", ""));
    // Other machines would not reach it there.
    let (code, _, error) = bare(&["machines", "join"]);
    assert!(code == 1 && error.contains(&hub.address) && error.contains("cannot reach"), "{error}");
    hub.signal("TERM");
    hub.wait();
    // Whoever has that address now gets no key of this directory.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let mut command = holt(dir.path(), &["chat", "say hello"]);
    let (code, _, error) = run(command.env("HOME", dir.path()).env("HOLT_API_LISTEN", address));
    assert!(code == 1 && error.contains("no hub runs on this data directory"), "{error}");
    other.set_nonblocking(true).unwrap();
    for (mut stream, _) in std::iter::from_fn(|| other.accept().ok()) {
        stream.set_nonblocking(false).unwrap();
        assert_eq!(read_to_end(&mut stream), "", "it was looked whether anybody is there, no more");
    }
}

#[test]
fn one_message_gets_one_answer() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let (code, out, error) = run(&mut chat(&hub, &["say hello"]));
    assert_eq!((code, out.as_str(), error.as_str()), (0, "hello\n", ""));
    // The key it made for itself is private, listed, and no setup.
    let kept = std::fs::metadata(hub.dir.join("cli-key")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    let (_, keys, _) = run(&mut holt(&hub.dir, &["keys", "list"]));
    assert!(keys.contains("  holt chat on ") && keys.lines().count() == 2, "{keys}");
    assert_eq!(hub.client().get("/api/v1/setup").json()["setup_required"], true);
    // Tools, a pipe, a conversation that goes on, a failure, an agent that does not exist.
    let (code, out, _) = run(&mut chat(&hub, &["tool host_uptime {}"]));
    assert!(code == 0 && out.starts_with("done: "), "{out}");
    assert_eq!(run_with(&mut chat(&hub, &["-s", "talk"]), "deltas 500\n").1.trim_end(), words(500).trim_end());
    assert_eq!(run(&mut chat(&hub, &["-s", "talk", "say more"])).1, "more\n");
    let (_, shown, _) = run(&mut holt(&hub.dir, &["sessions", "show", "talk"]));
    assert!(shown.starts_with("Session talk (4 messages)\n"), "{shown}");
    let (code, out, error) = run(&mut chat(&hub, &["status 400"]));
    assert!(code == 1 && out.is_empty() && error.starts_with("error: "), "{error}");
    let (code, _, error) = run(&mut chat(&hub, &["-a", "nobody", "hi"]));
    assert!(code == 1 && error.contains("agent_not_found"), "{error}");
    assert_eq!(run_with(&mut chat(&hub, &[]), " \n").0, 1);
    let (_, keys, _) = run(&mut holt(&hub.dir, &["keys", "list"]));
    assert_eq!(keys.lines().count(), 2, "one key for all of them: {keys}");
}

#[test]
fn json_gives_the_events_as_they_are() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let (code, out, _) = run(&mut chat(&hub, &["--json", "say hello"]));
    assert_eq!(code, 0);
    let frames: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["thinking", "content_delta", "usage", "content", "done"]);
    let numbers: Vec<u64> = frames.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let (code, out, error) = run(&mut chat(&hub, &["--json", "status 400"]));
    assert_eq!((code, error.as_str()), (1, ""));
    assert!(out.lines().last().unwrap().starts_with("{\"type\":\"error\""), "{out}");
}

#[test]
fn a_killed_hub_ends_the_answer_as_interrupted_once_it_is_back() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let mut waiting = chat(&hub, &["--json", "-s", "s1", "gate 5 5"]).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut frames: Vec<Value> = Vec::new();
    while !frames.last().is_some_and(|frame| frame["text"].as_str().is_some_and(|text| text.contains("w5"))) {
        frames.push(serde_json::from_str(&lines.next().unwrap()).unwrap());
    }
    hub.kill();
    let address = hub.address.clone();
    drop(hub);
    let hub = Builder::new(dir.path()).model(&model).listen(&address).start();
    frames.extend(lines.map(|line| serde_json::from_str::<Value>(&line).unwrap()));
    let numbers: Vec<u64> = frames.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=frames.len() as u64).collect::<Vec<_>>(), "nothing twice, nothing lost");
    assert_eq!(frames.last().unwrap()["code"], "interrupted");
    let (code, _, error) = finished(waiting.wait_with_output().unwrap());
    assert_eq!((code, error.as_str()), (1, "connection lost, trying again…\nback again\n"));
    let (_, shown, _) = run(&mut holt(&hub.dir, &["sessions", "show", "s1"]));
    assert!(shown.starts_with("Session s1 (2 messages)\n"), "started once, and its words kept: {shown}");
    assert!(shown.contains("assistant: w1 w2 w3 w4 w5"), "{shown}");
}

#[test]
fn a_message_waits_behind_a_running_answer() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let first = chat(&hub, &["-s", "s1", "gate 1 1"]).spawn().unwrap();
    model.wait_at_gate();
    let mut second = chat(&hub, &["--json", "-s", "s1", "say second"]).spawn().unwrap();
    let mut lines = BufReader::new(second.stdout.take().unwrap()).lines().map(Result::unwrap);
    let queued = lines.find(|line| line.contains("\"queued\"")).unwrap();
    assert!(queued.contains("\"position\":1"), "{queued}");
    model.open_gate();
    let last = lines.last().unwrap();
    assert!(last.starts_with("{\"type\":\"done\""), "{last}");
    assert_eq!(finished(second.wait_with_output().unwrap()).0, 0);
    assert_eq!(finished(first.wait_with_output().unwrap()).1.trim_end(), words(2).trim_end());
    assert_eq!(run(&mut chat(&hub, &["-s", "s1", "say third"])).1, "third\n");
    let (_, shown, _) = run(&mut holt(&hub.dir, &["sessions", "show", "s1"]));
    assert!(shown.starts_with("Session s1 (6 messages)\n"), "{shown}");
}

#[test]
fn a_revoked_key_ends_a_chat_that_runs() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let waiting = chat(&hub, &["gate 1 1"]).spawn().unwrap();
    model.wait_at_gate();
    let (_, keys, _) = run(&mut holt(&hub.dir, &["keys", "list"]));
    let id = keys.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(run(&mut holt(&hub.dir, &["keys", "revoke", &id])).0, 0);
    let (code, _, error) = finished(waiting.wait_with_output().unwrap());
    assert!(code == 1 && error.contains("revoked"), "{error}");
    model.open_gate();
    // The next one makes itself a new key.
    assert_eq!(run(&mut chat(&hub, &["say again"])).1, "again\n");
}

#[test]
fn what_is_missing_is_named() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = Hub::start(dir.path());
    let check = |command: &mut Command, part: &str| {
        let (code, out, error) = run(command);
        assert!(code == 1 && out.is_empty() && error.starts_with("error: ") && error.contains(part), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    check(&mut chat(&hub, &["--key", "dk_wrong", "hi"]), "does not know this key");
    check(chat(&hub, &["hi"]).env("HOLT_KEY", "dk_wrong"), "does not know this key");
    let other = |arguments: &[&str]| holt(elsewhere.path(), &[&["chat"], arguments].concat());
    check(&mut other(&["--url", &hub.address, "hi"]), "make a key on the hub's machine with: holt keys create");
    check(&mut other(&["--url", "https://127.0.0.1:1", "hi"]), "no hub answers at https://127.0.0.1:1");
    check(other(&["hi"]).env("HOLT_URL", "ftp://x"), "ftp:// is not spoken");
    check(&mut chat(&hub, &["-s", "a\nb", "hi"]), "session_id");
    check(&mut chat(&hub, &[&"x".repeat(32_769)]), "32769 bytes");
    let address = hub.address.clone();
    drop(hub);
    check(
        &mut other(&["--url", &address, "hi"]),
        &format!("no hub answers at http://{address}: start one with: holt serve"),
    );
}

#[test]
fn conversations_are_listed_shown_exported_and_deleted() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let sessions = |arguments: &[&str]| holt(&hub.dir, &[&["sessions"], arguments].concat());
    assert_eq!(run(&mut sessions(&["list"])).1, "No sessions yet.\nBegin one with: holt chat\n");
    for id in ["s1", "s2", "s3"] {
        assert_eq!(run(&mut chat(&hub, &["-s", id, "say it is <fine>"])).1, "it is <fine>\n");
    }
    let (_, out, _) = run(&mut sessions(&["list"]));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["ID", "ADAPTER", "EXT-ID", "MESSAGES", "COST", "CREATED", "TITLE", "AGENT"]
    );
    assert!(lines.len() == 4 && lines[1].starts_with("s3  ws       s3      2         $0.0000  "), "{out}");
    assert!(lines[1].ends_with("  say it is <fine>  default"), "{out}");

    let (_, out, _) = run(&mut sessions(&["show", "s1"]));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["Session s1 (2 messages)", ""]);
    assert!(lines[2].starts_with('[') && lines[2].ends_with("] user: say it is <fine>"), "{out}");
    assert!(lines[3].ends_with("] assistant: it is <fine>"), "{out}");

    let (_, out, _) = run(&mut sessions(&["export", "s1"]));
    assert!(out.starts_with("# Session s1\n\n## user (") && out.ends_with(")\n\nit is <fine>\n"), "{out}");
    let (_, out, _) = run(&mut sessions(&["export", "s1", "-f", "json"]));
    let messages: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&messages[1]["role"], &messages[1]["content"]), (&json!("assistant"), &json!("it is <fine>")));
    assert!(out.starts_with("[\n  {\n    \"role\": \"user\",\n    \"content\": "), "{out}");

    // Nobody answers: no. No: no. Yes: yes.
    let (code, out, error) = run(&mut sessions(&["delete", "s1"]));
    assert!(code == 1 && out.ends_with("[y/N] ") && error.contains("--yes"), "{out} {error}");
    let (code, out, _) = run_with(&mut sessions(&["delete", "s1"]), "n\n");
    assert!(code == 0 && out.ends_with("Nothing was deleted.\n"), "{out}");
    let (code, out, _) = run_with(&mut sessions(&["delete", "s1"]), "y\n");
    assert!(code == 0 && out.ends_with("Deleted session s1.\n"), "{out}");
    assert_eq!(run(&mut sessions(&["delete", "s2", "-y"])).1, "Deleted session s2.\n");
    for command in ["show", "export", "delete"] {
        let (code, out, error) = run(&mut sessions(&[command, "s1"]));
        assert!(code == 1 && out.is_empty() && error.contains("no session \"s1\""), "{error}");
    }
    assert_eq!(run(&mut sessions(&["prune", "--older-than", "1h", "-y"])).1, "No session was quiet for that long.\n");
    assert_eq!(run(&mut sessions(&["prune", "--older-than", "soon"])).0, 2);
    let (code, _, error) = run(&mut sessions(&["prune", "--older-than", "0"]));
    assert!(code == 1 && error.contains("--yes"), "{error}");
    assert_eq!(run(&mut sessions(&["prune", "--older-than", "0", "--yes"])).1, "Deleted 1 sessions.\n");
    assert_eq!(run(&mut sessions(&["list"])).1.lines().count(), 2);
}

#[test]
fn what_a_part_of_the_hub_would_refuse_is_found_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let check = |config: &str| {
        std::fs::write(dir.path().join("holt.toml"), config).unwrap();
        run(&mut holt(dir.path(), &["config", "check"]))
    };
    let (code, _, error) = check("[web.fetch]\nallow_private = [\"10.0.0.0/33\"]\n");
    assert!(code == 1 && error.contains("web.fetch.allow_private: \"10.0.0.0/33\""), "{error}");
    let (code, out, error) = check(
        "[tools.near]\ntransport = \"sse\"\nurl = \"http://127.0.0.1/mcp\"\n\
         [tools.far]\ntransport = \"sse\"\nurl = \"https://e.example/mcp\"\nheaders = { Host = \"x\" }\n\
         [tools.good]\ntransport = \"sse\"\nurl = \"https://e.example/mcp\"\n",
    );
    assert_eq!(code, 0, "{error}");
    let warnings: Vec<&str> = out.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 2, "{out}");
    assert!(warnings[0].contains("tools.far") && warnings[0].contains("\"Host\""), "{out}");
    assert!(warnings[1].contains("tools.near") && warnings[1].contains("allow_loopback = true"), "{out}");
}
