//! `/metrics`: well formed for a strict reader, and true.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::hub::Builder;
use crate::support::{Client, Hub, Model};

/// Name with labels as written, and value.
type Samples = BTreeMap<String, f64>;

/// Reads the text format, version 0.0.4, and refuses whatever its description does not allow.
fn read(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line ends too");
    let (mut samples, mut kinds, mut finished) = (Samples::new(), BTreeMap::new(), BTreeSet::new());
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(name, true) && !help.trim().is_empty(), "{line}");
            assert!(finished.insert(name.to_owned()), "{name} comes twice");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert_eq!(name, current, "HELP and TYPE belong together");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kind != "counter" || name.ends_with("_total"), "{name} is a counter");
            kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (name, labels, value) = sample(line);
            let kind = kinds.get(&current).unwrap_or_else(|| panic!("no TYPE before {line}"));
            let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{line} stands in {current}"));
            match kind.as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            assert_eq!(suffix == "_bucket", labels.iter().any(|(label, _)| label == "le"), "{line}");
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            let key = line.rsplit_once(' ').unwrap().0.to_owned();
            assert!(samples.insert(key, value).is_none(), "twice: {line}");
        }
    }
    for (name, _) in kinds.iter().filter(|(_, kind)| *kind == "histogram") {
        histogram(name, &samples);
    }
    samples
}

fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels: Vec<(String, String)> = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label, false), "{line}");
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next() {
                    Some((at, '"')) => break at,
                    Some((_, '\\')) => match chars.next() {
                        Some((_, c @ ('\\' | '"'))) => value.push(c),
                        Some((_, 'n')) => value.push('\n'),
                        other => panic!("escape {other:?} in {line}"),
                    },
                    Some((_, c)) => value.push(c),
                    None => panic!("{line}"),
                }
            };
            assert!(!labels.iter().any(|(known, _)| known == label), "{line}");
            labels.push((label.to_owned(), value));
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(!value.contains(' '), "no time stamps: {line}");
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn is_name(name: &str, may_have_colons: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (may_have_colons && c == ':');
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Buckets of each series grow, end with `+Inf`, and agree with the count.
fn histogram(name: &str, samples: &Samples) {
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (key, value) in samples {
        let Some(labels) = key.strip_prefix(&format!("{name}_bucket{{")) else { continue };
        let (others, bound) = labels.rsplit_once("le=\"").unwrap();
        let bound = bound.trim_end_matches("\"}");
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        series.entry(others.trim_end_matches(',').to_owned()).or_default().push((bound, *value));
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}{labels}: {buckets:?}");
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let (bound, last) = *buckets.last().unwrap();
        assert_eq!((bound, last), (f64::INFINITY, samples[&format!("{name}_count{braces}")]), "{name}{labels}");
        assert!(samples.contains_key(&format!("{name}_sum{braces}")));
    }
}

fn scrape(client: &Client) -> Samples {
    let answer = client.get("/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    read(&answer.text())
}

#[test]
fn figures_say_what_happened() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path())
        .paid_model(&model)
        .config("[otel]\nenabled = true\n[session]\ntier = \"autonomous\"")
        .start();
    let admin = hub.admin();
    for message in ["say hi", r#"tool kv_set {"key":"a","value":"1"}"#, r#"tool no\"such {}"#] {
        assert_eq!(admin.chat(json!({"message": message})).status, 200);
    }
    assert_ne!(admin.chat(json!({"message": "status 400"})).status, 200);
    assert_eq!(hub.client().get("/api/v1/keys").status, 401);
    assert_eq!(hub.client().get("/api/v1/nothing").status, 404);
    // Nobody asks for a key here (contract 3.7).
    let samples = scrape(&hub.client());
    let value = |key: &str| *samples.get(key).unwrap_or_else(|| panic!("{key} is not in {samples:#?}"));
    assert_eq!(value(r#"holt_messages_total{agent="default",adapter="api"}"#), 4.0);
    assert_eq!(value(r#"holt_sessions_active{agent="default"}"#), 0.0);
    assert_eq!(value(r#"holt_chat_duration_seconds_count{agent="default"}"#), 4.0);
    assert_eq!(value(r#"holt_tool_calls_total{agent="default",tool_name="kv_set"}"#), 1.0);
    assert_eq!(value(r#"holt_tool_calls_total{agent="default",tool_name="unknown"}"#), 1.0);
    assert_eq!(value(r#"holt_llm_errors_total{provider="openai",model="test-model"}"#), 1.0);
    assert_eq!(value(r#"holt_llm_duration_seconds_count{provider="openai",model="test-model"}"#), 6.0);
    let tokens = |direction: &str| {
        value(&format!(r#"holt_llm_tokens_total{{provider="openai",model="test-model",direction="{direction}"}}"#))
    };
    assert_eq!((tokens("prompt"), tokens("completion")), (50.0, 25.0));
    let cost = value(r#"holt_llm_cost_usd_total{provider="openai",model="test-model",pricing_source="registry"}"#);
    assert!((cost - 5.0 * (10.0 * 100.0 + 5.0 * 200.0) / 1e6).abs() < 1e-9, "{cost}");
    assert_eq!(value(r#"holt_http_requests_total{method="GET",route="/api/v1/keys",status="4xx"}"#), 1.0);
    assert_eq!(value(r#"holt_http_requests_total{method="POST",route="/api/v1/chat",status="2xx"}"#), 3.0);
    assert_eq!(value(r#"holt_http_requests_total{method="",route="",status="4xx"}"#), 1.0);
    assert_eq!((value(r#"holt_turns{state="running"}"#), value(r#"holt_turns{state="parked"}"#)), (0.0, 0.0));
    assert_eq!((value(r#"holt_approvals{status="pending"}"#), value("holt_machines_online")), (0.0, 0.0));
    assert!(value("holt_event_log_commits_total") >= 4.0);
    assert!(value("holt_http_request_duration_seconds_count") >= 6.0);
    if cfg!(target_os = "linux") {
        assert!(value("process_resident_memory_bytes") > 1e6 && value("holt_sockets_open") >= 2.0);
        assert!(value("process_open_fds") >= value("holt_sockets_open") && value("process_threads") > 1.0);
    }
    read_by_prometheus(&hub.client().get("/metrics").text());
    // Counters only grow.
    assert!(
        scrape(&admin)["holt_http_request_duration_seconds_count"] > value("holt_http_request_duration_seconds_count")
    );
}

/// Prometheus' own library reads it as we do. Without it, as on a machine that has not installed the tests' packages,
/// nothing is said.
fn read_by_prometheus(text: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp");
    let python = root.join("venv/bin/python");
    let has_reader = |python: &Path| {
        let asked = Command::new(python).args(["-c", "import prometheus_client"]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let is_required = std::env::var("HOLT_MCP_TESTS").is_ok_and(|value| value == "required");
    if !has_reader(&python) {
        assert!(!is_required, "prometheus-client is not installed; see .ci/run");
        eprintln!("skipped: prometheus-client is not installed");
        return;
    }
    let mut reader = Command::new(python);
    reader.arg(root.join("metrics.py")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut reader = reader.spawn().unwrap();
    reader.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), read(text).len().to_string());
}

#[test]
fn figures_are_off_until_they_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    assert_eq!((hub.client().get("/metrics").status, hub.admin().get("/metrics").status), (404, 404));
}
