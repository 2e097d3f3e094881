//! `holt check`: the real binary looks at the machine the tests run on, and at odd configurations.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Exit code, stdout, stderr; the configuration is the directory's `agent.toml`.
fn check(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.arg("check").args(arguments).arg("--data-dir").arg(dir).env_clear().stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn config(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    dir
}

#[test]
fn without_a_file_the_usual_checks_run() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (code, out, error) = check(dir.path(), &[]);
    assert!(code == 0 || code == 3, "{code} {out} {error}");
    assert!(out.starts_with("LEVEL"), "{out}");
    for name in ["cpu::cpu_usage", "cpu::load_average", "mem::memory_usage", "uptime::reboot_detected"] {
        assert!(out.contains(name), "{name}: {out}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn thresholds_decide_and_exit_codes_tell() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let fine = "[checks.uptime.reboot_detected]\nwarn_lt = 0.001\n";
    let bad = "[checks.uptime]\nreboot_detected = { warn_lt = \"30000d\" }\n";
    let dir = config(fine);
    let (code, out, error) = check(dir.path(), &["uptime"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("1 reading, all fine.\n") && out.contains("ok     uptime::reboot_detected  system"), "{out}");
    let (code, out, _) = check(dir.path(), &["uptime", "--nagios"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    assert!(out.starts_with("OK - 1 reading, all fine."), "{out}");

    let dir = config(bad);
    let (code, out, _) = check(dir.path(), &["uptime"]);
    assert!(code == 3 && out.contains("Warning") && out.ends_with("1 reading: 0 critical, 1 warning.\n"), "{out}");
    let (code, out, _) = check(dir.path(), &["uptime", "--nagios"]);
    assert!(code == 1 && out.starts_with("WARNING - uptime::reboot_detected system: uptime "), "{out}");
    let (code, out, _) = check(dir.path(), &["uptime", "--json"]);
    let row: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(
        (code, &row["level"], &row["check"], &row["target"]),
        (3, &"Warning".into(), &"uptime::reboot_detected".into(), &"system".into())
    );
    assert!(row["attrs"]["uptime_seconds"].is_string(), "{row}");

    let dir = config("[[checks.procnum]]\nsearch = 'no such process anywhere'\n[[checks.procnum]]\nuser = '0'\n");
    let (code, out, _) = check(dir.path(), &["procnum", "--nagios"]);
    assert!(code == 2 && out.starts_with("CRITICAL - procnum::process_count no such process anywhere: "), "{out}");
    assert!(out.contains(" | 'procnum::process_count no such process anywhere'=0 '"), "{out}");
}

#[test]
fn what_cannot_be_run_says_what_to_do() {
    let cases = [
        ("", &["cpus"][..], "error: cpus: no such check; did you mean cpu?"),
        (
            "",
            &["netif"],
            "error: netif: nothing to check: there is no [checks.netif] in the configuration, or it is off",
        ),
        ("[checks.cpu]\nenabled = false\n", &["cpu"], "error: cpu: nothing to check"),
        ("[checks.dsik]\n", &[], "agent.toml: checks.dsik: no such check; did you mean disk?"),
        ("[checks.cpu]\nintervall = 3\n", &[], "agent.toml: checks.cpu.intervall: unknown key; did you mean interval?"),
        ("[checks.cpu]\ninterval = 0\n", &[], "checks.cpu.interval: must be at least 1s"),
        (
            "[checks.cpu.cpu_usage]\nwarn_ge = 95\ncritical_ge = 90\n",
            &[],
            "checks.cpu.cpu_usage.warn_ge: is reached after",
        ),
        (
            "[checks.cpu.alerting]\nrepeat_numer = 3\n",
            &[],
            "checks.cpu.alerting.repeat_numer: unknown key; did you mean repeat_number?",
        ),
        ("[checks.cpu.labels]\ntarget = 'x'\n", &[], "checks.cpu.labels.target: is a reserved name"),
        ("[checks.cpu.labels]\nfrom_hostip = 'x'\n", &[], "checks.cpu.labels.from_hostip: is a reserved name"),
        ("[global.labels]\ncheck = 'x'\n", &[], "global.labels.check: is a reserved name"),
        ("[[checks.netif]]\n", &[], "checks.netif[0].interfaces: is needed"),
        ("[checks\n", &[], "agent.toml: line 1, column"),
        ("checks = 3\n", &[], "agent.toml: checks: must be a table"),
    ];
    for (text, arguments, expected) in cases {
        let dir = config(text);
        let (code, out, error) = check(dir.path(), arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{text}");
        assert!(error.contains(expected) && error.lines().count() == 1, "{text}: {error}");
        let (code, out, _) = check(dir.path(), &[arguments, &["--nagios"]].concat());
        assert!(code == 3 && out.starts_with("UNKNOWN - "), "{text}: {out}");
    }
    let dir = config("[global]\ninterval = 5\n[global.labels]\nfrom_hostname = 'x'\nsite = 'home'\n");
    assert_ne!(check(dir.path(), &["uptime"]).0, 1);
    // Under a supervisor there may be no home.
    let output = Command::new(env!("CARGO_BIN_EXE_holt")).args(["check", "uptime"]).env_clear().output().unwrap();
    assert_ne!(output.status.code(), Some(1), "{output:?}");
}
