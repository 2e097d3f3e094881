//! Backups: made while the hub works, brought back whole, refused when they are not.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::{Hub, Model, wait_until};

fn holt(words: &[&str], dir: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(words).arg("--data-dir").arg(dir).env_clear().stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// `(header, contents)` of every entry of a backup.
fn entries(archive: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut tar = Vec::new();
    GzDecoder::new(std::fs::File::open(archive).unwrap()).read_to_end(&mut tar).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while tar[at] != 0 {
        let size = usize::from_str_radix(std::str::from_utf8(&tar[at + 124..at + 135]).unwrap(), 8).unwrap();
        found.push((tar[at..at + 512].to_vec(), tar[at + 512..at + 512 + size].to_vec()));
        at += 512 + size.next_multiple_of(512);
    }
    found
}

/// An archive of these entries; headers get the name, the size and the checksum.
fn packed(path: &Path, entries: &[(&str, u8, Vec<u8>)]) {
    let mut gz = GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
    for (name, kind, data) in entries {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        block[156] = *kind;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        let blanks = vec![0; data.len().next_multiple_of(512) - data.len()];
        for part in [&block[..], data, &blanks] {
            std::io::Write::write_all(&mut gz, part).unwrap();
        }
    }
    std::io::Write::write_all(&mut gz, &[0; 1024]).unwrap();
    gz.finish().unwrap();
}

/// The entries of a backup under their names, the list changed by `edit`.
fn repacked(from: &Path, to: &Path, edit: impl FnOnce(&mut Vec<(String, u8, Vec<u8>)>)) {
    let name = |head: &[u8]| String::from_utf8(head[..100].to_vec()).unwrap().trim_end_matches('\0').to_owned();
    let mut all: Vec<(String, u8, Vec<u8>)> =
        entries(from).into_iter().map(|(head, data)| (name(&head), head[156], data)).collect();
    edit(&mut all);
    packed(to, &all.iter().map(|(name, kind, data)| (name.as_str(), *kind, data.clone())).collect::<Vec<_>>());
}

fn tree(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(tree(&entry)),
            false => found.push((entry.clone(), std::fs::read(&entry).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_backup_under_load_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (home, new_home) = (dir.path().join("old"), dir.path().join("new"));
    std::fs::create_dir_all(home.join("agents/default/skills/deep")).unwrap();
    std::fs::write(home.join("agents/default/SOUL.md"), "You are calm.\n").unwrap();
    std::fs::write(home.join("agents/default/skills/deep/SKILL.md"), "+++\nname = \"deep\"\n+++\n\nGo.\n").unwrap();
    let script = "agents/default/skills/deep/run.sh";
    std::fs::write(home.join(script), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(home.join(script), Permissions::from_mode(0o755)).unwrap();
    let model = Model::start();
    let hub = Builder::new(&home).model(&model).config("[kv]\nmax_keys_per_agent = -1").start();
    let admin = hub.admin();
    let writer = admin.new_key("writer", &["kv:write", "kv:read", "chat", "sessions:read"]);
    assert_eq!(writer.chat(json!({"session_id": "s1", "message": "say hello"})).status, 200);
    let epoch = writer.get("/api/v1/sessions/s1").json()["epoch"].as_str().unwrap().to_owned();

    // Somebody writes all the time; each value is there whole or not at all.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let file = dir.path().join("backup.tar.gz");
    let by_api = dir.path().join("by-api.tar.gz");
    let (before, after) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                count += 1;
                let path = format!("/api/v1/kv/default/k{count:06}");
                let body = json!({"value": "v".repeat(500)}).to_string();
                assert_eq!(writer.send("PUT", &path, &body).status, 200);
            }
            count
        });
        let count = || hub.database().query_row("SELECT count(*) FROM kv", [], |row| row.get::<_, i64>(0)).unwrap();
        let before = wait_until("something was written", || Some(count()).filter(|count| *count > 20));
        let (code, out, error) = holt(&["backup", file.to_str().unwrap()], &home);
        assert_eq!(code, 0, "{error}");
        assert_eq!(out.trim(), file.to_str().unwrap());
        let answer = admin.send("POST", "/api/v1/backup", "");
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/gzip"));
        assert!(answer.header("content-disposition").contains("holt-backup-2"));
        std::fs::write(&by_api, &answer.body).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Release);
        (before, load.join().unwrap())
    });
    assert_eq!(writer.send("POST", "/api/v1/backup", "").status, 403);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    let names: Vec<_> = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("tmp")), "{names:?}");
    let audit = admin.new_key("auditor", &["audit:read"]).get("/api/v1/audit?action=backup").json();
    assert_eq!(audit["entries"].as_array().unwrap().len(), 2, "{audit}");

    let (code, _, error) = holt(&["restore", file.to_str().unwrap()], &home);
    assert!(code == 1 && error.contains("a hub is running"), "{error}");
    drop(hub);
    let (code, _, error) = holt(&["restore", file.to_str().unwrap()], &home);
    assert!(code == 1 && error.contains("--force"), "{error}");

    for archive in [&file, &by_api] {
        let (code, out, error) = holt(&["restore", archive.to_str().unwrap(), "--force"], &new_home);
        assert_eq!(code, 0, "{error}");
        assert!(out.starts_with("Restored "), "{out}");
        let hub = Builder::new(&new_home).start();
        let again = hub.client().with_key(&writer.key());
        let keys = again.get("/api/v1/kv/default").json();
        assert!(keys.to_string().contains("k000020"), "{keys}");
        let kept = hub.database().query_row("SELECT count(*), min(length(value)) FROM kv", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        let (count, shortest) = kept.unwrap();
        assert!(count >= before && count <= after && shortest == 500, "{before} {count} {after}");
        assert_eq!(again.get("/api/v1/sessions/s1/messages").json().as_array().unwrap().len(), 2);
        let session = again.get("/api/v1/sessions/s1").json();
        assert_ne!(session["epoch"], epoch.as_str(), "another history");
        // Programs stay programs, for their owner.
        assert_eq!((mode(&new_home.join(script)), mode(&new_home.join("secret"))), (0o700, 0o600));
        for name in ["secret", "hub-key", "holt.toml", "agents/default/SOUL.md", "agents/default/skills/deep/SKILL.md"]
        {
            assert_eq!(std::fs::read(new_home.join(name)).unwrap(), std::fs::read(home.join(name)).unwrap(), "{name}");
        }
    }
    // What was replaced is still there.
    let kept = std::fs::read_dir(&new_home).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = kept.filter(|path| path.join("holt.db").is_file()).collect();
    assert_eq!(kept.len(), 1);
}

#[test]
fn what_is_not_a_whole_backup_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let mut hub = Hub::start(&home);
    hub.admin();
    hub.signal("TERM");
    hub.wait();
    let file = dir.path().join("good.tar.gz");
    assert_eq!(holt(&["backup", file.to_str().unwrap()], &home).0, 0);
    let good = std::fs::read(&file).unwrap();
    let bad = dir.path().join("bad.tar.gz");
    let before = tree(&home);
    let check = |expected: &str| {
        let (code, _, error) = holt(&["restore", bad.to_str().unwrap(), "--force"], &home);
        assert!(code == 1 && error.contains(expected), "{expected}: {error}");
        assert!(error.contains("nothing was changed"), "{error}");
        assert_eq!(tree(&home), before, "{expected}");
        assert!(!dir.path().join("evil").exists());
    };
    for part in [0, 1, 7, 2, 1_000_000] {
        let length = match part {
            0 => 0,
            1_000_000 => good.len() - 4,
            part => good.len() * part / 8,
        };
        std::fs::write(&bad, &good[..length]).unwrap();
        check("it breaks off");
    }
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    std::fs::write(&bad, &flipped).unwrap();
    check("bad.tar.gz");
    std::fs::write(&bad, "not a backup at all").unwrap();
    check("bad.tar.gz");

    repacked(&file, &bad, |all| all.iter_mut().find(|(name, ..)| name == "secret").unwrap().2[0] ^= 1);
    check("\"secret\" is damaged");
    repacked(&file, &bad, |all| all.retain(|(name, ..)| name != "secret"));
    check("\"secret\" is missing");
    for name in ["../evil", "/tmp/evil", "agents/../../evil", "other/evil", "holt.db-wal", "agents"] {
        repacked(&file, &bad, |all| all.insert(0, (name.to_owned(), b'0', b"x".to_vec())));
        check("no backup does");
    }
    repacked(&file, &bad, |all| all.insert(0, ("agents/default".to_owned(), b'2', Vec::new())));
    check("no plain file");
    repacked(&file, &bad, |all| all.insert(0, ("agents/extra".to_owned(), b'0', b"x".to_vec())));
    check("not in its list");
    let edit_list = |edit: &dyn Fn(&mut Value)| {
        repacked(&file, &bad, |all| {
            let list = &mut all.last_mut().unwrap().2;
            let mut value: Value = serde_json::from_slice(list).unwrap();
            edit(&mut value);
            *list = value.to_string().into_bytes();
        });
    };
    edit_list(&|list| list["format"] = json!(2));
    check("newer holt");
    // A database of a newer Holt, with right checksums.
    repacked(&file, &bad, |all| {
        let at = all.iter().position(|(name, ..)| name == "events.db").unwrap();
        all[at].2[60..64].copy_from_slice(&99_u32.to_be_bytes());
        let hash = <sha2::Sha256 as sha2::Digest>::digest(&all[at].2);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = &mut all.last_mut().unwrap().2;
        let mut value: Value = serde_json::from_slice(list).unwrap();
        let files = value["files"].as_array_mut().unwrap();
        files.iter_mut().find(|file| file["path"] == "events.db").unwrap()["sha256"] = json!(hash);
        *list = value.to_string().into_bytes();
    });
    check("has schema 99");

    let (code, out, error) = holt(&["restore", file.to_str().unwrap(), "--check"], &home);
    assert!(code == 0 && out.contains("whole"), "{error}");
    assert_eq!(tree(&home), before);
    // Into a file that cannot be: nothing is left behind.
    let (code, _, error) = holt(&["backup", "/proc/nothing/here.tar.gz"], &home);
    assert!(code == 1 && error.contains("/proc/nothing"), "{error}");
    let stdout = Command::new(env!("CARGO_BIN_EXE_holt"))
        .args(["backup", "-", "--data-dir"])
        .arg(&home)
        .env_clear()
        .output()
        .unwrap();
    std::fs::write(&bad, &stdout.stdout).unwrap();
    assert_eq!(holt(&["restore", bad.to_str().unwrap(), "--check"], &home).0, 0);
}
