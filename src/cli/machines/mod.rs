//! `holt machines ...`: the machines of the fleet, straight in the hub's database. A running hub notices within a
//! second.

mod join;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::args::Args;
use crate::cli::command::{Action, Arg, Command};
use crate::cli::database::Database;
use crate::cli::output::out;
use crate::cli::sessions::confirmed;
use crate::cli::table::Table;
use crate::cli::{CliError, Context, time};
use crate::limits::{MACHINE_LABELS_MAX, MACHINE_TEXT_BYTES_MAX};
use crate::rt::clock;
use crate::store::machines::{Machine, MachineState};
use crate::store::{AlertStore, MachineStore, StoreError};

/// How much of an id lists show; also enough to name a machine.
const ID_SHOWN: usize = 8;
pub(super) const COMMAND: Command = Command::group(
    "machines",
    "Let machines join, list and manage them",
    &[LIST, SHOW, join::JOIN, APPROVE, REVOKE, ROTATE, FORGET, SET],
);

const MACHINE: Arg = Arg::word("machine", "Its id, the beginning of it (8 characters), or its name");
const YES: Arg = Arg::flag("yes", "Do not ask").short('y');

const LIST: Command = Command {
    name: "list",
    about: "List machines, and those that wait for approval",
    details: "List machines by name, and those that wait for approval with the code that they show themselves.",
    examples: &["holt machines list", "holt machines list --state pending", "holt machines list --json | jq ."],
    args: &[
        Arg::option("state", "STATE", "Only those").choices(&["pending", "approved", "revoked"]),
        Arg::flag("json", "One JSON object a line"),
    ],
    action: Action::Run(list),
};

const SHOW: Command = Command {
    name: "show",
    about: "Show what is known of a machine",
    details: "",
    examples: &["holt machines show nas", "holt machines show 8369746c"],
    args: &[MACHINE],
    action: Action::Run(|args, context| {
        let fleet = Fleet::open(context)?;
        show(&fleet, &fleet.find(args)?)
    }),
};

const APPROVE: Command = Command {
    name: "approve",
    about: "Let a machine take part that asks to",
    details: "Let a machine take part that asks to. Compare first: `holt machines list` and the machine show the same \
              code. The machine gets a token of its own when it calls next.",
    examples: &["holt machines approve pi-garage", "holt machines approve 8369746c"],
    args: &[MACHINE],
    action: Action::Run(|args, context| {
        let fleet = Fleet::open(context)?;
        let machine = fleet.find(args)?;
        let waits = || format!("{} does not wait for approval; see: holt machines list", machine.name());
        fleet.machines.approve(&machine.id, "cli").map_err(|error| gone(error, waits))?;
        fleet.record("machine.approve", &machine, &format!("{} code {}", machine.name(), machine.token_code));
        out!("Approved {} ({}), code {}", machine.name(), machine.id, machine.token_code)
    }),
};

const REVOKE: Command = Command {
    name: "revoke",
    about: "End a machine's part at once",
    details: "End a machine's part at once: its token is worth nothing any more, and a running hub closes its connection. \
              The machine stays listed. To let it back in: holt machines join.",
    examples: &["holt machines revoke pi-garage"],
    args: &[MACHINE],
    action: Action::Run(|args, context| {
        let fleet = Fleet::open(context)?;
        let machine = fleet.find(args)?;
        let revoked = || format!("{} is revoked already", machine.name());
        fleet.machines.revoke(&machine.id).map_err(|error| gone(error, revoked))?;
        fleet.record("machine.revoke", &machine, machine.name());
        out!("Revoked {} ({})", machine.name(), machine.id)
    }),
};

const ROTATE: Command = Command {
    name: "rotate",
    about: "Give a machine a new token",
    details: "Give a machine a new token: over its connection, or when it comes back. The old one is good for ten minutes \
              after that.",
    examples: &["holt machines rotate pi-garage"],
    args: &[MACHINE],
    action: Action::Run(|args, context| {
        let fleet = Fleet::open(context)?;
        let machine = fleet.find(args)?;
        let no_token = || format!("{} is not approved, or has no token of its own", machine.name());
        fleet.machines.rotate(&machine.id).map_err(|error| gone(error, no_token))?;
        fleet.record("machine.rotate", &machine, machine.name());
        out!("{} ({}) gets a new token", machine.name(), machine.id)
    }),
};

const FORGET: Command = Command {
    name: "forget",
    about: "Remove a machine and what it told",
    details: "Remove a machine with its readings, and close its alerts. Asks before, unless told not to. A machine that \
              still runs may ask to take part again.",
    examples: &["holt machines forget old-laptop", "holt machines forget 8369746c --yes"],
    args: &[MACHINE, YES],
    action: Action::Run(|args, context| {
        let fleet = Fleet::open(context)?;
        let machine = fleet.find(args)?;
        let question = format!("Forget {} ({}) and its readings?", machine.name(), machine.id);
        if !args.flag("yes") && !confirmed(&question)? {
            return Ok(());
        }
        fleet.machines.forget(&machine.id).map_err(CliError::failed)?;
        fleet.record("machine.forget", &machine, machine.name());
        fleet.alerts.close_all(&machine.id, "gone", clock::unix_ms()).map_err(CliError::failed)?;
        out!("Forgot {} ({})", machine.name(), machine.id)
    }),
};

const SET: Command = Command {
    name: "set",
    about: "Name a machine, label it, say whether it is meant to be off",
    details: "Name a machine, label it, or say whether it is meant to be off: then nobody is told when it is. Labels \
              given here win over those that the machine gives itself; one with an empty value is removed.",
    examples: &[
        "holt machines set 8369746c --name nas",
        "holt machines set nas --label room=cellar --label site=",
        "holt machines set laptop --expected-off yes",
    ],
    args: &[
        MACHINE,
        Arg::option("name", "NAME", "What it is called here; empty for its host name"),
        Arg::option("label", "NAME=VALUE", "A label; NAME= removes it").many(),
        Arg::option("expected-off", "SWITCH", "Whether it is meant to be off").choices(&["yes", "no"]),
    ],
    action: Action::Run(set),
};

/// The stores that the commands work on.
struct Fleet {
    database: Database,
    machines: MachineStore,
    alerts: AlertStore,
}

impl Fleet {
    fn open(context: &Context) -> Result<Self, CliError> {
        let database = Database::open(context)?;
        let (machines, alerts) =
            (MachineStore::new(Arc::clone(&database.db)), AlertStore::new(Arc::clone(&database.db)));
        Ok(Self { database, machines, alerts })
    }

    fn find(&self, args: &Args) -> Result<Machine, CliError> {
        let wanted = args.text("machine");
        self.machines.find(wanted).map_err(|error| {
            gone(error, || format!("not exactly one machine is called {wanted:?}; see: holt machines list"))
        })
    }

    fn record(&self, action: &str, machine: &Machine, detail: &str) {
        self.database.record(action, &machine.id, detail);
    }
}

fn list(args: &Args, context: &Context) -> Result<(), CliError> {
    let fleet = Fleet::open(context)?;
    let mut machines = fleet.machines.list().map_err(CliError::failed)?;
    let open = fleet.alerts.open_counts().map_err(CliError::failed)?;
    let counts = |machine: &Machine| open.get(&machine.id).copied().unwrap_or_default();
    if let Some(state) = args.value("state") {
        machines.retain(|machine| machine.state.name() == state);
    }
    if args.flag("json") {
        return machines.iter().try_for_each(|machine| out!("{}", shape(machine, counts(machine))));
    }
    if machines.is_empty() {
        out!("No machines{}.", if args.value("state").is_some() { " like that" } else { " yet" })?;
        return out!("Let one join with: holt machines join");
    }
    let mut table = Table::new(&["ID", "NAME", "STATUS", "SINCE", "ADDRESS", "SYSTEM", "ALERTS"]);
    for machine in &machines {
        table.row(vec![
            machine.id.get(..ID_SHOWN).unwrap_or(&machine.id).to_owned(),
            machine.name().to_owned(),
            status(machine),
            since(machine),
            address(machine).to_owned(),
            system(machine),
            counted(counts(machine)),
        ]);
    }
    table.print()
}

fn show(fleet: &Fleet, machine: &Machine) -> Result<(), CliError> {
    let mut table = Table::new(&["Machine", machine.name()]);
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            table.row(vec![name.to_owned(), value]);
        }
    };
    line("Id", machine.id.clone());
    line("Status", status(machine));
    line("Since", since(machine));
    line("Last seen", moment(machine.last_seen_at));
    line("Host name", machine.hostname.clone());
    line("Address", address(machine).to_owned());
    line("System", system(machine));
    line("Agent", machine.agent_version.clone());
    line("Labels", pairs(&machine.all_labels()));
    line("Given here", pairs(&machine.own_labels));
    line("Checks", machine.plugins.join(", "));
    line("Token", token(machine).to_owned());
    line("Heartbeat", heartbeat(&machine.heartbeat));
    let open = fleet.alerts.open_counts().map_err(CliError::failed)?;
    line("Alerts", open.get(&machine.id).copied().map(counted).unwrap_or_default());
    line("Known since", moment(machine.created_at));
    line("Let in by", machine.created_by.clone());
    table.print()
}

fn set(args: &Args, context: &Context) -> Result<(), CliError> {
    let changes = labels(args)?;
    let name = name(args)?;
    let expected_off = args.value("expected-off").map(|switch| switch == "yes");
    if name.is_none() && changes.is_empty() && expected_off.is_none() {
        return Err(CliError::Misused("nothing to set; see: holt machines set --help".to_owned()));
    }
    let fleet = Fleet::open(context)?;
    let machine = fleet.find(args)?;
    let mut own_labels = machine.own_labels.clone();
    for (label, value) in changes {
        if value.is_empty() {
            own_labels.remove(&label);
        } else {
            own_labels.insert(label, value);
        }
    }
    if own_labels.len() > MACHINE_LABELS_MAX {
        return Err(CliError::Failed(format!("a machine has at most {MACHINE_LABELS_MAX} labels")));
    }
    let changed = fleet.machines.set(&machine.id, name, Some(&own_labels), expected_off);
    changed.map_err(CliError::failed)?;
    fleet.record("machine.change", &machine, "");
    show(&fleet, &fleet.machines.get(&machine.id).map_err(CliError::failed)?.unwrap_or(machine))
}

fn name(args: &Args) -> Result<Option<&str>, CliError> {
    match args.value("name").map(str::trim) {
        Some(name) if name.len() > MACHINE_TEXT_BYTES_MAX => {
            Err(args.wrong("name", &format!("give at most {MACHINE_TEXT_BYTES_MAX} bytes")))
        }
        name => Ok(name),
    }
}

/// The labels that were given; those to remove have an empty value.
fn labels(args: &Args) -> Result<BTreeMap<String, String>, CliError> {
    let most = MACHINE_TEXT_BYTES_MAX;
    let mut labels = BTreeMap::new();
    for text in args.values("label") {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() && name.len() <= most && value.len() <= most => {
                labels.insert(name.trim().to_owned(), value.trim().to_owned());
            }
            _ => return Err(args.wrong("label", &format!("give NAME=VALUE, each at most {most} bytes"))),
        }
    }
    match labels.len() {
        0..=MACHINE_LABELS_MAX => Ok(labels),
        _ => Err(args.wrong("label", &format!("give at most {MACHINE_LABELS_MAX}"))),
    }
}

fn gone(error: StoreError, other: impl FnOnce() -> String) -> CliError {
    match error {
        StoreError::NotFound => CliError::Failed(other()),
        error => CliError::failed(error),
    }
}

fn status(machine: &Machine) -> String {
    match machine.state {
        MachineState::Pending => format!("asks to join, code {}", machine.token_code),
        MachineState::Revoked => "revoked".to_owned(),
        MachineState::Approved => {
            let off = if machine.expected_off { ", meant to be off" } else { "" };
            format!("{}{off}", machine.presence.name())
        }
    }
}

fn since(machine: &Machine) -> String {
    moment(if machine.state == MachineState::Approved { machine.presence_at } else { machine.last_seen_at })
}

fn moment(at: i64) -> String {
    if at == 0 { String::new() } else { time::second(at) }
}

fn address(machine: &Machine) -> &str {
    if machine.ip.is_empty() { &machine.address } else { &machine.ip }
}

fn system(machine: &Machine) -> String {
    [machine.os.as_str(), &machine.arch].join("/").trim_matches('/').to_owned()
}

fn token(machine: &Machine) -> &'static str {
    match (machine.is_shared, machine.is_rotating) {
        (true, _) => "shared with other machines",
        (_, true) => "its own, a new one is on its way",
        _ => "its own",
    }
}

fn pairs(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

fn heartbeat(heartbeat: &Value) -> String {
    let known = [("cpu_pct", "cpu", "%"), ("mem_pct", "memory", "%"), ("disk_pct", "disk", "%"), ("load1", "load", "")];
    let shown = known.iter().filter_map(|(key, name, unit)| {
        let value = heartbeat.get(*key)?.as_f64()?;
        Some(format!("{name} {value:.1}{unit}"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn counted(open: [i64; 3]) -> String {
    let named = open.iter().zip(["critical", "warning", "info"]).filter(|(count, _)| **count > 0);
    named.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

fn shape(machine: &Machine, [critical, warning, info]: [i64; 3]) -> Value {
    let at = |ms: i64| if ms == 0 { Value::Null } else { json!(clock::rfc3339(ms)) };
    json!({
        "id": machine.id, "name": machine.name(), "state": machine.state.name(), "code": machine.token_code,
        "presence": machine.presence.name(), "presence_at": at(machine.presence_at),
        "last_seen_at": at(machine.last_seen_at), "expected_off": machine.expected_off,
        "hostname": machine.hostname, "address": address(machine), "os": machine.os, "arch": machine.arch,
        "agent_version": machine.agent_version, "labels": machine.all_labels(), "plugins": machine.plugins,
        "heartbeat": machine.heartbeat, "alerts": {"critical": critical, "warning": warning, "info": info},
    })
}
