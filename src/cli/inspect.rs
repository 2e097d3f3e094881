//! `holt inspect`: a look at this machine and what it means, without a hub, a model or a key.

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::output::out;
use super::{CliError, Context, text};
use crate::checks::{checks_tool, own_limits};
use crate::diag::{HostRoot, machine_tools};
use crate::fleet::runner::{Runners, Settings};
use crate::llm::local::{AREAS, Question};
use crate::net::guard::{Guard, Origin};
use crate::rt::Cancel;
use crate::rt::text::nearest;
use crate::tools::ToolSet;

pub(super) const COMMAND: Command = Command {
    name: "inspect",
    about: "Look at this machine and say what is wrong",
    details: "Look at this machine and say what is wrong: causes by evidence, and what to do.\n\
              Needs no hub, no model and no key, and changes nothing. Areas are the names of checks (cpu, mem, disk, \
              systemd, docker, http, ping, ...), or system for the machine as a whole. Some take a target: a unit, a \
              mount, a container, a host, a URL. The checks of agent.toml, or their defaults, are asked too.",
    examples: &[
        "holt inspect",
        "holt inspect disk /",
        "holt inspect systemd nginx",
        "holt inspect --json | jq .causes",
    ],
    args: &[
        Arg::word("area", "What to look at").optional().default("system"),
        Arg::word("target", "Which one").optional(),
        Arg::flag("json", "Print JSON"),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let question = Question::new(true, args.text("area"), args.text("target"), "");
    if !AREAS.contains(&question.area.as_str()) {
        let meant = nearest(&question.area, AREAS).map(|name| format!("did you mean {name}? ")).unwrap_or_default();
        return Err(args.wrong("area", &format!("{meant}known are {}", AREAS.join(", "))));
    }
    // Whoever sits here may look at what is near, too.
    let guard = Guard::new(Origin::Operator { allow_loopback: true });
    let config = super::check::load(context).map_err(CliError::failed)?;
    let mut tools = machine_tools(HostRoot::system().judged_by(own_limits(&config.checks)), guard);
    tools.push(checks_tool(config.checks, HostRoot::system()));
    let runners = Runners::new(Settings::default(), None, ToolSet::new(tools));
    let found = runners.inspect_locally(question, &mut |_, _, _| {}, &Cancel::new()).map_err(CliError::failed)?;
    if args.flag("json") {
        return out!("{}", serde_json::to_string_pretty(&found.json).map_err(CliError::failed)?);
    }
    out!("{}", text::plain(found.text.trim_end()))
}
