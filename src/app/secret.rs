//! The secret that Holt makes itself: `<data dir>/secret`, hex, readable by its user only.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::app::AppError;
use crate::store::random_hex;

/// The stored secret; made when there is none yet.
pub(crate) fn read_or_make(data_dir: &Path) -> Result<String, AppError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = data_dir.join("secret");
    let fail = |cause: String| AppError::Secret { path: path.display().to_string(), cause };
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= 64 => return Ok(text.trim().to_owned()),
        Ok(_) => return Err(fail("it is damaged; remove it, and all logins end".to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error.to_string())),
    }
    let secret = random_hex::<32>()?;
    // Whole or not at all: written aside, then renamed.
    let aside = data_dir.join("secret.new");
    let written =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside).and_then(|mut file| {
            file.write_all(secret.as_bytes())?;
            file.sync_all()
        });
    written.and_then(|()| std::fs::rename(&aside, &path)).map_err(|error| fail(error.to_string()))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = read_or_make(dir.path()).unwrap();
        assert_eq!(read_or_make(dir.path()).unwrap(), first);
        let mode = std::fs::metadata(dir.path().join("secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join("secret"), "short").unwrap();
        assert!(read_or_make(dir.path()).is_err());
    }
}
