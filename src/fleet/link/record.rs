//! The audit file of remote sessions (contract agent-link 8): who asked this machine for what, and which tools ran. One
//! JSON object a line, only ever appended; size-bounded with one predecessor. What cannot be recorded is not done.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use crate::rt::{clock, json, lock, text};

/// One file; two are kept.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Arguments and errors beyond it are cut.
const TEXT_BYTES_MAX: usize = 2048;

/// See the module.
pub(super) struct AuditFile {
    path: PathBuf,
    /// Guarded by the mutex: the file and its size. Its job is to queue writes; nothing is taken under it.
    file: Mutex<(File, u64)>,
}

/// Whose session it is; the same in every line of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Who {
    pub(super) session: String,
    pub(super) user: String,
    pub(super) hub: String,
}

impl AuditFile {
    /// Opens the file, or makes it (0600).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let n_bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: Mutex::new((file, n_bytes)) })
    }

    /// Adds a line: what happened, and fields of its own.
    pub(super) fn write(&self, who: &Who, event: &str, fields: &[(&str, Value)]) -> io::Result<()> {
        let mut line = Map::new();
        line.insert("time".to_owned(), json!(clock::rfc3339(clock::unix_ms())));
        line.insert("event".to_owned(), json!(event));
        line.insert("session".to_owned(), json!(text::cut(&who.session, TEXT_BYTES_MAX)));
        line.insert("user".to_owned(), json!(text::cut(&who.user, TEXT_BYTES_MAX)));
        line.insert("hub".to_owned(), json!(who.hub));
        for (name, value) in fields {
            let value = match value {
                Value::String(long) if long.len() > TEXT_BYTES_MAX => json!(text::cut(long, TEXT_BYTES_MAX)),
                value => value.clone(),
            };
            line.insert((*name).to_owned(), value);
        }
        let mut bytes = json::to_vec(&Value::Object(line));
        bytes.push(b'\n');
        let mut guard = lock(&self.file);
        let (file, n_bytes) = &mut *guard;
        if *n_bytes > 0 && *n_bytes + bytes.len() as u64 > FILE_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            *file = open(&self.path)?;
            *n_bytes = 0;
        }
        // One write: lines of a process that dies are whole or absent.
        let n = file.write(&bytes)?;
        *n_bytes += n as u64;
        if n == bytes.len() { Ok(()) } else { Err(io::Error::other("the disk is full")) }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_files_are_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = AuditFile::open(&path).unwrap();
        let who = Who { session: "s1".into(), user: "ana\n".into(), hub: "http://h".into() };
        audit.write(&who, "tool", &[("tool", json!("host_cpu")), ("arguments", json!("x".repeat(9000)))]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["session"], &line["user"], &line["tool"]),
            (&json!("s1"), &json!("ana\n"), &json!("host_cpu"))
        );
        assert_eq!(line["arguments"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        lock(&audit.file).1 = FILE_BYTES_MAX;
        audit.write(&who, "end", &[]).unwrap();
        assert!(dir.path().join("audit.jsonl.1").exists());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        drop(audit);
        AuditFile::open(&path).unwrap().write(&who, "end", &[]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
