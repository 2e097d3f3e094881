//! A hub or an agent as a service of systemd: the unit, where its parts are, and whether another binary may take over.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::moving::backup::DATABASES;
use crate::moving::{MoveError, at};
use crate::store::{StoreError, snapshot};

const UNIT: &str = include_str!("../dist/holt.service");
const SYSTEM: &str = include_str!("../dist/system.conf");

/// Who is in this group reads the system's journal: the log tools and the check of the journal need it.
pub const JOURNAL_GROUP: &str = "systemd-journal";

/// Where a service is installed, and what it runs.
pub struct Service {
    /// `holt` or `holt-agent`: of the unit, the user and the state directory.
    pub name: &'static str,
    agent: bool,
    user: bool,
    /// Stands before every path: the file tree that a package is made of. Empty: this machine.
    root: PathBuf,
    /// What the unit starts.
    pub binary: PathBuf,
    /// Of the configuration of the user; only where `user` is set.
    config_home: PathBuf,
    /// Of the hub or the agent.
    data_dir: PathBuf,
    hub: Option<String>,
}

/// What the command line says of it.
pub struct Wish {
    pub agent: bool,
    pub user: bool,
    pub root: Option<PathBuf>,
    pub binary: PathBuf,
    /// Of the user: `$XDG_CONFIG_HOME` and the data directory.
    pub config_home: PathBuf,
    pub user_data_dir: PathBuf,
    /// Address of the hub, for an agent.
    pub hub: Option<String>,
}

impl Service {
    pub fn new(wish: Wish) -> Self {
        let name = if wish.agent { "holt-agent" } else { "holt" };
        let system_dir = Path::new("/var/lib").join(name);
        Self {
            name,
            agent: wish.agent,
            user: wish.user,
            root: wish.root.unwrap_or_default(),
            binary: wish.binary,
            config_home: wish.config_home,
            data_dir: if wish.user { wish.user_data_dir } else { system_dir },
            hub: wish.hub,
        }
    }

    /// Whether this is about a file tree and not about this machine.
    pub fn is_elsewhere(&self) -> bool {
        !self.root.as_os_str().is_empty()
    }

    /// A path below the root.
    fn place(&self, path: &Path) -> PathBuf {
        if self.is_elsewhere() { self.root.join(path.strip_prefix("/").unwrap_or(path)) } else { path.to_owned() }
    }

    /// The unit's file. Packages have their own directory, so that administrators can stand above them.
    pub fn unit_path(&self) -> PathBuf {
        let dir = match (self.user, self.is_elsewhere()) {
            (true, _) => self.config_home.join("systemd/user"),
            (false, true) => PathBuf::from("/usr/lib/systemd/system"),
            (false, false) => PathBuf::from("/etc/systemd/system"),
        };
        self.place(&dir.join(format!("{}.service", self.name)))
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.place(&self.data_dir)
    }

    /// Variables of the service, readable by root only; not for services of users.
    pub fn variables_path(&self) -> PathBuf {
        self.place(&Path::new("/etc/default").join(self.name))
    }

    /// Tells systemd which user a package needs.
    fn users_path(&self) -> PathBuf {
        self.place(&Path::new("/usr/lib/sysusers.d").join(format!("{}.conf", self.name)))
    }

    /// Text of the unit.
    pub fn unit(&self) -> String {
        let mut exec = format!("{} {}", quoted(&self.binary), if self.agent { "agent" } else { "serve" });
        exec.push_str(" --data-dir ");
        exec.push_str(&quoted(&self.data_dir));
        if let Some(hub) = &self.hub {
            exec.push_str(" --hub ");
            exec.push_str(&quoted(Path::new(hub)));
        }
        let yes_no = |yes: bool| if yes { "yes" } else { "no" };
        let system = if self.user { "" } else { SYSTEM };
        let parts = [
            ("@SYSTEM@\n", system),
            ("@EXEC@", &exec),
            ("@ABOUT@", if self.agent { "Holt agent" } else { "Holt hub" }),
            ("@NAME@", self.name),
            ("@USER@", self.name),
            ("@TARGET@", if self.user { "default.target" } else { "multi-user.target" }),
            // What an agent looks at: file systems, disks, the kernel's messages.
            ("@HOME@", if self.agent { "read-only" } else { "yes" }),
            ("@DEVICES@", yes_no(!self.agent)),
            ("@LOGS@", yes_no(!self.agent)),
        ];
        let mut unit = UNIT.to_owned();
        for (mark, text) in parts {
            unit = unit.replace(mark, text);
        }
        unit
    }

    /// Refuses where the data was written by a newer Holt than this one.
    pub fn refuse_downgrade(&self) -> Result<(), MoveError> {
        for (name, known) in DATABASES.iter().zip(snapshot::SCHEMAS) {
            let path = self.data_dir().join(name);
            if !path.exists() {
                continue;
            }
            let found = snapshot::schema_of(&path)?;
            if found > known {
                let error = StoreError::Newer { path, found: found.cast_signed(), known: known.cast_signed() };
                return Err(MoveError::Refused(format!(
                    "{error}; nothing was changed. Keep the newer version, or restore a backup that was made before it"
                )));
            }
        }
        Ok(())
    }

    /// Writes unit and, in a package, the file for its user; what was written. `code`: a join code for the first start.
    pub fn write(&self, code: Option<&str>) -> Result<Vec<PathBuf>, MoveError> {
        let mut written = vec![self.unit_path()];
        put(&self.unit_path(), &self.unit(), 0o644)?;
        if self.is_elsewhere() && !self.user {
            let line = format!("u {0} - \"{0}\" /var/lib/{0}\nm {0} {JOURNAL_GROUP}\n", self.name);
            put(&self.users_path(), &line, 0o644)?;
            written.push(self.users_path());
        }
        if let Some(code) = code {
            put(&self.variables_path(), &format!("HOLT_JOIN_CODE={code}\n"), 0o600)?;
            written.push(self.variables_path());
        }
        Ok(written)
    }

    /// Removes what [`Service::write`] wrote; the data only with `purge`. What was removed.
    pub fn remove(&self, purge: bool) -> Result<Vec<PathBuf>, MoveError> {
        let mut removed = Vec::new();
        let mut files = vec![self.unit_path()];
        if !self.user {
            files.extend([self.users_path(), self.variables_path()]);
        }
        for path in files {
            match fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&path)(error)),
            }
        }
        let data = self.data_dir();
        if purge && data.exists() {
            fs::remove_dir_all(&data).map_err(at(&data))?;
            removed.push(data);
        }
        Ok(removed)
    }

    /// Puts the running binary where every user can start it, unless it is there.
    pub fn place_binary(&self, running: &Path) -> Result<bool, MoveError> {
        let target = self.place(&self.binary);
        if target.canonicalize().is_ok_and(|target| running.canonicalize().is_ok_and(|running| running == target)) {
            return Ok(false);
        }
        let bytes = fs::read(running).map_err(at(running))?;
        put_bytes(&target, &bytes, 0o755)?;
        Ok(true)
    }
}

fn put(path: &Path, text: &str, mode: u32) -> Result<(), MoveError> {
    put_bytes(path, text.as_bytes(), mode)
}

/// Whole or not at all, also over a binary that runs.
fn put_bytes(path: &Path, bytes: &[u8], mode: u32) -> Result<(), MoveError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(at(dir))?;
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        // Not subject to the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(at(path))
}

/// A word of `ExecStart=`: quoted where systemd would take it apart, its marks doubled.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-:=@,+%".contains(&b)) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line_stay_words() {
        for (text, expected) in [
            ("/usr/bin/holt", "/usr/bin/holt"),
            ("/a b/c", "\"/a b/c\""),
            ("/50%/$x", "\"/50%%/$$x\""),
            ("/\"q\"\\", "\"/\\\"q\\\"\\\\\""),
        ] {
            assert_eq!(quoted(Path::new(text)), expected);
        }
    }
}
