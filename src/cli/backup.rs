//! `holt backup`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::database::Database;
use super::output::{self, out};
use super::{CliError, Context};
use crate::moving::backup::{self, Summary};

pub(super) const COMMAND: Command = Command {
    name: "backup",
    about: "Write everything that the hub is to one file",
    details: "Write everything that the hub is to one file: databases, configuration, secrets, personas and skills.\n\
              The hub may run meanwhile: the databases are copied as they are at one moment. The file is a gzipped tar with \
              checksums; it holds secrets and is readable by you only. A file of that name is replaced once the new one is \
              whole. Bring it back with `holt restore`.",
    examples: &["holt backup", "holt backup /mnt/usb/holt.tar.gz", "holt backup - | ssh nas 'cat > holt.tar.gz'"],
    args: &[Arg::word("file", "File or directory to write to; `-` is stdout [default: a name with the time, here]")
        .optional()
        .path()],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let database = Database::open(context)?;
    let file = args.path("file");
    if file.as_deref() == Some(Path::new("-")) {
        if std::io::stdout().is_terminal() {
            return Err(CliError::Misused(
                "a terminal cannot show a backup; give a file, or a pipe behind -".to_owned(),
            ));
        }
        let summary = backup::write(&database.config, &mut output::bytes()).map_err(CliError::failed)?;
        return finish(&database, &summary, "-");
    }
    let path = match file {
        None => PathBuf::from(backup::usual_name()),
        Some(dir) if dir.is_dir() => dir.join(backup::usual_name()),
        Some(path) => match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() && !dir.is_dir() => {
                let text = format!("there is no directory {}; make it first, or choose another place", dir.display());
                return Err(CliError::Failed(text));
            }
            _ => path,
        },
    };
    let summary = backup::named(&database.config, &path).map_err(CliError::failed)?;
    let shown = path.display().to_string();
    finish(&database, &summary, &shown)?;
    out!("{shown}")
}

fn finish(database: &Database, summary: &Summary, shown: &str) -> Result<(), CliError> {
    backup::remember(&database.db).map_err(CliError::failed)?;
    database.record("backup", shown, &format!("{} files, {} bytes", summary.files, summary.bytes));
    summary.left.iter().for_each(|what| output::note(&format!("not in it: {what}")));
    Ok(())
}
