//! `host_docker`: containers, over the engine's Unix socket. Only what reads; values of environment variables are not
//! shown.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::diag::args::{Args, Kind, Param};
use crate::diag::finding::{Finding, float};
use crate::diag::redact::redact;
use crate::diag::report::{Report, clean, clean_name};
use crate::diag::root::HostRoot;
use crate::diag::thresholds::CONTAINERS_IN_TROUBLE;
use crate::rt::Cancel;
use crate::rt::order::Order;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Docker (or Podman) containers with their state and health, or with \"container\" the \
details of that one: exit code, restarts, health check, ports, mounts; never values of environment variables.";

pub(super) const PARAMS: &[Param] = &[Param {
    name: "container",
    kind: Kind::Name,
    description: "One container by name or id. Without it: all of them.",
}];

/// Below `/run`.
const SOCKETS: [&str; 2] = ["docker.sock", "podman/podman.sock"];

const CONTAINERS_MAX: usize = 100;

/// Most of an answer that is read: a list of a hundred containers is a tenth of it.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Longest wait for the engine.
const ANSWER_MAX: Duration = Duration::from_secs(8);

pub(super) fn look(root: &HostRoot, args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let sockets = SOCKETS.map(|socket| root.run_dir(socket));
    let Some(socket) = sockets.iter().find(|socket| socket.exists()) else {
        let mut report = Report::new();
        report.set("available", false);
        report.note("not available: there is no Docker or Podman socket in /run");
        return Ok(report);
    };
    let ask = |path: &str| {
        let deadline = context.deadline.min(Instant::now() + ANSWER_MAX);
        get(socket, path, deadline, context.cancel).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                ToolError::new("Holt's user may not use the Docker socket; it would have to join the group docker")
            }
            _ if context.cancel.is_set() => ToolError::new("cancelled"),
            _ => ToolError::new(format!("the container engine does not answer: {error}")),
        })
    };
    match args.text("container") {
        None => match ask("/containers/json?all=1")? {
            (200, Value::Array(all)) => Ok(overview(&all)),
            (status, answer) => Err(refused(status, &answer)),
        },
        // The name has letters, digits and : _ . @ - alone: nothing that a path would take for something else.
        Some(name) => match ask(&format!("/containers/{name}/json"))? {
            (200, container) => Ok(details(&container)),
            (404, _) => Err(ToolError::new(format!("there is no container {name}"))),
            (status, answer) => Err(refused(status, &answer)),
        },
    }
}

fn refused(status: u16, answer: &Value) -> ToolError {
    let why = clean(answer["message"].as_str().unwrap_or("no reason given"), 200);
    ToolError::new(format!("the container engine refused with status {status}: {why}"))
}

fn overview(all: &[Value]) -> Report {
    let mut report = Report::new();
    report.set("available", true);
    report.set("count", all.len());
    let mut troubled = 0_u64;
    let mut rows: Vec<Value> = Vec::new();
    for container in all {
        let text = |field: &str| clean_name(container[field].as_str().unwrap_or(""));
        let (state, status) = (text("State"), text("Status"));
        let name = container["Names"][0].as_str().unwrap_or("").trim_start_matches('/');
        let mut row = json!({"name": clean_name(name), "image": text("Image"), "state": state, "status": status});
        let health = ["unhealthy", "healthy", "starting"].iter().find(|health| status.contains(&format!("({health}")));
        let health = health.copied().or_else(|| status.contains("health: starting").then_some("starting"));
        if let Some(health) = health {
            row["health"] = json!(health);
        }
        if matches!(state.as_str(), "restarting" | "dead") || health == Some("unhealthy") {
            troubled += 1;
        }
        rows.push(row);
    }
    // Those that do not run are few and matter more.
    rows.order_by_key(|row| row["state"] == "running" && row["health"] != "unhealthy");
    if rows.len() > CONTAINERS_MAX {
        report.set("truncated", true);
        rows.truncate(CONTAINERS_MAX);
    }
    report.set("containers", rows);
    report.find(Finding::judge(&CONTAINERS_IN_TROUBLE, "containers in trouble", float(troubled)));
    report
}

fn details(container: &Value) -> Report {
    let mut report = Report::new();
    let (state, config) = (&container["State"], &container["Config"]);
    let text = |value: &Value| value.as_str().map(|text| clean(text, 200)).filter(|text| !text.is_empty());
    report.set("available", true);
    report.set_known("name", text(&container["Name"]).map(|name| name.trim_start_matches('/').to_owned()));
    report.set_known("image", text(&config["Image"]));
    report.set_known("state", text(&state["Status"]));
    report.set_known("exit_code", state["ExitCode"].as_i64());
    report.set_known("oom_killed", state["OOMKilled"].as_bool());
    report.set_known("error", text(&state["Error"]));
    report.set_known("started_at", text(&state["StartedAt"]));
    report.set_known("finished_at", text(&state["FinishedAt"]).filter(|time| !time.starts_with("0001")));
    report.set_known("restart_count", container["RestartCount"].as_u64());
    report.set_known("restart_policy", text(&container["HostConfig"]["RestartPolicy"]["Name"]));
    report.set_known("memory_limit_bytes", container["HostConfig"]["Memory"].as_u64().filter(|limit| *limit > 0));
    report.set_known("health", text(&state["Health"]["Status"]));
    report.set_known("failing_streak", state["Health"]["FailingStreak"].as_u64());
    let last = state["Health"]["Log"].as_array().and_then(|log| log.last());
    let output = last.and_then(|entry| entry["Output"].as_str()).unwrap_or("");
    report.set_known("health_output", Some(clean(redact(output).trim(), 300)).filter(|output| !output.is_empty()));
    let names = |list: &Value, name: fn(&Value) -> Option<String>| {
        list.as_array().map(|list| list.iter().take(40).filter_map(name).collect::<Vec<_>>()).unwrap_or_default()
    };
    let variable = |entry: &Value| Some(clean_name(entry.as_str()?.split('=').next()?));
    report.set("environment_names", names(&config["Env"], variable));
    let mount = |entry: &Value| {
        let mode = if entry["RW"].as_bool() == Some(false) { " (read-only)" } else { "" };
        let source = entry["Source"].as_str().or_else(|| entry["Name"].as_str()).unwrap_or("");
        Some(format!("{} -> {}{mode}", clean_name(source), clean_name(entry["Destination"].as_str()?)))
    };
    report.set("mounts", names(&container["Mounts"], mount));
    let ports = container["NetworkSettings"]["Ports"].as_object();
    let ports = ports.into_iter().flatten().take(40).map(|(port, bound)| {
        let host = bound[0]["HostPort"].as_str().map(|host| format!(" on host port {}", clean_name(host)));
        format!("{}{}", clean_name(port), host.unwrap_or_default())
    });
    report.set("ports", ports.collect::<Vec<_>>());
    report
}

/// Asks an engine over its socket; the status and the JSON of the answer. Blocks until `deadline`; a cancel ends it.
pub(crate) fn get(socket: &Path, path: &str, deadline: Instant, cancel: &Cancel) -> io::Result<(u16, Value)> {
    let mut stream = UnixStream::connect(socket)?;
    let closing = stream.try_clone()?;
    cancel.set_hook(move || {
        // Fails only when the engine has closed it already.
        let _ = closing.shutdown(std::net::Shutdown::Both);
    });
    let answer = exchange(&mut stream, path, deadline);
    cancel.clear_hook();
    answer
}

fn exchange(stream: &mut UnixStream, path: &str, deadline: Instant) -> io::Result<(u16, Value)> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    stream.set_write_timeout(left()?)?;
    // HTTP/1.0: the answer is not chunked and ends with the connection.
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
        if u64::try_from(answer.len()).is_ok_and(|length| length > ANSWER_BYTES_MAX) {
            return Err(io::Error::other("its answer is too long"));
        }
    }
    parse(&answer).ok_or_else(|| io::Error::other("its answer is not HTTP"))
}

/// `HTTP/1.0 200 OK`, headers, an empty line, JSON.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_slice(&answer[end + 4..]).unwrap_or(Value::Null)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};
    use crate::rt::Threads;
    use std::os::unix::net::UnixListener;

    /// An engine that gives these answers, one per connection, and tells what it was asked.
    fn engine(fixture: &Fixture, answers: Vec<String>) -> crossbeam_channel::Receiver<String> {
        fixture.write("run/here", "");
        let listener = UnixListener::bind(fixture.root().run_dir("docker.sock")).unwrap();
        let (asked_tx, asked_rx) = crossbeam_channel::bounded(8);
        let serve = move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 1024];
                let count = stream.read(&mut request).unwrap();
                asked_tx.send(String::from_utf8_lossy(&request[..count]).into_owned()).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        };
        Threads::new().spawn("engine", 64 * 1024, serve).unwrap();
        asked_rx
    }

    fn ok(body: &Value) -> String {
        format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}")
    }

    #[test]
    fn containers_are_listed_those_in_trouble_first() {
        let fixture = Fixture::empty();
        let list = json!([
            {"Names": ["/web"], "Image": "nginx", "State": "running", "Status": "Up 2 hours (healthy)"},
            {"Names": ["/db"], "Image": "mariadb", "State": "restarting", "Status": "Restarting (1) 3 seconds ago"},
            {"Names": ["/app"], "Image": "app", "State": "running", "Status": "Up 1 hour (unhealthy)"}]);
        let asked = engine(&fixture, vec![ok(&list)]);
        let report = fixture.call("host_docker", &json!({}));
        assert!(asked.recv().unwrap().starts_with("GET /containers/json?all=1 HTTP/1.0\r\n"));
        let names: Vec<&str> =
            report["containers"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(names, ["db", "app", "web"]);
        assert_eq!(report["containers"][1]["health"], "unhealthy");
        assert_eq!(level(&report, "containers in trouble"), "warning");
    }

    #[test]
    fn details_never_show_values_of_the_environment() {
        let fixture = Fixture::empty();
        let container = json!({"Name": "/db", "RestartCount": 3,
            "State": {"Status": "exited", "ExitCode": 137, "OOMKilled": true, "FinishedAt": "2026-01-02T03:04:05Z",
                      "Health": {"Status": "unhealthy", "Log": [{"Output": "password=hunter2 refused\n"}]}},
            "Config": {"Image": "mariadb", "Env": ["ROOT_PASSWORD=hunter2", "TZ=UTC"]},
            "Mounts": [{"Source": "/srv/db", "Destination": "/var/lib/mysql", "RW": false}],
            "NetworkSettings": {"Ports": {"3306/tcp": [{"HostPort": "3307"}], "80/tcp": null}}});
        let asked =
            engine(&fixture, vec![ok(&container), "HTTP/1.0 404 Not Found\r\n\r\n{}".to_owned(), "garbage".to_owned()]);
        let text = fixture.try_call("host_docker", &json!({"container": "db"})).unwrap();
        assert!(asked.recv().unwrap().starts_with("GET /containers/db/json "));
        assert!(!text.contains("hunter2"), "{text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&report["exit_code"], &report["oom_killed"]), (&json!(137), &json!(true)));
        assert_eq!(report["environment_names"], json!(["ROOT_PASSWORD", "TZ"]));
        assert_eq!(report["mounts"][0], "/srv/db -> /var/lib/mysql (read-only)");
        assert_eq!(report["ports"], json!(["3306/tcp on host port 3307", "80/tcp"]));
        let error = |arguments: Value| fixture.try_call("host_docker", &arguments).unwrap_err().message;
        assert_eq!(error(json!({"container": "gone"})), "there is no container gone");
        assert!(error(json!({})).contains("not HTTP"));
        assert!(error(json!({"container": "../../info"})).contains("plain name"));
    }

    #[test]
    fn without_an_engine_the_answer_is_honest() {
        let report = Fixture::empty().call("host_docker", &json!({}));
        assert_eq!(report["available"], false);
    }
}
