//! `host_checks`: what the machine's own checks measure now, for whoever looks for a cause.
//!
//! Threads: one `checks-tool` per call, which outlives a call that was given up until its rounds have noticed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use serde_json::{Value, json};

use crate::alert::Level;
use crate::checks::{Outcome, Plan, run_once};
use crate::diag::HostRoot;
use crate::diag::probe::receive;
use crate::limits::WORKER_STACK_BYTES;
use crate::llm::ToolSpec;
use crate::net::guard::HostPattern;
use crate::rt::order::Order;
use crate::rt::text::cut;
use crate::rt::{Cancel, Threads};
use crate::tools::{Tool, ToolContext, ToolError};

/// Readings shown, the worst first; about 8 KiB.
const READINGS_MAX: usize = 40;
const TEXT_BYTES_MAX: usize = 300;

/// Rounds are not made by this tool: what the interval is does not matter.
const INTERVAL: Duration = Duration::from_secs(30);

struct ChecksTool {
    spec: ToolSpec,
    checks: Value,
    root: HostRoot,
    threads: Threads,
}

/// The tool for the checks of a `[checks]` table.
pub fn checks_tool(checks: Value, root: HostRoot) -> Arc<dyn Tool> {
    let spec = ToolSpec {
        name: "host_checks".to_owned(),
        description:
            "Runs this machine's configured checks once and gives their readings, the worst first; all of them, \
                      or those of one plugin such as disk, http or systemd."
                .to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {"plugin": {"type": "string", "description": "Only the checks of this plugin."}},
            "additionalProperties": false,
        }),
    };
    Arc::new(ChecksTool { spec, checks, root, threads: Threads::new() })
}

impl Tool for ChecksTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        true
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let given = arguments.as_object().into_iter().flatten();
        if let Some((name, _)) = given.into_iter().find(|(name, _)| *name != "plugin") {
            return Err(ToolError::new(format!("unknown argument {:?}: known are plugin", cut(name, 40))));
        }
        let plugin = match arguments.get("plugin") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.clone()),
            Some(_) => return Err(ToolError::new("argument \"plugin\" must be text")),
        };
        let plan = Plan::new(&self.checks, INTERVAL).map_err(|error| ToolError::new(error.to_string()))?;
        let plan = match plugin {
            None => plan,
            // Not configured is no failure: there is nothing to read.
            Some(name) => match plan.only(&[name]) {
                Ok(plan) => plan,
                Err(reason) => return Ok(json!({"readings": [], "notes": [reason.to_string()]}).to_string()),
            },
        };
        let outcomes = self.run(plan, context)?;
        let mut readings: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.readings).collect();
        readings.order_by_key(|reading| reading.level);
        let is_cut = readings.len() > READINGS_MAX;
        let shown: Vec<Value> = readings
            .into_iter()
            .take(READINGS_MAX)
            .map(|reading| {
                let level = if reading.level == Level::Ok { "ok" } else { reading.level.name() };
                json!({"check": reading.check, "target": cut(&reading.target, TEXT_BYTES_MAX), "level": level,
                       "description": cut(&reading.description, TEXT_BYTES_MAX)})
            })
            .collect();
        let reasons = outcomes.iter().flat_map(|outcome| {
            outcome.unavailable.iter().map(|reason| format!("{}: {}", outcome.plugin, cut(reason, TEXT_BYTES_MAX)))
        });
        let mut answer = json!({"readings": shown, "notes": reasons.collect::<Vec<_>>()});
        if is_cut {
            answer["truncated"] = json!(true);
        }
        Ok(answer.to_string())
    }
}

impl ChecksTool {
    /// Runs the checks, but not for longer than the call may take: a check may wait for its own limit.
    fn run(&self, plan: Plan, context: &ToolContext<'_>) -> Result<Vec<Outcome>, ToolError> {
        let (done_tx, done_rx) = bounded(1);
        let (root, cancel) = (self.root.clone(), Cancel::new());
        let inner = cancel.clone();
        let run = move || {
            // The asker may have given up: then nobody wants the readings.
            let _ = done_tx.send(run_once(plan, &root, &inner));
        };
        self.threads
            .spawn("checks-tool", WORKER_STACK_BYTES, run)
            .map_err(|error| ToolError::new(format!("no thread to check with: {error}")))?;
        receive(&done_rx, context.deadline, context).map_err(|error| {
            cancel.cancel();
            match error.kind() {
                io::ErrorKind::Interrupted => ToolError::new("cancelled"),
                io::ErrorKind::TimedOut => ToolError::new("the checks did not end in time; ask for one plugin alone"),
                _ => ToolError::new(format!("the checks did not run: {error}")),
            }
        })
    }
}

/// The hosts that the checks of a `[checks]` table look at: an operator named them, so that probes may reach them, also
/// where they are private.
pub fn hosts_of(checks: &Value) -> Vec<HostPattern> {
    let mut hosts = Vec::new();
    for plugin in ["http", "ping", "cert", "net"] {
        add_hosts(&checks[plugin], &mut hosts);
    }
    hosts
}

fn add_hosts(value: &Value, hosts: &mut Vec<HostPattern>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| add_hosts(value, hosts)),
        Value::Object(table) => {
            let targets = table.iter().filter(|(name, value)| *name == "targets" || value.is_array());
            targets.for_each(|(_, value)| add_hosts(value, hosts));
        }
        Value::String(target) => {
            let host = crate::llm::local::host_of(target).and_then(|host| HostPattern::parse(host).ok());
            hosts.extend(host.filter(|host| !hosts.contains(host)));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, with_context};

    #[test]
    fn readings_come_worst_first_and_only_those_asked_for() {
        let fixture = Fixture::healthy_pi();
        let checks = json!({"mem": {"memory_usage": {"warn_ge": 20, "critical_ge": 99}}});
        let tool = checks_tool(checks, fixture.root());
        let call = |arguments: Value| with_context(|context| tool.call(&arguments, context));
        let answer: Value = serde_json::from_str(&call(json!({"plugin": "mem"})).unwrap()).unwrap();
        assert_eq!(answer["readings"][0]["check"], "mem::memory_usage", "{answer}");
        assert_eq!(answer["readings"][0]["level"], "Warning", "{answer}");
        let answer: Value = serde_json::from_str(&call(json!({"plugin": "http"})).unwrap()).unwrap();
        assert_eq!(answer["readings"], json!([]));
        assert!(call(json!({"path": "/etc/shadow"})).unwrap_err().message.contains("unknown argument"));
        assert!(call(json!({"plugin": 7})).is_err());
    }

    #[test]
    fn hosts_that_an_operator_named_may_be_reached() {
        let checks = json!({"http": [{"targets": ["http://192.168.1.5:8080/health", "https://nas.lan/"]}],
                            "ping": {"targets": ["10.0.0.1"]}, "cpu": {"targets": ["10.9.9.9"]}});
        let expected: Vec<HostPattern> =
            ["192.168.1.5", "nas.lan", "10.0.0.1"].iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        assert_eq!(hosts_of(&checks), expected);
    }
}
