//! The key that opens the hub: given, or on the hub's own machine made by this command itself.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::audit::{AuditStore, Entry};
use crate::cli::{CliError, Context};
use crate::config;
use crate::store::keys::hash_key;
use crate::store::{Db, KeyStore};
use crate::sys;

/// In the data directory, readable by its owner alone.
const KEY_FILE: &str = "cli-key";
/// What a chat needs; `admin` because machines answer nobody else without a rule. Whoever can read the file can read the
/// hub's databases beside it.
const SCOPES: [&str; 5] = ["chat", "sessions:read", "approvals:read", "approvals:write", "admin"];
/// More than any key.
const KEY_BYTES_MAX: u64 = 4096;

/// The key to use: `--key`, `HOLT_KEY`, else the one that this command keeps in the hub's data directory, where the
/// user may write and the hub is on this machine (`is_own`).
pub(super) fn find(given: Option<String>, context: &Context, is_own: bool) -> Result<String, CliError> {
    if let Some(key) = given.or_else(|| context.env.get("HOLT_KEY").map(str::to_owned)) {
        let key = key.trim().to_owned();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CliError::failed("this is no key: keys have no blanks and begin with dk_"));
        }
        return Ok(key);
    }
    let without = |why: &str| {
        CliError::Failed(format!(
            "{why}; make a key on the hub's machine with: holt keys create <name> -s chat,sessions:read \
            and give it in HOLT_KEY"
        ))
    };
    if !is_own {
        return Err(without(
            "no hub runs on this data directory (holt serve starts one), and one elsewhere needs a key",
        ));
    }
    let Ok(config) = config::load(&context.flags, &context.env) else {
        return Err(without("this hub needs a key, and the configuration does not say where its data is"));
    };
    if !config.db_path.exists() {
        return Err(without(&format!("this hub needs a key, and its data is not in {}", config.data_dir.display())));
    }
    own_key(&config.db_path, &config.data_dir.join(KEY_FILE))
        .map_err(|cause| without(&format!("this hub needs a key, and none could be made ({cause})")))
}

/// The kept key while it is active, else a new one in its place.
fn own_key(db_path: &Path, key_path: &Path) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let db = Arc::new(Db::open(db_path).map_err(|error| text(&error))?);
    let keys = KeyStore::new(Arc::clone(&db));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(key_path)
        .map_err(|error| format!("{}: {error}", key_path.display()))?;
    let at = |error: std::io::Error| format!("{}: {error}", key_path.display());
    // Of two that come at once, the second finds the key that the first one made.
    file.lock().map_err(at)?;
    let kept = read(&mut file).map_err(at)?;
    if !kept.is_empty() {
        let found = keys.find_active_by_hash(&hash_key(&kept)).map_err(|error| text(&error))?;
        if found.is_some_and(|record| record.scopes == SCOPES) {
            return Ok(kept);
        }
    }
    let host = sys::host_name().unwrap_or_else(|| "this machine".to_owned());
    let scopes = SCOPES.map(str::to_owned);
    let made = keys.create_for_cli(&format!("holt chat on {host}"), &scopes).map_err(|error| text(&error))?;
    let (record, plaintext) = made;
    let entry =
        Entry { actor: "cli", source: "cli", target: &record.id, detail: "for holt chat", ..Entry::ok("key.create") };
    AuditStore::new(db).add(&[entry]).map_err(|error| text(&error))?;
    write(&mut file, &plaintext).map_err(at)?;
    Ok(plaintext)
}

fn read(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(KEY_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn write(file: &mut File, plaintext: &str) -> std::io::Result<()> {
    // Somebody may have loosened them; the key comes in afterwards.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{plaintext}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::setup::Setup;
    use crate::config::{Env, Flags};

    #[test]
    fn its_own_key_is_kept_while_it_is_active() {
        let dir = tempfile::tempdir().unwrap();
        let (db_path, key_path) = (dir.path().join("holt.db"), dir.path().join(KEY_FILE));
        let first = own_key(&db_path, &key_path).unwrap();
        assert_eq!(own_key(&db_path, &key_path).unwrap(), first);
        assert_eq!(std::fs::metadata(&key_path).unwrap().permissions().mode() & 0o777, 0o600);
        let db = Arc::new(Db::open(&db_path).unwrap());
        assert!(Setup::new(Arc::clone(&db)).is_required().unwrap(), "nobody has set the hub up by this");
        let keys = KeyStore::new(db);
        let records = keys.list().unwrap();
        assert!(records.len() == 1 && records[0].name.starts_with("holt chat on "), "{records:?}");
        keys.revoke(&records[0].id).unwrap();
        std::fs::set_permissions(&key_path, Permissions::from_mode(0o644)).unwrap();
        let second = own_key(&db_path, &key_path).unwrap();
        assert_ne!(second, first);
        assert_eq!(std::fs::metadata(&key_path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&key_path, "garbage\n").unwrap();
        assert_ne!(own_key(&db_path, &key_path).unwrap(), second);
        assert_eq!(keys.list().unwrap().iter().filter(|key| !key.revoked).count(), 1);
    }

    #[test]
    fn without_a_key_the_command_to_run_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let find = |given: Option<&str>, env: Env, is_own: bool| {
            let flags = Flags { data_dir: Some(dir.path().to_owned()), ..Flags::default() };
            find(given.map(str::to_owned), &Context { flags, env }, is_own)
        };
        let text = |found: Result<String, CliError>| match found {
            Err(CliError::Failed(text)) => text,
            other => panic!("{other:?}"),
        };
        let env = || Env::of([("HOLT_KEY", "dk_env")]);
        assert_eq!(find(Some("dk_flag"), env(), false).unwrap(), "dk_flag");
        assert_eq!(find(None, env(), false).unwrap(), "dk_env");
        assert!(text(find(Some("a b"), env(), false)).contains("this is no key"));
        for (is_own, part) in [(false, "one elsewhere needs a key"), (true, "its data is not in")] {
            let text = text(find(None, Env::default(), is_own));
            assert!(text.contains(part) && text.contains("holt keys create"), "{text}");
        }
        assert!(!dir.path().join(KEY_FILE).exists());
    }
}
