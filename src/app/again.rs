//! The process becomes the same program anew, with the listening socket in its hands: same process id, no refused
//! connection (architecture 8).

use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::config::Config;
use crate::sys;

/// Tells the new process of the socket: `<descriptor> <what it was made for>`. For nobody else.
const VARIABLE: &str = "HOLT_INHERITED_SOCKET";
/// What Linux puts behind the path of a program whose file was replaced.
const REPLACED: &str = " (deleted)";

/// Becomes a new process; comes back only with the reason why not.
pub(super) fn become_new(listener: &TcpListener, listen: &str) -> io::Error {
    let descriptor = match sys::keep_over_exec(listener) {
        Ok(descriptor) => descriptor,
        Err(error) => return error,
    };
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for program in programs() {
        failure = Command::new(program).args(&arguments).env(VARIABLE, format!("{descriptor} {listen}")).exec();
    }
    failure
}

/// The program's file as it is now, which may be a newer one; else the one that runs.
fn programs() -> Vec<PathBuf> {
    let mut found = Vec::with_capacity(2);
    if let Ok(path) = std::env::current_exe() {
        let plain = path.to_str().and_then(|path| path.strip_suffix(REPLACED)).map(PathBuf::from);
        found.push(plain.unwrap_or(path));
    }
    found.push(PathBuf::from("/proc/self/exe"));
    found
}

/// The socket that the process before this one left, if it is for the address that is wanted now.
pub(super) fn inherited(config: &Config) -> Option<TcpListener> {
    let (descriptor, listen) = config.source.env().get(VARIABLE)?.split_once(' ')?;
    let listener = sys::inherited_listener(descriptor.parse().ok()?).ok()?;
    // Another address: the socket is closed, which turns away those who wait in it.
    (listen == config.api.listen).then_some(listener)
}
