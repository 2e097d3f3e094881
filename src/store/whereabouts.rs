//! Where the hub of a data directory is reached: a small file beside its lock, for commands of the same machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

const FILE: &str = "address";
/// An address and a path are less.
const BYTES_MAX: u64 = 8192;

/// Tells where the hub with that database is, as long as the file is kept; for whoever holds the directory (see
/// [`super::claim::claim`]). `url` is its socket with `http://` or `https://` before it, `cert_file` its certificate.
pub fn tell(db_path: &Path, url: &str, cert_file: Option<&Path>) -> io::Result<File> {
    let path = db_path.with_file_name(FILE);
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    // Those who read hold it for a moment.
    file.lock()?;
    file.set_len(0)?;
    let cert_file = cert_file.map(std::path::absolute).transpose()?.unwrap_or_default();
    file.write_all(format!("{url}\n{}\n", cert_file.display()).as_bytes())?;
    Ok(file)
}

/// Takes the word back. What a hub that was killed has left behind is not believed anyway.
pub fn take_back(db_path: &Path) {
    let _ = std::fs::remove_file(db_path.with_file_name(FILE));
}

/// The address of the hub that runs on that database, and its certificate (empty: none). None when none runs, or
/// whoever asks may not know.
pub fn ask(db_path: &Path) -> Option<(String, String)> {
    let file = File::open(db_path.with_file_name(FILE)).ok()?;
    let held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    let mut text = String::new();
    (&file).take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let (url, cert_file) = text.strip_suffix('\n')?.split_once('\n')?;
    held.then(|| (url.to_owned(), cert_file.to_owned()))
}

/// The number of the user as whom that hub runs.
pub fn runs_as(db_path: &Path) -> Option<u32> {
    ask(db_path)?;
    // Who made the file is who holds it: others may not write it.
    std::fs::metadata(db_path.with_file_name(FILE)).ok().map(|data| data.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hub_that_runs_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let db_path = dir.path().join("holt.db");
        assert_eq!(ask(&db_path), None);
        std::fs::write(dir.path().join(FILE), "http://192.0.2.1:80/ of long ago, and longer than the next one\n\n")
            .unwrap();
        assert_eq!(ask(&db_path), None, "nobody holds it");
        let held = tell(&db_path, "https://[::]:1", Some(Path::new("/x/y.pem"))).unwrap();
        assert_eq!(ask(&db_path), Some(("https://[::]:1".to_owned(), "/x/y.pem".to_owned())));
        drop(held);
        assert_eq!(ask(&db_path), None);
        take_back(&db_path);
        assert!(!dir.path().join(FILE).exists());
    }
}
