//! `holt setup-pin`.

use super::command::{Action, Command};
use super::database::Database;
use super::output::out;
use super::{CliError, Context};
use crate::auth::setup::Setup;

pub(super) const COMMAND: Command = Command {
    name: "setup-pin",
    about: "Make a new PIN for the hub's setup page",
    details: "Make a new PIN for the hub's setup page, as long as nobody has set the hub up.\n\
              The PIN that the hub printed at its start is void then, and so are the wrong tries. A running hub accepts \
              the new one at once.",
    examples: &["holt setup-pin", "holt setup-pin --data-dir /var/lib/holt"],
    args: &[],
    action: Action::Run(|_, context| renew(context)),
};

fn renew(context: &Context) -> Result<(), CliError> {
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
