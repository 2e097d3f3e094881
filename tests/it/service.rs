//! `holt service` on a file tree, as packages use it: no system is touched.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

fn holt(words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(words).env_clear().env("HOME", "/nonexistent/home").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn in_root(root: &Path, words: &[&str]) -> (i32, String, String) {
    holt(&[&["service"], words, &["--root", root.to_str().unwrap()]].concat())
}

/// What systemd says of a unit; nothing where it is not installed.
fn verify(unit: &Path) {
    let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).output() else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let name = unit.file_name().unwrap().to_str().unwrap();
    // The binary and the user are on no machine that only tests.
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| line.contains(name) && !line.contains("is not executable") && !line.contains("No such file"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_service_is_installed_kept_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let (code, out, error) = in_root(root, &["install"]);
    assert_eq!(code, 0, "{error}");
    let unit_path = root.join("usr/lib/systemd/system/holt.service");
    assert!(out.contains(unit_path.to_str().unwrap()), "{out}");
    let unit = std::fs::read_to_string(&unit_path).unwrap();
    for line in [
        "ExecStart=/usr/bin/holt serve --data-dir /var/lib/holt\n",
        "User=holt\n",
        "ProtectSystem=strict\n",
        "NoNewPrivileges=yes\n",
        "MemoryMax=",
        "StateDirectory=holt\n",
        "CapabilityBoundingSet=\n",
        "WantedBy=multi-user.target\n",
    ] {
        assert!(unit.contains(line), "{line} in {unit}");
    }
    assert!(!unit.contains("@NAME@") && !unit.contains("@USER@") && !unit.contains("@SYSTEM@"), "{unit}");
    verify(&unit_path);
    let binary = root.join("usr/bin/holt");
    assert_eq!(std::fs::metadata(&binary).unwrap().permissions().mode() & 0o777, 0o755);
    let users = std::fs::read_to_string(root.join("usr/lib/sysusers.d/holt.conf")).unwrap();
    assert!(users.starts_with("u holt - ") && users.ends_with("\nm holt systemd-journal\n"), "{users}");
    let (code, out, _) = in_root(root, &["status"]);
    assert!(code == 1 && out.contains("unit:"), "{out}");

    // The data of a newer Holt is not given to this one.
    let data = root.join("var/lib/holt");
    std::fs::create_dir_all(&data).unwrap();
    let conn = rusqlite::Connection::open(data.join("holt.db")).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    std::fs::write(&unit_path, "as it was").unwrap();
    let (code, _, error) = in_root(root, &["install"]);
    assert!(code == 1 && error.contains("newer holt (schema 99") && error.contains("nothing was changed"), "{error}");
    assert_eq!(std::fs::read_to_string(&unit_path).unwrap(), "as it was");
    conn.pragma_update(None, "user_version", 1).unwrap();
    assert_eq!(in_root(root, &["install"]).0, 0, "an older schema is brought up to date at the start");

    let (code, out, error) = in_root(root, &["uninstall"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("The data stays in ") && !unit_path.exists() && data.join("holt.db").exists(), "{out}");
    let (code, out, _) = in_root(root, &["status"]);
    assert!(code == 1 && out.contains("not installed"), "{out}");
    let (code, _, error) = in_root(root, &["uninstall", "--purge"]);
    assert!(code == 1 && error.contains("nothing was removed") && data.exists(), "{error}");
    assert_eq!(in_root(root, &["uninstall", "--purge", "--yes"]).0, 0);
    assert!(!data.exists());
}

#[test]
fn an_agent_has_a_service_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let words = ["install", "--agent", "--hub", "https://hub.example.net:8443", "--join", "hj_a_b"];
    let (code, _, error) = in_root(root, &words);
    assert_eq!(code, 0, "{error}");
    let unit_path = root.join("usr/lib/systemd/system/holt-agent.service");
    let unit = std::fs::read_to_string(&unit_path).unwrap();
    let exec = "ExecStart=/usr/bin/holt agent --data-dir /var/lib/holt-agent --hub https://hub.example.net:8443\n";
    assert!(unit.contains(exec) && unit.contains("User=holt-agent\n") && !unit.contains("hj_a_b"), "{unit}");
    verify(&unit_path);
    let code_path = root.join("etc/default/holt-agent");
    assert_eq!(std::fs::read_to_string(&code_path).unwrap(), "HOLT_JOIN_CODE=hj_a_b\n");
    assert_eq!(std::fs::metadata(&code_path).unwrap().permissions().mode() & 0o777, 0o600);

    let (code, _, error) = in_root(root, &["install", "--hub", "https://x"]);
    assert!(code == 2 && error.contains("--agent"), "{error}");
    assert_eq!(in_root(root, &["install", "--agent", "--hub", "http://x\nUser=root"]).0, 2, "one line stays one line");
}

#[test]
fn a_unit_can_be_looked_at_first() {
    let (code, out, _) = holt(&["service", "install", "--print", "--user", "--data-dir", "/srv/my data"]);
    assert_eq!(code, 0);
    assert!(out.contains(" serve --data-dir \"/srv/my data\"\n") && out.contains("WantedBy=default.target"), "{out}");
    assert!(!out.contains("User=") && !out.contains("ProtectSystem"), "{out}");
}
