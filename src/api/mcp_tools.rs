//! Which routes are tools of the hub's MCP server.

/// A route as a tool.
pub(super) struct Tool {
    pub name: &'static str,
    pub method: &'static str,
    /// Of the route's pattern, what follows `/api/v1/`.
    pub path: &'static str,
    /// Instead of the route's summary.
    pub about: &'static str,
    /// Fields of the body that the tool itself gives.
    pub fixed: &'static [(&'static str, &'static str)],
    /// A `message_id` is made when none is given, so that a call can be repeated for its answer.
    pub repeats: bool,
}

/// Clients give up after a minute, mostly.
const WAIT: (&str, &str) = ("wait_secs", "45");
const CHAT: &str = "Send a message to an agent and get its answer. If the status is running or waiting_for_approval, call \
                    again with the same message_id (and message) to get the answer.";
const INSPECT: &str =
    "Look at a machine and get a report. If the status is running, call again with the same message_id.";
const DIAGNOSE: &str = "Find out what is wrong with a machine, with its model. If the status is running, call again with the same message_id.";

const fn tool(name: &'static str, method: &'static str, path: &'static str) -> Tool {
    Tool { name, method, path, about: "", fixed: &[], repeats: false }
}

const fn turn(
    name: &'static str,
    path: &'static str,
    about: &'static str,
    fixed: &'static [(&'static str, &'static str)],
) -> Tool {
    Tool { name, method: "POST", path, about, fixed, repeats: true }
}

/// All of them; those whose route is not there are left out.
pub(super) static TOOLS: &[Tool] = &[
    turn("chat", "chat", CHAT, &[WAIT]),
    tool("agents_list", "GET", "agents"),
    tool("conversations_list", "GET", "sessions"),
    tool("conversation_messages", "GET", "sessions/{id}/messages"),
    tool("conversation_stop", "POST", "sessions/{id}/stop"),
    tool("approvals_list", "GET", "approvals"),
    tool("approvals_approve", "POST", "approvals/{id}/approve"),
    tool("approvals_deny", "POST", "approvals/{id}/deny"),
    tool("schedules_list", "GET", "schedules"),
    tool("schedules_create", "POST", "schedules"),
    tool("schedules_update", "PATCH", "schedules/{name}"),
    tool("schedules_delete", "DELETE", "schedules/{name}"),
    tool("kv_list", "GET", "kv/{agent}"),
    tool("kv_get", "GET", "kv/{agent}/{key...}"),
    tool("kv_set", "PUT", "kv/{agent}/{key...}"),
    tool("kv_delete", "DELETE", "kv/{agent}/{key...}"),
    tool("machines_list", "GET", "machines"),
    tool("machines_get", "GET", "machines/{id}"),
    tool("machines_readings", "GET", "machines/{id}/readings"),
    turn("machines_inspect", "machines/{id}/sessions", INSPECT, &[WAIT, ("type", "inspect")]),
    turn("machines_diagnose", "machines/{id}/sessions", DIAGNOSE, &[WAIT, ("type", "diagnose")]),
    tool("alerts_list", "GET", "alerts"),
    tool("alerts_get", "GET", "alerts/{id}"),
    tool("alerts_acknowledge", "POST", "alerts/{id}/acknowledge"),
    tool("alerts_silence", "POST", "alerts/{id}/silence"),
    tool("alerts_close", "POST", "alerts/{id}/close"),
];
