//! What goes into and comes out of the turn tables.

/// A message to be accepted.
pub struct NewTurn<'a> {
    pub conversation_id: &'a str,
    /// `ws` or `api`.
    pub origin: &'a str,
    pub agent: &'a str,
    pub identity: &'a str,
    /// The client's own id of the message, for retries.
    pub message_id: Option<&'a str>,
    pub user_name: &'a str,
    pub text: &'a str,
    /// `inspect` or `diagnose` of a machine; empty for a message.
    pub kind: &'a str,
    /// JSON, of those.
    pub params: &'a str,
}

/// What became of it.
#[derive(Debug, PartialEq)]
pub enum Accepted {
    New(Box<TurnRow>),
    /// The same `message_id` was accepted before.
    Repeat(Box<TurnRow>),
    /// The conversation belongs to somebody else.
    Denied,
}

/// Numbers promised to a stream by a durable commit.
pub struct Reservation<'a> {
    pub until: u64,
    /// Numbers up to here count as used, whatever the log says: after a crash those promised before it.
    pub used_seq: u64,
    pub boot_id: &'a str,
}

/// What is known of a stream's numbering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbering {
    pub floor_seq: u64,
    /// See [`Reservation::used_seq`].
    pub used_seq: u64,
    /// 0 after a clean stop.
    pub reserved_until: u64,
    pub boot_id: String,
}

/// A stored turn.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnRow {
    pub id: i64,
    pub conversation_id: String,
    pub identity: String,
    pub agent: String,
    pub user_name: String,
    pub origin: String,
    pub text: String,
    /// `inspect` or `diagnose` of a machine; empty for a message.
    pub kind: String,
    /// JSON, of those.
    pub params: String,
    /// `queued`, `running`, `parked`, `done` or `failed`.
    pub state: String,
    pub after_seq: Option<u64>,
    pub user_message: Option<i64>,
    pub assistant_message: Option<i64>,
    /// The error code of a failed turn.
    pub outcome: String,
    pub created_at: i64,
}

/// One executed tool call.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    pub turn_id: i64,
    pub round: u32,
    pub tool_id: String,
    pub tool: String,
    pub arguments: String,
    /// The model's text beside the calls of this round; on the first step of a round only.
    pub said: String,
    pub result: String,
    pub failed: bool,
    pub duration_ms: u64,
    /// Its place in the model's order within the round.
    pub position: u32,
    /// The tool server; empty for built-in tools.
    pub server: String,
}

/// How a turn ended.
#[derive(Clone, Debug)]
pub struct Closed {
    pub turn_id: i64,
    pub conversation_id: String,
    /// Empty for success, else the error code.
    pub outcome: String,
    pub last_seq: u64,
}
