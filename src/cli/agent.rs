//! `holt agent`: this machine under the care of a hub, until a signal ends it.

use crossbeam_channel::bounded;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::{CliError, Context};
use crate::app::{Agent, AgentOptions, init_logging};
use crate::config::load_agent;
use crate::limits;
use crate::rt::Threads;

pub(super) const COMMAND: Command = Command {
    name: "agent",
    about: "Run the agent: this machine reports to a hub and answers it",
    details: "Run the agent: checks this machine, tells a hub what is wrong, and answers its questions with tools that \
              only read. The first start names the hub and a join code (`holt machines join` on the hub makes one); both \
              are stored, and the next start needs only `holt agent`. Without a code the hub is asked for approval.\n\
              The configuration is agent.toml in the data directory; all of it is optional. SIGHUP reads it again; \
              Ctrl-C and SIGTERM stop the agent.",
    examples: &[
        "holt agent --hub https://hub.example.net:8080 --join hj_..._...",
        "holt agent",
        "holt agent --config /etc/holt/agent.toml --state-dir /var/lib/holt-agent",
    ],
    args: &[
        Arg::option("hub", "URL", "Address of the hub"),
        Arg::option("join", "CODE", "Join code, used once [env: HOLT_JOIN_CODE]"),
        Arg::option("token", "TOKEN", "Token that the hub knows this machine by [env: HOLT_AGENT_TOKEN]"),
        Arg::option("ca-file", "FILE", "Certificates (PEM) that the hub's may be signed by, beside the public ones")
            .path(),
        Arg::option("state-dir", "DIR", "The agent's own files [default: agent in the data directory]").path(),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let given = |name: &str, variable: &str| args.value(name).or_else(|| context.env.get(variable)).map(str::to_owned);
    let options = AgentOptions {
        hub: args.value("hub").map(str::to_owned),
        join: given("join", "HOLT_JOIN_CODE"),
        token: given("token", "HOLT_AGENT_TOKEN"),
        ca_file: args.path("ca-file"),
        state_dir: args.path("state-dir"),
    };
    let file = load_agent(&context.flags, &context.env).map_err(CliError::failed)?;
    init_logging(file.log.level, file.log.json);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT, SIGHUP]).map_err(CliError::failed)?;
    let handle = signals.handle();
    let mut agent = Agent::start(&file, options).map_err(CliError::Failed)?;
    drop(file);
    let (signal_tx, signal_rx) = bounded(4);
    let threads = Threads::new();
    threads
        .spawn("signals", limits::PUMP_STACK_BYTES, move || {
            let mut stops = 0;
            for signal in signals.forever() {
                stops += u32::from(signal != SIGHUP);
                if stops > 1 {
                    // The second one: somebody cannot wait.
                    std::process::exit(130);
                }
                let sent = if signal == SIGHUP {
                    // Full: what waits reads the file again anyway.
                    signal_tx.try_send(signal).is_ok() || signal_tx.is_full()
                } else {
                    signal_tx.send(signal).is_ok()
                };
                if !sent {
                    return;
                }
            }
        })
        .map_err(CliError::failed)?;
    // A closed channel means that the thread is gone: then there is no way to be told, and stopping is right.
    while let Ok(SIGHUP) = signal_rx.recv() {
        let loaded = load_agent(&context.flags, &context.env).map_err(|error| error.to_string());
        if let Err(error) = loaded.and_then(|file| agent.reload(&file)) {
            log::error!("{error}; the settings stay as they were");
        }
    }
    agent.stop();
    handle.close();
    threads.join_all(limits::WS_CLOSE_TIMEOUT);
    Ok(())
}
