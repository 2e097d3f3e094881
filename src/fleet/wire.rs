//! Messages of the machine link (contract agent-link 2): one JSON object per WebSocket message.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::alert::Event;
use crate::rt::fields::wire;
use crate::rt::json;

/// Largest message towards an agent, in bytes: the reference hangs up above it.
pub const TO_AGENT_BYTES_MAX: usize = 1_048_576;
/// Events of one `alert_events`.
pub const EVENTS_MAX: usize = 100;
/// What our hub says it can do, in the `ack` of a registration (contract agent-link 3.6).
pub const HUB_FEATURES: &[&str] = &["alert_ack", "input_ack"];

/// The envelope of every message. Unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    #[serde(rename = "type")]
    pub kind: String,
    /// The sender's id of the message.
    #[serde(default)]
    pub id: String,
    /// On `ack`: the id that is answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ref_id: String,
    /// `Some(Value::Null)` is not the same as absent (contract agent-link 2.1).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub payload: Option<Value>,
    /// Holt's own, on `session_start`: proof that the hub whose key is pinned sent it now, to this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sig: Option<Signature>,
}

impl Message {
    /// A message with a payload.
    pub fn new(kind: &str, id: String, payload: &impl Serialize) -> Self {
        Self { kind: kind.to_owned(), id, payload: serde_json::to_value(payload).ok(), ..Self::default() }
    }

    /// Its JSON.
    pub fn encode(&self) -> Vec<u8> {
        json::to_vec(self)
    }

    /// The payload as a type of its own; None when it is absent or does not fit. Null is all defaults.
    pub fn payload<T: for<'de> Deserialize<'de>>(&self) -> Option<T> {
        match self.payload.clone()? {
            Value::Null => serde_json::from_value(Value::Object(serde_json::Map::new())).ok(),
            value => serde_json::from_value(value).ok(),
        }
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Ed25519 over the parts of a `session_start` (contract agent-link 8, "signed `session_start`").
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    /// Unix milliseconds at the hub.
    pub time: i64,
    /// Never used twice.
    pub nonce: String,
    /// Base64 of 64 bytes.
    pub value: String,
}

wire!(Signature { time, nonce, value });

/// `register` (contract agent-link 2.4).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Register {
    pub hostname: String,
    pub ip: String,
    pub os: String,
    pub arch: String,
    pub labels: BTreeMap<String, String>,
    pub plugins: Vec<String>,
    pub agent_version: String,
    /// Age of the agent's process, in seconds.
    pub uptime_sec: i64,
    /// Holt's own: the machine's clock, Unix milliseconds; 0 is not said.
    pub time: i64,
    /// Holt's own: what the hub signs to prove that it is the one whose key is pinned.
    pub nonce: String,
    /// Holt's own: `metadata`, `input_ack`, ....
    pub features: Vec<String>,
}

wire!(Register { hostname, ip, os, arch, labels, plugins, agent_version, uptime_sec; time, nonce, features });

/// `ack`, both directions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ack {
    pub ok: bool,
    pub error: String,
    pub warning: String,
    /// See [`HUB_FEATURES`].
    pub features: Vec<String>,
    /// Holt's own: the token to use from the next connection on.
    pub new_token: String,
    /// Holt's own: base64 of the hub's public key (Ed25519, 32 bytes).
    pub hub_key: String,
    /// Holt's own: base64 of the hub's signature over the agent's id and nonce.
    pub hub_proof: String,
}

wire!(Ack { ok; error, warning, features, new_token, hub_key, hub_proof });

/// `heartbeat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heartbeat {
    pub active_sessions: i64,
    pub active_alerts: i64,
    pub cpu_pct: Option<f64>,
    pub mem_pct: Option<f64>,
    /// Holt's own: fullest file system, 0 to 100.
    pub disk_pct: Option<f64>,
    /// Holt's own: one-minute load.
    pub load1: Option<f64>,
    /// Holt's own: the hottest sensor, degrees Celsius.
    pub temp_c: Option<f64>,
    /// Holt's own: age of the host, in seconds.
    pub host_uptime_sec: Option<i64>,
    /// Holt's own: events that the spool had to drop since the last heartbeat.
    pub dropped_events: i64,
}

wire!(Heartbeat { active_sessions, active_alerts; cpu_pct, mem_pct, disk_pct, load1, temp_c, host_uptime_sec, dropped_events });

/// `alert_events`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertEvents {
    pub events: Vec<Event>,
}

/// `disconnect`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disconnect {
    pub reason: String,
    pub retry_after_sec: i64,
}

wire!(Disconnect { reason, retry_after_sec });

/// `session_start`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionStart {
    pub session_id: String,
    /// `inspect`, `diagnose` or `chat`.
    pub session_type: String,
    pub user_name: String,
    pub params: serde_json::Map<String, Value>,
}

wire!(SessionStart { session_id, session_type, user_name; params });

/// `session_input`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionInput {
    pub session_id: String,
    pub message: String,
}

wire!(SessionInput { session_id, message });

/// `session_cancel`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionCancel {
    pub session_id: String,
    pub reason: String,
}

wire!(SessionCancel { session_id, reason });

/// `session_output` (contract agent-link 2.12, 4.5).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionOutput {
    pub session_id: String,
    /// A whole chunk, not a token.
    pub delta: String,
    /// `thinking`, `tool_call`, `tool_result`, `answer`, `error`, or empty at the end.
    pub stage: String,
    pub done: bool,
    pub report: String,
    pub metadata: Option<Metadata>,
}

wire!(SessionOutput { session_id, delta, stage, done; report, metadata });

/// What Holt's agents add to an output (contract agent-link 4.8); the reference knows `turn_done` alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    pub turn_done: bool,
    /// From 0, per session.
    pub seq: Option<u64>,
    pub round: Option<u32>,
    pub tool: Option<String>,
    pub tool_ok: Option<bool>,
    pub duration_ms: Option<u64>,
    pub tokens_in: Option<u64>,
    pub tokens_out: Option<u64>,
    /// On the closing message: `ok`, `empty`, `error`, `cancelled` or `timeout`.
    pub outcome: Option<String>,
}

wire!(Metadata { ; turn_done, seq, round, tool, tool_ok, duration_ms, tokens_in, tokens_out, outcome });

/// `session_error`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionError {
    pub session_id: String,
    pub error: String,
    pub code: String,
}

wire!(SessionError { session_id, error, code });
