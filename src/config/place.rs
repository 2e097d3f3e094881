//! Where the data directory and the configuration file are (decisions, row "names").

use std::io;
use std::path::{Path, PathBuf};

use super::Flags;
use super::env::Env;
use super::error::ConfigError;

/// The reference's file name.
pub(super) const REFERENCE_FILE: &str = "denkeeper.toml";

/// The two places, before the file was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) config_path: PathBuf,
    /// From options and variables; None when only the file or the home directory can say.
    pub(super) data_dir: Option<PathBuf>,
    /// What the home directory gives: Holt's own, or the reference's when its setup is in use.
    pub(super) home_data_dir: Option<PathBuf>,
    /// The reference's file or its data directory is in use: its defaults count.
    pub(super) reference: bool,
}

/// Chooses. A file that was asked for by name must exist; any other need not.
pub(super) fn find(flags: &Flags, env: &Env) -> Result<Place, ConfigError> {
    let home = env.get("HOME").map(PathBuf::from);
    let holt_home = env
        .get("XDG_DATA_HOME")
        .map(PathBuf::from)
        // The XDG specification: a relative path is to be ignored.
        .filter(|path| path.is_absolute())
        .or_else(|| home.as_ref().map(|home| home.join(".local/share")))
        .map(|dir| dir.join("holt"));
    let reference_home = home.map(|home| home.join(".denkeeper"));
    let own = flags.data_dir.clone().or_else(|| env.get("HOLT_DATA_DIR").map(PathBuf::from));
    let reference_dir = env.get("DENKEEPER_DATA_DIR").map(PathBuf::from);
    let reference_data = own.is_none() && reference_dir.is_some();
    let data_dir = own.or_else(|| reference_dir.clone());
    let asked = flags.config.clone().or_else(|| env.get("HOLT_CONFIG").map(PathBuf::from));

    if let Some(config_path) = asked {
        if let Err(cause) = std::fs::metadata(&config_path) {
            return Err(ConfigError::Read { path: config_path, cause });
        }
        let reference = reference_data || is_reference_name(&config_path);
        let home_data_dir = if is_reference_name(&config_path) { reference_home } else { holt_home };
        return Ok(Place { config_path, data_dir, home_data_dir, reference });
    }
    let own_file = data_dir.as_ref().or(holt_home.as_ref()).map(|dir| dir.join("holt.toml"));
    if let Some(config_path) = own_file.clone().filter(|path| exists(path)) {
        return Ok(Place { config_path, data_dir, home_data_dir: holt_home, reference: false });
    }
    if let Some(config_path) = env.get("DENKEEPER_CONFIG").map(PathBuf::from) {
        if let Err(cause) = std::fs::metadata(&config_path) {
            return Err(ConfigError::Read { path: config_path, cause });
        }
        return Ok(Place { config_path, data_dir, home_data_dir: reference_home, reference: true });
    }
    let reference_file = reference_dir.or_else(|| reference_home.clone()).map(|dir| dir.join(REFERENCE_FILE));
    if let Some(config_path) = reference_file.filter(|path| exists(path)) {
        return Ok(Place { config_path, data_dir, home_data_dir: reference_home, reference: true });
    }
    let config_path = own_file.ok_or(ConfigError::NoDataDir)?;
    Ok(Place { config_path, data_dir, home_data_dir: holt_home, reference: false })
}

fn is_reference_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == REFERENCE_FILE)
}

/// A file that is there but cannot be looked at counts: reading it then says why it fails.
fn exists(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}
