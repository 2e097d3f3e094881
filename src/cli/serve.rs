//! `holt serve`: the hub, until a signal ends it.

use std::sync::Arc;

use crossbeam_channel::bounded;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::{CliError, Context};
use crate::app::{App, Started, init_logging};
use crate::config;
use crate::limits;
use crate::rt::Threads;

pub(super) const COMMAND: Command = Command {
    name: "serve",
    about: "Run the hub: API, page and agents",
    details: "Run the hub: API, page and agents. Needs no configuration; stops on Ctrl-C or SIGTERM, reads the \
              configuration again on SIGHUP.",
    examples: &[
        "holt serve",
        "holt serve --listen 0.0.0.0:8080",
        "holt serve --data-dir /srv/holt --config /etc/holt.toml",
    ],
    args: &[Arg::option(
        "listen",
        "ADDRESS",
        "Where to listen [default: 127.0.0.1:8080]; port 0 lets the system choose",
    )],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let mut flags = context.flags.clone();
    flags.listen = args.value("listen").map(str::to_owned).or(flags.listen);
    let config = config::load(&flags, &context.env).map_err(CliError::failed)?;
    let scheme = config.api.scheme();
    init_logging(config.log.level, config.log.json);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(CliError::failed)?;
    let handle = signals.handle();
    let Started { app, address, pin } = App::start(config).map_err(CliError::failed)?;
    // An address that a person can open: all interfaces are reached by this machine's own name too.
    let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("{scheme}://{host}:{}", address.port());
    announce(&format!("listening on {url}"));
    if let Some(pin) = pin {
        announce(&format!("FIRST-RUN SETUP PIN: open {url}/#pin={pin} and choose a password pin={pin}"));
    }
    let (wish_tx, wish_rx) = bounded(4);
    let restart_tx = wish_tx.clone();
    // What does not fit is told already.
    app.on_restart(move || drop(restart_tx.try_send(Wish::Restart)));
    let threads = Threads::new();
    let settings = Arc::clone(app.settings());
    threads
        .spawn("signals", limits::WORKER_STACK_BYTES, move || {
            let mut stops = false;
            for signal in signals.forever() {
                if signal == SIGHUP {
                    match settings.reload() {
                        Ok(_) => log::info!("the configuration was read again"),
                        Err(error) => log::error!("the configuration stays as it was: {error}"),
                    }
                    continue;
                }
                if std::mem::replace(&mut stops, true) {
                    // The second one: somebody cannot wait.
                    std::process::exit(130);
                }
                let _ = wish_tx.try_send(Wish::Stop); // there is room: it is sent once
            }
        })
        .map_err(CliError::failed)?;
    // A closed channel means that the thread is gone: then there is no way to be told, and stopping is right.
    let failure = match wish_rx.recv() {
        Ok(Wish::Restart) => {
            let mut stops = false;
            app.restart(move || {
                stops |= wish_rx.try_iter().any(|wish| wish == Wish::Stop);
                stops
            })
        }
        Ok(Wish::Stop) | Err(_) => {
            app.stop();
            None
        }
    };
    handle.close();
    threads.join_all(limits::WS_CLOSE_TIMEOUT);
    match failure {
        None => Ok(()),
        Some(error) => Err(CliError::failed(format!("become the new process: {error}"))),
    }
}

/// What ends a run.
#[derive(PartialEq, Eq)]
enum Wish {
    Stop,
    /// By the API.
    Restart,
}

/// What a person needs to know, whatever the log level.
fn announce(text: &str) {
    if log::log_enabled!(log::Level::Info) {
        log::info!("{text}");
    } else {
        super::output::note(text);
    }
}
