//! `holt inspect`: black box, on the machine that runs the tests.

use std::process::Command;

use serde_json::Value;

/// Runs the binary in an empty environment; its exit code and what it printed.
fn run_holt(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_holt")).args(args).env_clear().output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_look_needs_no_hub_no_key_and_no_data_directory() {
    let (code, out, err) = run_holt(&["inspect"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.lines().next().is_some_and(|line| line.len() > 10), "{out}");
    if cfg!(target_os = "linux") {
        assert!(out.contains("### Items") && out.contains("memory use"), "{out}");
    }
}

#[test]
fn programs_get_json() {
    let (code, out, err) = run_holt(&["inspect", "mem", "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["area"].as_str(), report["mode"].as_str()), (Some("mem"), Some("inspect")));
    assert!(report["causes"].is_array() && report["actions"]["urgent"].is_array(), "{report}");
    assert!(["ok", "warning", "critical"].contains(&report["level"].as_str().unwrap()));
}

#[test]
fn an_unknown_area_is_refused_with_what_is_known() {
    let (code, out, err) = run_holt(&["inspect", "disc"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("did you mean disk?") && err.contains("known are system, cpu, mem"), "{err}");
}

#[test]
fn a_web_server_that_is_not_there_is_named() {
    // Bound and dropped: nobody listens there now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/health");
    let (code, out, err) = run_holt(&["inspect", "http", &url, "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let failed = report["not_seen"].as_array().unwrap().iter().any(|one| one["tool"] == "host_http");
    assert!(failed, "{report}");
}
