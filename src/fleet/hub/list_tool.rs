//! `machines_list`: how the joined machines are, from what the hub knows; no machine is asked.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::agents::remote::Operation;
use crate::alert::Level;
use crate::chat::access::Caller;
use crate::config::AccessRule;
use crate::fleet::hub::access;
use crate::fleet::hub::upkeep::{DOWN, MANY_DOWN};
use crate::llm::ToolSpec;
use crate::rt::clock;
use crate::rt::order::Order;
use crate::rt::text::cut;
use crate::sched::Changes;
use crate::store::alert_rows::{AlertFilter, AlertRow};
use crate::store::machines::{Machine, MachineState, Presence};
use crate::store::{AlertStore, Db, KeyStore, MachineStore, StoreError};
use crate::tools::arguments::{Arguments, object};
use crate::tools::{Tool, ToolContext, ToolError};

/// What fits beside other answers into a prompt, the worst first.
const MACHINES_SHOWN_MAX: usize = 50;
const FINDINGS_MAX: usize = 20;
/// Open alerts that are read, the newest first: a storm of them says no more.
const ALERTS_READ_MAX: usize = 200;
const TEXT_BYTES_MAX: usize = 200;

/// The scope that lets a key see all machines, as the route does.
const SCOPE: &str = "machines:read";

/// The tool. Whoever asks sees the machines that it would see otherwise, too.
pub struct MachinesTool {
    spec: ToolSpec,
    machines: MachineStore,
    alerts: AlertStore,
    keys: KeyStore,
    rules: Vec<AccessRule>,
    /// Where the configured keys are; without it they show nothing.
    pub settings: OnceLock<Arc<dyn Changes>>,
}

impl MachinesTool {
    /// The tool over an open database.
    pub fn new(db: &Arc<Db>, rules: &[AccessRule]) -> Self {
        Self {
            spec: ToolSpec {
                name: "machines_list".to_owned(),
                description:
                    "The machines that joined this hub, the worst first: whether they are online or away, and \
                    their open alerts."
                        .to_owned(),
                parameters: object(&json!({}), &[]),
            },
            machines: MachineStore::new(Arc::clone(db)),
            alerts: AlertStore::new(Arc::clone(db)),
            keys: KeyStore::new(Arc::clone(db)),
            rules: rules.to_vec(),
            settings: OnceLock::new(),
        }
    }

    /// Who asks. Logins hold all scopes, and schedules are the operator's; of keys the scopes of now count.
    fn caller(&self, identity: &str) -> Result<Caller, StoreError> {
        let mut sees_all = !identity.starts_with("key:");
        if let Some(name) = identity.strip_prefix("key:") {
            let mut held: Vec<Vec<String>> = self
                .keys
                .list()?
                .into_iter()
                .filter(|key| !key.revoked && key.name == name)
                .map(|key| key.scopes)
                .collect();
            if let Some(settings) = self.settings.get() {
                let config = settings.config();
                held.extend(config.auth.keys.iter().filter(|key| key.name == name).map(|key| key.scopes.clone()));
            }
            // Keys of one name are one identity: the weakest of them counts.
            let may = |scopes: &Vec<String>| scopes.iter().any(|scope| scope == SCOPE || scope == "admin");
            sees_all = !held.is_empty() && held.iter().all(may);
        }
        Ok(Caller { identity: identity.to_owned(), reads_all: sees_all, writes_all: sees_all })
    }

    fn look(&self, identity: &str) -> Result<Value, StoreError> {
        let caller = self.caller(identity)?;
        let mut machines = self.machines.list()?;
        machines.retain(|machine| {
            machine.state != MachineState::Revoked && access::allows(&self.rules, &caller, machine, Operation::View)
        });
        if machines.is_empty() {
            return Ok(json!({"machines": [], "findings": []}));
        }
        let counts = self.alerts.open_counts()?;
        let open = |machine: &Machine| counts.get(&machine.id).copied().unwrap_or_default();
        machines.order_by_key(|machine| {
            let [critical, warning, _] = open(machine);
            (!is_lost(machine), -critical, -warning)
        });
        let now = clock::unix_ms();
        let mut findings: Vec<(Level, Value)> = Vec::new();
        for machine in machines.iter().filter(|machine| is_lost(machine)) {
            let seconds = (now - machine.last_seen_at).max(0) / 1000;
            let what = format!("{} has not been heard of for", one_line(machine.name()));
            let finding = json!({"level": "critical", "what": what, "value": seconds, "unit": "s"});
            findings.push((Level::Critical, finding));
        }
        let filter =
            AlertFilter { is_open: Some(true), is_grouped: true, limit: ALERTS_READ_MAX, ..AlertFilter::default() };
        for (alert, _) in self.alerts.list(&filter)? {
            let name = machines.iter().find(|machine| machine.id == alert.machine_id).map(Machine::name);
            // The hub's own concern everybody's machines.
            let name = name.or((alert.machine_id.is_empty() && caller.writes_all).then_some("the hub"));
            if let Some(name) = name.filter(|_| counts_now(&alert, now)) {
                let level = alert.level.name().to_ascii_lowercase();
                findings.push((alert.level, json!({"level": level, "what": said(name, &alert)})));
            }
        }
        findings.order_by_key(|(level, _)| *level);
        let is_cut = findings.len() > FINDINGS_MAX || machines.len() > MACHINES_SHOWN_MAX;
        let shown: Vec<Value> = machines
            .iter()
            .take(MACHINES_SHOWN_MAX)
            .map(|machine| {
                let [critical, warning, info] = open(machine);
                json!({
                    "name": one_line(machine.name()), "state": state(machine),
                    "open_alerts": {"critical": critical, "warning": warning, "info": info},
                })
            })
            .collect();
        let online = machines.iter().filter(|machine| state(machine) == "online").count();
        let findings: Vec<Value> = findings.into_iter().take(FINDINGS_MAX).map(|(_, finding)| finding).collect();
        let mut answer = json!({"total": machines.len(), "online": online, "machines": shown, "findings": findings});
        if is_cut {
            answer["truncated"] = json!(true);
        }
        Ok(answer)
    }
}

impl Tool for MachinesTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        true
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        Arguments::of(arguments, &[])?;
        self.look(context.identity).map(|answer| answer.to_string()).map_err(|error| {
            log::error!("look for the machines of {}: {error}", context.identity);
            ToolError::new("the machines could not be looked up; try again")
        })
    }
}

fn is_lost(machine: &Machine) -> bool {
    machine.state == MachineState::Approved && machine.presence == Presence::Lost && !machine.expected_off
}

/// One word for people.
fn state(machine: &Machine) -> &'static str {
    match (machine.state, machine.presence) {
        (MachineState::Pending, _) => "waits for approval",
        (_, Presence::Online) => "online",
        _ if machine.expected_off => "meant to be off",
        (_, Presence::Lost) => "away",
        (_, Presence::Stopped) => "stopped",
        (_, Presence::Never) => "never seen",
    }
}

/// Whether it is worth a word: nobody has seen to it, and it is not said by the machine's own state.
fn counts_now(alert: &AlertRow, now: i64) -> bool {
    matches!(alert.level, Level::Critical | Level::Warning)
        && alert.acknowledged_at.is_none()
        && alert.silenced_until <= now
        && ![DOWN, MANY_DOWN].contains(&alert.check.as_str())
}

/// Whose it is and what it says, in one line.
fn said(name: &str, alert: &AlertRow) -> String {
    let text = if alert.description.is_empty() { &alert.check } else { &alert.description };
    let plugin = alert.check.split("::").next().unwrap_or_default();
    let target = Some(alert.target.as_str())
        .filter(|target| ![plugin, "", "system", "memory"].contains(target) && !text.contains(target));
    let target = target.map(|target| format!(" {target}")).unwrap_or_default();
    one_line(&format!("{name}{target}: {text}"))
}

fn one_line(text: &str) -> String {
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "'");
    cut(&plain, TEXT_BYTES_MAX).to_owned()
}
