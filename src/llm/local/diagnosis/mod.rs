//! Finding causes without a model: which looks a question needs, what their answers say together, and a report with
//! the causes in the order of their evidence (contract agent-link 4.8).
//!
//! Pure: everything is derived from the tools' JSON. What was not seen is said, not guessed.

mod cause;
mod facts;
mod looks;
mod report;
mod rules_disk;
mod rules_load;
mod rules_network;
mod rules_services;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::llm::local::diagnosis::facts::{Facts, Seen};
use crate::llm::local::report::Looked;
use crate::llm::local::{NAME, next_call_number};
use crate::llm::{Completion, LlmError, Message, Provider, Request, Role, Sink, ToolCall, Usage};
use crate::rt::Cancel;

pub use crate::llm::local::diagnosis::report::Diagnosis;

/// What can be asked about: the checks' names, and the machine as a whole.
pub const AREAS: &[&str] = &[
    "system",
    "cpu",
    "mem",
    "disk",
    "diskio",
    "uptime",
    "ntp",
    "systemd",
    "docker",
    "http",
    "ping",
    "cert",
    "journaltail",
    "netif",
    "procnum",
    "net",
    "logfile",
];

/// Looks before the report: the first one, and two that follow what it showed.
const LOOKS_MAX: usize = 3;

/// What somebody, or an alert, wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// A check-up; otherwise an alert is to be explained.
    pub inspect: bool,
    /// One of [`AREAS`], or the plugin of somebody else's check.
    pub area: String,
    /// The target of a check: a unit, a mount, a host, a URL, ....
    pub target: String,
    /// What the alerts say.
    pub about: String,
}

impl Question {
    /// `plugin` may be empty or `local` for the whole machine (contract agent-link 4.2, 4.3).
    pub fn new(inspect: bool, plugin: &str, target: &str, about: &str) -> Self {
        let area = match plugin.trim() {
            "" | "local" => "system",
            "memory" => "mem",
            plugin => plugin,
        };
        let target = if target.trim().is_empty() { "localhost" } else { target.trim() };
        Self { inspect, area: area.to_owned(), target: target.to_owned(), about: about.trim().to_owned() }
    }

    /// Whether the question is about this machine itself, and not about what it watches.
    pub fn is_here(&self) -> bool {
        !matches!(self.area.as_str(), "http" | "ping" | "cert" | "net") || self.target_host().is_none()
    }

    /// The target, when it names something beside the machine as a whole.
    pub(super) fn named_target(&self) -> Option<&str> {
        let general = ["localhost", "system", "cpu", "memory", "ntp", "docker-engine", "127.0.0.1", "::1"];
        (!general.contains(&self.target.as_str())).then_some(self.target.as_str())
    }

    /// The host of the target.
    pub(super) fn target_host(&self) -> Option<&str> {
        self.named_target().and_then(host_of)
    }
}

/// The host of a target such as `https://host:8443/x`, `host:port`, `host:port@name` or `host`.
pub fn host_of(target: &str) -> Option<&str> {
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let authority = authority.rsplit_once('@').map_or(authority, |(before, after)| {
        // `host:443@name` is a certificate's target, `user@host` a URL's.
        if target.contains("://") { after } else { before }
    });
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or(six),
        None if authority.matches(':').count() == 1 => authority.split(':').next().unwrap_or(authority),
        None => authority,
    };
    (!host.is_empty()).then_some(host)
}

/// Plans looks and writes the report; a provider, so that one tool loop serves it and models alike.
pub struct Diagnostician {
    question: Question,
}

impl Diagnostician {
    pub fn new(question: Question) -> Self {
        Self { question }
    }

    /// The report on what a conversation's tools have said.
    pub fn conclude(&self, messages: &[Message]) -> Diagnosis {
        report::conclude(&self.question, &seen(messages))
    }

    fn calls(&self, request: &Request<'_>) -> Vec<ToolCall> {
        let seen = seen(request.messages);
        let looks = request.messages.iter().filter(|message| !message.tool_calls.is_empty()).count();
        if looks >= LOOKS_MAX {
            return Vec::new();
        }
        let planned = if looks == 0 {
            looks::first(&self.question)
        } else {
            looks::closer(&Facts { question: &self.question, seen: &seen })
        };
        let offered = |name: &str| request.tools.iter().any(|tool| tool.name == name);
        let known = |tool: &str, arguments: &Value| {
            seen.iter().any(|one| one.looked.tool == tool && one.arguments == *arguments)
        };
        let first = next_call_number(request.messages);
        planned
            .into_iter()
            .filter(|call| offered(call.tool) && !known(call.tool, &call.arguments))
            .zip(first..)
            .map(|(call, number)| ToolCall {
                id: format!("call_{number}"),
                name: call.tool.to_owned(),
                arguments: call.arguments.to_string(),
            })
            .collect()
    }
}

impl Provider for Diagnostician {
    fn name(&self) -> &str {
        NAME
    }

    fn is_free(&self) -> bool {
        true
    }

    fn complete(&self, request: Request<'_>, _: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        if cancel.is_set() {
            return Err(LlmError::Cancelled);
        }
        let tool_calls = self.calls(&request);
        let text = if tool_calls.is_empty() { self.conclude(request.messages).text() } else { String::new() };
        Ok(Completion { text, tool_calls, usage: Usage::default(), model: NAME.to_owned() })
    }

    fn models(&self, _: &Cancel) -> Result<Vec<String>, LlmError> {
        Ok(vec![NAME.to_owned()])
    }
}

/// Every call of the conversation with its answer.
fn seen(messages: &[Message]) -> Vec<Seen> {
    let answer = |id: &str| {
        let answers = |message: &&Message| message.role == Role::Tool && message.tool_call_id.as_deref() == Some(id);
        messages.iter().find(answers).map(|message| message.content.as_str())
    };
    let calls = messages.iter().flat_map(|message| &message.tool_calls);
    calls
        .map(|call| Seen {
            looked: Looked::new(&call.name, answer(&call.id)),
            arguments: serde_json::from_str(&call.arguments).unwrap_or(Value::Null),
        })
        .collect()
}
