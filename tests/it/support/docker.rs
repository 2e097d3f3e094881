//! A program named `docker`: it writes down its arguments and is a scripted tool server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::tool_server::config;

pub struct Docker {
    dir: PathBuf,
}

impl Docker {
    /// Puts it into a directory.
    pub fn put(dir: &Path) -> Self {
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let server = config(&[]);
        let args = server["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect::<Vec<_>>();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{0}/args.new'\nmv '{0}/args.new' '{0}/args'\nenv > '{0}/env'\nSCRIPTED=1 exec '{1}' {2}\n",
            bin.display(),
            server["command"].as_str().unwrap(),
            args.join(" ")
        );
        let program = bin.join("docker");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir: bin }
    }

    /// A search path that finds it first.
    pub fn path(&self) -> String {
        format!("{}:{}", self.dir.display(), std::env::var("PATH").unwrap_or_default())
    }

    /// What it was called with last; None while it was not.
    pub fn args(&self) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.dir.join("args")).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }
}
