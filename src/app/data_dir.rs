//! The data directory while the hub runs: nobody else has it, and commands learn where the hub is.

use std::fs::File;
use std::net::SocketAddr;

use super::AppError;
use crate::config::Config;
use crate::store::claim::claim;
use crate::store::whereabouts;

/// Two hubs on one data directory would give the same numbers twice.
pub(super) fn lock(config: &Config) -> Result<File, AppError> {
    let locked = || AppError::Locked { path: config.data_dir.display().to_string() };
    match claim(&config.db_path) {
        Ok(file) => file.ok_or_else(locked),
        Err(cause) => Err(AppError::Claim { path: config.data_dir.display().to_string(), cause }),
    }
}

/// For commands of this machine; None when they have to look where the hub is configured.
pub(super) fn tell_whereabouts(config: &Config, address: SocketAddr) -> Option<File> {
    let url = format!("{}://{address}", config.api.scheme());
    let cert_file = config.api.tls.as_ref().map(|files| files.cert_file.as_path());
    whereabouts::tell(&config.db_path, &url, cert_file)
        .inspect_err(|error| log::warn!("commands will look for the hub where it is configured: {error}"))
        .ok()
}
