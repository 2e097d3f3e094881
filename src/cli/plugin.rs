//! `holt plugin ...`: keys and signatures of plugins.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::CliError;
use super::command::{Action, Arg, Command};
use super::output::out;
use crate::tools::plugins::{new_keys, sign, verify};

pub(super) const COMMAND: Command =
    Command::group("plugin", "Make keys for plugins, sign and verify them", &[KEYGEN, SIGN, VERIFY]);

const FILE: Arg = Arg::word("file", "The program").path();

const KEYGEN: Command = Command {
    name: "keygen",
    about: "Make a key pair",
    details: "Make a key pair: <NAME>.pub for security.trusted_keys of the hub, <NAME>.key to sign with. The private \
              half stays where plugins are built.",
    examples: &["holt plugin keygen release", "holt plugin keygen release --output ~/keys"],
    args: &[
        Arg::word("name", "How the two files are called"),
        Arg::option("output", "DIR", "Where they are written").short('o').default(".").path(),
    ],
    action: Action::Run(|args, _| {
        let directory = args.path("output").unwrap_or_else(|| PathBuf::from("."));
        keygen(args.text("name"), &directory)
    }),
};

const SIGN: Command = Command {
    name: "sign",
    about: "Sign a program",
    details: "Sign a program: the signature is written to <FILE>.sig. A hub that trusts the public half runs it as a \
              plugin.",
    examples: &["holt plugin sign ./weather --key release.key"],
    args: &[FILE, Arg::option("key", "FILE", "The private key").short('k').required().path()],
    action: Action::Run(|args, _| {
        let (file, key) = (path(args.path("file"))?, path(args.path("key"))?);
        let signature = sign(&file, &read(&key)?).map_err(CliError::Failed)?;
        let target = with_suffix(&file, ".sig");
        write(&target, &signature, 0o644, true)?;
        out!("signed: {}", target.display())
    }),
};

const VERIFY: Command = Command {
    name: "verify",
    about: "Verify a program's signature",
    details: "Verify a program's signature. Fails when there is none, or when none of the keys made it.",
    examples: &["holt plugin verify ./weather --key release.pub"],
    args: &[FILE, Arg::option("key", "FILE", "A public key; may be given several times").short('k').required().many()],
    action: Action::Run(|args, _| {
        let file = path(args.path("file"))?;
        let keys = args.values("key").iter().map(|key| read(Path::new(key))).collect::<Result<Vec<_>, _>>()?;
        if verify(&file, &keys).map_err(CliError::Failed)? {
            return out!("good: {}", file.display());
        }
        Err(CliError::Failed(format!("{}: there is no signature beside it", file.display())))
    }),
};

fn keygen(name: &str, directory: &Path) -> Result<(), CliError> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(CliError::Misused("name: a file name, without a slash".to_owned()));
    }
    let (public, private) = new_keys().map_err(CliError::Failed)?;
    let (public_file, private_file) = (directory.join(format!("{name}.pub")), directory.join(format!("{name}.key")));
    // The private one first: without it the other is worth nothing.
    write(&private_file, private.as_bytes(), 0o600, false)?;
    write(&public_file, public.as_bytes(), 0o644, false)?;
    out!("private key: {} (keep it safe)\npublic key:  {}", private_file.display(), public_file.display())
}

fn path(given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    given.ok_or_else(|| CliError::Misused("a file must be given".to_owned()))
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))
}

/// Writes a file; an existing one only if it may be replaced.
fn write(path: &Path, bytes: &[u8], mode: u32, replace: bool) -> Result<(), CliError> {
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    let options = if replace { options.create(true).truncate(true) } else { options.create_new(true) };
    let written = options.open(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
