//! The writer against a real directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use toml_edit::value;

use super::*;
use crate::rt::Threads;

const HASH: &str = "$2b$13$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn set_zone(writer: &ConfigWriter, zone: &str) -> Result<(), ConfigError> {
    writer.edit(|doc| {
        doc["api"]["timezone"] = value(zone);
        Ok(())
    })
}

fn set_password_hash(writer: &ConfigWriter, hash: &str) -> Result<(), ConfigError> {
    writer.edit(|doc| crate::config::edit::set(doc, "api.auth.password_hash", &hash.into()))
}

#[test]
fn comments_and_order_stay_and_the_old_file_is_kept() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("holt.toml");
    let old = "# mine\n[web]\nenabled = false # no\n\n[api.auth]\n# the door\npassword_hash = 'x' # old\n";
    fs::write(&path, old).unwrap();
    set_password_hash(&ConfigWriter::new(&path), HASH).unwrap();
    let new = fs::read_to_string(&path).unwrap();
    assert_eq!(new, old.replace("'x'", &format!("\"{HASH}\"")));
    assert_eq!(fs::read_to_string(dir.path().join("holt.toml.bak")).unwrap(), old);
    assert_eq!((mode(&path), mode(&dir.path().join("holt.toml.bak"))), (0o600, 0o600));
    assert_eq!(names(dir.path()), ["holt.toml", "holt.toml.bak"]);
}

#[test]
fn the_file_and_its_directory_are_made() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("deep/er/holt.toml");
    set_password_hash(&ConfigWriter::new(&path), HASH).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("[api.auth]\npassword_hash = \"{HASH}\"\n"));
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(names(path.parent().unwrap()), ["holt.toml"]);
}

#[test]
fn what_an_editor_changed_meanwhile_is_kept() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("holt.toml");
    let writer = ConfigWriter::new(&path);
    set_zone(&writer, "UTC").unwrap();
    let edited = fs::read_to_string(&path).unwrap() + "\n# by hand\n[web]\nenabled = true\n";
    fs::write(&path, &edited).unwrap();
    set_zone(&writer, "Europe/Berlin").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), edited.replace("UTC", "Europe/Berlin"));
}

#[test]
fn links_are_followed_not_replaced() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("real.toml");
    fs::write(&target, "# real\n").unwrap();
    symlink("real.toml", dir.path().join("one")).unwrap();
    symlink(dir.path().join("one"), dir.path().join("two")).unwrap();
    set_zone(&ConfigWriter::new(dir.path().join("two")), "UTC").unwrap();
    assert!(fs::read_link(dir.path().join("one")).is_ok() && fs::read_link(dir.path().join("two")).is_ok());
    assert!(fs::read_to_string(&target).unwrap().contains("UTC"));
    symlink("circle", dir.path().join("circle")).unwrap();
    assert!(set_zone(&ConfigWriter::new(dir.path().join("circle")), "UTC").is_err());
}

#[test]
fn a_failed_write_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("holt.toml");
    let writer = ConfigWriter::new(&path);
    let unchanged = |text: &str| {
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    };
    fs::write(&path, "[api]\n").unwrap();
    let refused = |reason: &str| ConfigError::Edit { path: path.clone(), reason: reason.into() };
    assert!(
        writer
            .edit(|doc| {
                doc.clear();
                Err(refused("no"))
            })
            .is_err()
    );
    unchanged("[api]\n");
    assert_eq!(names(dir.path()), ["holt.toml"]);
    // The temporary file cannot be made, nor the old file kept.
    for blocked in ["holt.toml.tmp", "holt.toml.bak"] {
        let in_the_way = dir.path().join(blocked);
        fs::create_dir_all(in_the_way.join("full")).unwrap();
        let error = set_zone(&writer, "UTC").unwrap_err();
        assert!(matches!(error, ConfigError::Write { .. }), "{error}");
        unchanged("[api]\n");
        fs::remove_dir_all(in_the_way).unwrap();
        assert_eq!(names(dir.path()), ["holt.toml"]);
    }
    // What is not TOML is not touched.
    fs::write(&path, "[api\n").unwrap();
    assert!(matches!(set_zone(&writer, "UTC"), Err(ConfigError::Syntax { .. })));
    unchanged("[api\n");
    fs::write(&path, "api = 5\n").unwrap();
    assert!(matches!(set_password_hash(&writer, HASH), Err(ConfigError::Edit { .. })));
    unchanged("api = 5\n");
    // Its directory is a file.
    let below_a_file = ConfigWriter::new(path.join("holt.toml"));
    assert!(set_zone(&below_a_file, "UTC").is_err());
    unchanged("api = 5\n");
}

#[test]
fn leftovers_of_a_crash_do_no_harm() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("holt.toml");
    let outside = dir.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    fs::write(&path, "[api]\n").unwrap();
    fs::write(dir.path().join("holt.toml.bak.tmp"), "half a fi").unwrap();
    symlink(&outside, dir.path().join("holt.toml.tmp")).unwrap();
    set_zone(&ConfigWriter::new(&path), "UTC").unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
    assert_eq!(names(dir.path()), ["holt.toml", "holt.toml.bak", "outside"]);
}

#[test]
fn an_edit_that_changes_nothing_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("holt.toml");
    let writer = ConfigWriter::new(&path);
    set_password_hash(&writer, HASH).unwrap();
    set_password_hash(&writer, HASH).unwrap();
    assert_eq!(names(dir.path()), ["holt.toml"]);
}

#[test]
fn edits_at_the_same_time_are_all_kept() {
    let dir = TempDir::new().unwrap();
    let writer = Arc::new(ConfigWriter::new(dir.path().join("holt.toml")));
    let threads = Threads::new();
    for n in 0..8 {
        let writer = Arc::clone(&writer);
        let edit = move || {
            let set = |doc: &mut toml_edit::DocumentMut| {
                doc[&format!("key{n}")] = value(n);
                Ok(())
            };
            writer.edit(set).unwrap();
        };
        threads.spawn("edits", 256 * 1024, edit).unwrap();
    }
    assert!(threads.join_all(Duration::from_secs(60)).is_empty());
    assert_eq!(fs::read_to_string(writer.path()).unwrap().lines().count(), 8);
}
