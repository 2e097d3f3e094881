//! The one file that lets alerts and cursors last through a restart.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// More than any machine's alerts; a larger file is not ours.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Of the layout of the file.
const VERSION: u64 = 1;

/// Where the state is kept.
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the file holds; none when there is no usable one. A damaged file is set aside and said: alerts that were
    /// open then recover at the hub when it hears of their checks again.
    pub(super) fn read(&self) -> Option<Value> {
        let read = File::open(&self.path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                log::warn!("checks: read {}: {error}; starting without it", self.path.display());
                return None;
            }
        };
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        let value = value.filter(|value| value.get("version").and_then(Value::as_u64) == Some(VERSION));
        if value.is_none() {
            let aside = self.path.with_extension("damaged");
            match std::fs::rename(&self.path, &aside) {
                Ok(()) => log::warn!(
                    "checks: {} is damaged or of another release; kept as {}, starting anew",
                    self.path.display(),
                    aside.display()
                ),
                Err(error) => log::warn!("checks: {} is damaged, starting anew: {error}", self.path.display()),
            }
        }
        value
    }

    /// Writes it as a whole or not at all, readable for nobody else.
    pub(super) fn write(&self, mut value: Value) -> io::Result<()> {
        if let Value::Object(fields) = &mut value {
            fields.insert("version".to_owned(), VERSION.into());
        }
        let bytes = value.to_string();
        let fresh = self.path.with_extension("new");
        // Left over from a crash; made anew, so that nobody else's file is written to.
        let _ = std::fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_is_read_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checks.json");
        let state = StateFile::new(path.clone());
        assert_eq!(state.read(), None);
        std::fs::write(path.with_extension("new"), "half a fi").unwrap();
        state.write(json!({"alerts": [1]})).unwrap();
        assert_eq!(state.read().unwrap()["alerts"], json!([1]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for damage in ["", "{\"version\":1,\"al", "{\"version\":2}", "[]", "\0\0\0"] {
            std::fs::write(&path, damage).unwrap();
            assert_eq!(state.read(), None, "{damage}");
            assert_eq!(std::fs::read_to_string(path.with_extension("damaged")).unwrap(), damage);
            assert!(!path.exists());
        }
        assert!(StateFile::new(dir.path().join("no/such/dir/x")).write(json!({})).is_err());
    }
}
