//! The built-in host tools: read-only looks at the machine, from `/proc`, `/sys` and a few files.
//!
//! Each tool answers one compact JSON object of at most [`report::REPORT_BYTES_MAX`] bytes: raw numbers, and
//! `findings` judged by the named limits of [`thresholds`]. Command lines are never shown, only `comm`: people put
//! secrets there. This room knows no conversation, no model and no wire; it changes nothing on the machine.
//!
//! Threads: short helpers of `probe`, `child` and `reach`, described there. A tool itself runs on the thread of its turn.

mod alias;
mod args;
pub(crate) mod child;
pub(crate) mod cpu;
#[cfg(test)]
mod diagnosis_tests;
pub(crate) mod disk;
mod disk_io;
mod docker;
pub(crate) mod finding;
#[cfg(test)]
pub(crate) mod fixture;
mod kernel;
pub(crate) mod logs;
pub(crate) mod memory;
pub(crate) mod mounts;
mod network;
mod overview;
mod ports;
mod pressure;
pub(crate) mod probe;
pub(crate) mod process_table;
mod processes;
mod reach;
pub(crate) mod redact;
pub(crate) mod report;
pub(crate) mod root;
pub(crate) mod services;
mod sockets;
mod space;
mod temperature;
pub mod thresholds;
pub(crate) mod uptime;
mod vitals;

use std::sync::Arc;

use serde_json::Value;

use crate::diag::args::{Args, Param, schema};
use crate::diag::report::Report;
use crate::llm::ToolSpec;
use crate::net::guard::Guard;
use crate::tools::{Tool, ToolContext, ToolError};

pub use crate::diag::alias::known_as;
pub use crate::diag::report::REPORT_BYTES_MAX;
pub use crate::diag::root::HostRoot;
pub use crate::diag::vitals::{Reading, Vitals};

type Look = fn(&HostRoot, &Args, &ToolContext<'_>) -> Result<Report, ToolError>;

/// The same with something to remember.
type AnyLook = dyn Fn(&HostRoot, &Args, &ToolContext<'_>) -> Result<Report, ToolError> + Send + Sync;

/// One look at the machine.
struct HostTool {
    spec: ToolSpec,
    params: &'static [Param],
    root: Arc<HostRoot>,
    look: Box<AnyLook>,
}

impl Tool for HostTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        true
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let args = Args::parse(self.params, arguments)?;
        if self.root.is_system() && !cfg!(target_os = "linux") {
            return Err(ToolError::new("host tools need Linux: this system has no /proc and /sys"));
        }
        probe::check_alive(context)?;
        (self.look)(&self.root, &args, context).map(Report::into_text)
    }
}

/// All host tools that look at `root`, in the order they are offered.
pub fn host_tools(root: HostRoot) -> Vec<Arc<dyn Tool>> {
    let root = Arc::new(root);
    let table: [(&str, &str, &'static [Param], Look); 16] = [
        ("host_overview", overview::DESCRIPTION, &[], overview::look),
        ("host_cpu", cpu::DESCRIPTION, &[], cpu::look),
        ("host_memory", memory::DESCRIPTION, &[], memory::look),
        ("host_disk", disk::DESCRIPTION, &[], disk::look),
        ("host_disk_io", disk_io::DESCRIPTION, &[], disk_io::look),
        ("host_space", space::DESCRIPTION, &[], space::look),
        ("host_pressure", pressure::DESCRIPTION, &[], pressure::look),
        ("host_network", network::DESCRIPTION, &[], network::look),
        ("host_ports", ports::DESCRIPTION, &[], ports::look),
        ("host_processes", processes::DESCRIPTION, processes::PARAMS, processes::look),
        ("host_uptime", uptime::DESCRIPTION, &[], uptime::look),
        ("host_temperature", temperature::DESCRIPTION, &[], temperature::look),
        ("host_services", services::DESCRIPTION, services::PARAMS, services::look),
        ("host_logs", logs::DESCRIPTION, logs::PARAMS, logs::look),
        ("host_kernel", kernel::DESCRIPTION, kernel::PARAMS, kernel::look),
        ("host_docker", docker::DESCRIPTION, docker::PARAMS, docker::look),
    ];
    let tool = |(name, description, params, look)| host_tool(&root, name, description, params, look);
    table.into_iter().map(tool).collect()
}

/// [`host_tools`] and those that reach out, for sessions of machines: whoever may look at a machine may look from it.
/// `guard` judges the URLs.
pub fn machine_tools(root: HostRoot, guard: Guard) -> Vec<Arc<dyn Tool>> {
    let mut tools = host_tools(root.clone());
    let root = Arc::new(root);
    let http = move |_: &HostRoot, args: &Args, context: &ToolContext<'_>| reach::http(&guard, args, context);
    tools.push(host_tool(&root, "host_ping", reach::PING, reach::PING_PARAMS, |_, args, at| reach::ping(args, at)));
    tools.push(host_tool(&root, "host_dns", reach::DNS, reach::DNS_PARAMS, |_, args, at| reach::dns(args, at)));
    tools.push(host_tool(&root, "host_http", reach::HTTP, reach::HTTP_PARAMS, http));
    tools
}

fn host_tool(
    root: &Arc<HostRoot>,
    name: &str,
    description: &str,
    params: &'static [Param],
    look: impl Fn(&HostRoot, &Args, &ToolContext<'_>) -> Result<Report, ToolError> + Send + Sync + 'static,
) -> Arc<dyn Tool> {
    let spec = ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters: schema(params) };
    Arc::new(HostTool { spec, params, root: Arc::clone(root), look: Box::new(look) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, with_context};
    use crate::llm::local::LocalProvider;
    use crate::llm::{Message, Provider, Request, Role, Sink};
    use crate::rt::Cancel;
    use crate::tools::ToolSet;
    use serde_json::json;

    #[test]
    fn every_tool_runs_on_this_machine_within_its_bounds() {
        for tool in host_tools(HostRoot::system()) {
            let name = tool.spec().name.clone();
            assert!(tool.read_only(), "{name}");
            let answer = with_context(|context| tool.call(&json!({}), context));
            if !cfg!(target_os = "linux") {
                assert!(answer.unwrap_err().message.contains("need Linux"), "{name}");
                continue;
            }
            // A machine may keep no log and no engine that we may ask; everything else is always there.
            if ["host_logs", "host_kernel", "host_docker"].contains(&name.as_str())
                && let Err(error) = &answer
            {
                assert!(error.message.contains("join the group"), "{}", error.message);
                continue;
            }
            let text = answer.unwrap_or_else(|error| panic!("{name}: {}", error.message));
            assert!(text.len() <= REPORT_BYTES_MAX, "{name}: {} bytes", text.len());
            let value: Value = serde_json::from_str(&text).unwrap();
            for finding in value["findings"].as_array().unwrap() {
                assert!(["ok", "warning", "critical"].contains(&finding["level"].as_str().unwrap()), "{finding}");
                assert!(finding["what"].is_string() && finding["value"].is_number(), "{finding}");
                assert!(finding["threshold"].as_str().unwrap().contains(": "), "{finding}");
            }
        }
    }

    #[test]
    fn nothing_panics_on_an_empty_machine() {
        let fixture = Fixture::empty();
        for tool in host_tools(fixture.root()) {
            let answer = with_context(|context| tool.call(&Value::Null, context));
            let text = answer.unwrap_or_else(|error| error.message);
            assert!(!text.is_empty(), "{}", tool.spec().name);
        }
    }

    #[test]
    fn nothing_panics_on_garbage() {
        let garbage =
            ["", "\n", "\0\0", "cpu", "cpu -1 x", "18446744073709551616", ": : :", "((((", "a\tb\tc\n\n\u{fffd}"];
        let huge = "cpu 18446744073709551615 18446744073709551615 18446744073709551615 18446744073709551615\n\
                    MemTotal: 18446744073709551615 kB\nSwapTotal: 18446744073709551615 kB\nSwapFree: 0 kB\n\
                    eth0: 18446744073709551615 18446744073709551615 18446744073709551615 18446744073709551615 0 0 0 0 \
                    18446744073709551615 18446744073709551615 18446744073709551615 18446744073709551615 0 0 0 0\n";
        let files = [
            "proc/stat",
            "proc/meminfo",
            "proc/loadavg",
            "proc/uptime",
            "proc/vmstat",
            "proc/cpuinfo",
            "proc/mounts",
            "proc/self/mountinfo",
            "proc/1/mountinfo",
            "proc/net/dev",
            "proc/net/route",
            "proc/net/tcp",
            "proc/net/tcp6",
            "proc/net/fib_trie",
            "proc/net/if_inet6",
            "proc/pressure/memory",
            "proc/7/stat",
            "proc/7/status",
            "proc/8/stat",
            "etc/os-release",
            "sys/class/thermal/thermal_zone0/temp",
            "var/log/syslog",
            "sys/class/net/eth0/operstate",
            "sys/class/net/eth0/speed",
            "proc/pressure/io",
            "proc/diskstats",
            "proc/net/udp",
            "var/log/kern.log",
        ];
        for content in garbage.into_iter().chain([huge]) {
            let fixture = Fixture::empty();
            for file in files {
                fixture.write(file, content);
            }
            for tool in host_tools(fixture.root()) {
                let answer = with_context(|context| tool.call(&Value::Null, context));
                let text = answer.unwrap_or_else(|error| error.message);
                assert!(!text.is_empty() && text.len() <= REPORT_BYTES_MAX, "{}: {content:?}", tool.spec().name);
            }
        }
    }

    /// Asks the built-in planner, runs what it plans on the fixture, and gives the report.
    fn report_of(root: HostRoot, text: &str) -> String {
        struct Nobody;
        impl Sink for Nobody {
            fn text(&mut self, _: &str) {}
            fn thinking(&mut self, _: &str) {}
        }
        let set = ToolSet::new(host_tools(root));
        let specs = set.specs();
        let mut messages = vec![Message::text(Role::User, text)];
        loop {
            let request = Request { model: "local", messages: &messages, tools: &specs, stream: true };
            let completion = LocalProvider::new().complete(request, &mut Nobody, &Cancel::new()).unwrap();
            if completion.tool_calls.is_empty() {
                return completion.text;
            }
            let calls = completion.tool_calls;
            messages.push(Message { tool_calls: calls.clone(), ..Message::text(Role::Assistant, "") });
            for call in calls {
                let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                let answer = with_context(|context| set.find(&call.name).unwrap().call(&arguments, context));
                let content = answer.unwrap_or_else(|error| format!("error: {}", error.message));
                messages.push(Message { tool_call_id: Some(call.id), ..Message::text(Role::Tool, content) });
            }
        }
    }

    #[test]
    fn the_planner_and_the_tools_fit_together() {
        let report = report_of(Fixture::healthy_pi().root(), "How is this machine doing?");
        let verdict = "This machine is fine: CPU 10 % used, memory 25 % used, fullest disk `/` at 34.7 %, 48.3 °C, online \
                       through `eth0`, up 3 days 4 hours.\n";
        assert!(report.starts_with(verdict), "{report}");
        for line in [
            "- 977 MiB of 3.8 GiB used",
            "- now: used 10 %, programs 8 %",
            "- note: not available: no systemd here",
            "- way out: 192.168.2.1 through `eth0`",
        ] {
            assert!(report.contains(line), "{line}: {report}");
        }
        let fixture = Fixture::healthy_pi();
        fixture.write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 10 kB\nSwapTotal: 0 kB\n");
        let report = report_of(fixture.root(), "is the memory full?");
        assert!(report.starts_with("1 thing needs attention: memory use 99 %.\n"), "{report}");
        // On the machine itself every kind of question gets an answer.
        for text in
            ["what eats my RAM", "is nginx running", "any errors in the logs", "what is my IP", "why is it slow"]
        {
            assert!(report_of(HostRoot::system(), text).lines().next().unwrap().len() > 10, "{text}");
        }
    }

    #[test]
    fn names_are_unique_and_arguments_are_closed() {
        let tools = host_tools(HostRoot::system());
        let mut names: Vec<_> = tools.iter().map(|tool| tool.spec().name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), tools.len());
        for tool in tools {
            assert!(tool.spec().name.starts_with("host_"));
            let answer = with_context(|context| tool.call(&json!({"argv": true}), context));
            assert!(answer.unwrap_err().message.starts_with("unknown argument \"argv\""));
        }
    }

    #[test]
    fn a_cancelled_call_says_so() {
        let cancel = crate::rt::Cancel::new();
        cancel.cancel();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let context = ToolContext { agent: "a", session_id: "s", identity: "i", deadline, cancel: &cancel };
        for tool in host_tools(HostRoot::system()) {
            if cfg!(target_os = "linux") {
                assert_eq!(tool.call(&json!({}), &context).unwrap_err().message, "cancelled");
            }
        }
    }
}
