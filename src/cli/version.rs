//! `holt version`.

use super::CliError;
use super::command::{Action, Command};
use super::output::out;

pub(super) const COMMAND: Command = Command {
    name: "version",
    about: "Say which version this is",
    details: "Say which version this is, and what it was built from and for.",
    examples: &["holt version", "holt version | head -1"],
    args: &[],
    action: Action::Run(|_, _| say()),
};

fn say() -> Result<(), CliError> {
    out!("holt version {}", env!("CARGO_PKG_VERSION"))?;
    // Set by whoever makes a release.
    out!("  commit:   {}", option_env!("HOLT_COMMIT").unwrap_or("unknown"))?;
    out!("  platform: {}/{}", std::env::consts::OS, std::env::consts::ARCH)
}
