//! Numbers of the machine link (contract agent-link 1.5, 2.13, 4) and of the registry of machines.

use std::time::Duration;

/// One message of a machine: a hundred alerts about logs fit many times.
pub const AGENT_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Its first message: nobody has decided yet whether it may take part.
pub const AGENT_FIRST_BYTES_MAX: usize = 256 * 1024;
/// What a connection keeps of its buffer behind a larger message.
pub const AGENT_BUFFER_KEPT_BYTES: usize = 4 * 1024;
/// Machines that are connected, or just connecting; each has two threads. Beyond it 503.
pub const AGENTS_MAX: usize = 1024;
/// Stack of the thread that reads: what it takes apart nests 128 deep.
pub const AGENT_READ_STACK_BYTES: usize = 256 * 1024;
/// Messages to a machine that does not read (`DropPeer`: a reader that slow is dead).
pub const AGENT_QUEUE: usize = 256;
/// The same in bytes: eight of the largest messages.
pub const AGENT_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
pub const AGENT_REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
pub const AGENT_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Three heartbeats: nothing came for this long, and the machine is gone.
pub const AGENT_SILENCE_MAX: Duration = Duration::from_secs(90);
/// A connection this silent gives way to a new one under its id.
pub const AGENT_TAKEOVER_SILENCE: Duration = Duration::from_secs(45);
pub const AGENT_ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that make no sense, per minute.
pub const AGENT_BAD_MESSAGES_MAX: u32 = 100;
/// Messages per second before a machine is read no faster; batches of alerts, each a commit, count ten times.
pub const AGENT_MESSAGES_PER_S: u32 = 1000;
/// Labels, plugins and features of a machine, and bytes of each text in them.
pub const MACHINE_LABELS_MAX: usize = 64;
pub const MACHINE_PLUGINS_MAX: usize = 128;
pub const MACHINE_TEXT_BYTES_MAX: usize = 256;
/// Machines that wait for approval, and how long without a sign of life.
pub const MACHINES_PENDING_MAX: i64 = 20;
pub const MACHINE_REQUEST_TTL: Duration = Duration::from_secs(24 * 3600);
/// Wrong tokens of an address in a minute before it is told to wait.
pub const AGENT_REFUSALS_MAX: u32 = 30;
pub const AGENT_REFUSALS_WINDOW: Duration = Duration::from_secs(60);
pub const JOIN_CODE_TTL: Duration = Duration::from_secs(3600);
pub const JOIN_CODE_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// A machine that is away for this long is down, when nothing is configured.
pub const MACHINE_DOWN_AFTER: Duration = Duration::from_secs(60);
/// At least this long after a start nobody is called down: machines come back by their own clocks.
pub const MACHINE_RESTART_GRACE: Duration = Duration::from_secs(120);
/// A machine that came back must stay this long before people are told, when it was down for longer.
pub const MACHINE_BACK_AFTER: Duration = Duration::from_secs(10);
/// That many going down together are one piece of news: probably it is the network of the hub.
pub const MACHINE_ROUND_MIN: usize = 3;
/// How long a round waits for those that are only silent yet.
pub const MACHINE_ROUND_HOLD: Duration = Duration::from_secs(60);
/// Two heartbeats did not come.
pub const MACHINE_SILENT: Duration = Duration::from_secs(65);
/// Last signs of life and readings are written together, this often.
pub const MACHINE_FLUSH_INTERVAL: Duration = Duration::from_secs(60);
pub const MACHINE_READINGS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Older readings are thinned out to one of ten minutes.
pub const MACHINE_READINGS_FULL: Duration = Duration::from_secs(24 * 3600);
pub const MACHINE_SESSIONS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
pub const MACHINE_SESSIONS_LISTED: usize = 100;
/// An inspection or diagnosis; a chat may not be silent for longer in a turn.
pub const MACHINE_SESSION_TIMEOUT: Duration = Duration::from_secs(600);
/// Turns that run on one machine, and for one user on all of them.
pub const MACHINE_TURNS_MAX: usize = 3;
pub const MACHINE_USER_TURNS_MAX: usize = 8;
/// Open chats of one machine, idle ones included; the reference has one count for everything, of three.
pub const MACHINE_CHATS_MAX: usize = 8;
/// An idle chat is ended: its history is the hub's.
pub const MACHINE_CHAT_IDLE: Duration = Duration::from_secs(600);
/// Outputs of a session that its turn has not taken yet (Block: only that machine waits).
pub const MACHINE_OUTPUTS_QUEUE: usize = 64;
