//! `holt version`.

use clap::Args;

use super::CliError;
use super::output::out;

/// Say which version this is
#[derive(Args)]
#[command(long_about = "Say which version this is, and what it was built from and for.

Examples:
  holt version
  holt version | head -1")]
pub(super) struct Version {}

impl Version {
    #[expect(clippy::unused_self, reason = "all commands run alike")]
    pub(super) fn run(self) -> Result<(), CliError> {
        out!("holt version {}", env!("CARGO_PKG_VERSION"))?;
        // Set by whoever makes a release.
        out!("  commit:   {}", option_env!("HOLT_COMMIT").unwrap_or("unknown"))?;
        out!("  platform: {}/{}", std::env::consts::OS, std::env::consts::ARCH)
    }
}
