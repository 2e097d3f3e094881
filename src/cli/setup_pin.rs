//! `holt setup-pin`.

use clap::Args;

use super::database::Database;
use super::output::out;
use super::{CliError, Context};
use crate::auth::setup::Setup;

/// Make a new PIN for the hub's setup page
#[derive(Args)]
#[command(long_about = "Make a new PIN for the hub's setup page, as long as nobody has set the hub up.

The PIN that the hub printed at its start is void then, and so are the wrong tries. A running hub accepts the new one
at once.

Examples:
  holt setup-pin
  holt setup-pin --data-dir /var/lib/holt")]
pub(super) struct SetupPin {}

impl SetupPin {
    #[expect(clippy::unused_self, reason = "all commands run alike")]
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let database = Database::open(context)?;
        let setup = Setup::new(std::sync::Arc::clone(&database.db));
        if !setup.is_required().map_err(CliError::failed)? {
            return Err(CliError::failed(
                "setup is done already; for a new password run: holt passwd; for a new key run: holt keys create <name>",
            ));
        }
        let pin = setup.renew_pin().map_err(CliError::failed)?;
        database.record("setup.pin", "", "");
        out!("FIRST-RUN SETUP PIN: open the hub's page and choose a password pin={pin}")
    }
}
