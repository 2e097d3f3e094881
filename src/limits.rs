//! Every capacity, size and timeout, each with its reason. What an operator may change is the default here and a
//! field of [`crate::config::Config`] there.

mod machines;
mod skills;

use std::time::Duration;

pub use machines::*;
pub use skills::*;

// --- HTTP: architecture section 2 -----------------------------------------------------------------------------

/// A request head. Cookies and long URLs fit; a header flood does not.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A request line: what proxies commonly allow.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024;
/// Header lines of one request.
pub const HEADERS_MAX: usize = 64;
/// A request body, unless its route says otherwise (W-13).
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// All bytes of incomplete requests together: they are buffered before anybody is authenticated.
pub const BUFFERED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What one read takes from a socket.
pub const READ_CHUNK_BYTES: usize = 16 * 1024;
/// From the first byte of a head to its last.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of the head to the last byte of the body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two requests of a connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that reads nothing of its answer for this long is gone.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// Open HTTP connections; WebSockets and SSE streams have left this count.
pub const HTTP_CONNECTIONS_MAX: usize = 512;
/// Complete requests that wait for a worker; beyond it 503 (Reject). One for each connection of the default limit: a
/// burst on all of them waits, it is not refused.
pub const REQUEST_QUEUE: usize = HTTP_CONNECTIONS_MAX;
/// Pipelined requests that a worker answers before other connections get a turn.
pub const PIPELINE_BURST_MAX: usize = 16;
/// After `accept` failed for want of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Connections let go of at such a failure, each of them if it is not missed.
pub const ACCEPT_SHED: usize = 8;
/// Connections that the system completes before they are accepted; std's 128 makes bursts wait a second for the next
/// try of their clients.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Connections taken per readiness of the listener, so that answers are not kept waiting.
pub const ACCEPT_BATCH: usize = 64;
/// What comes before a TLS handshake is complete: a hello, its answers and a large session ticket fit.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// Encrypted bytes of one connection that wait for its peer to read: two records, so that one is made while one is sent.
pub const TLS_BUFFER_BYTES_MAX: usize = 32 * 1024;
/// How often the certificate's files are looked at: those who renew them do so days before they end.
pub const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(60);
/// `Retry-After` of a 503 for want of a worker.
pub const RETRY_AFTER_S: u32 = 1;
/// Password checks that wait for the two bcrypt threads (Reject).
pub const BCRYPT_QUEUE: usize = 16;
/// Two cores at most: a check costs about a second of a Raspberry Pi's core.
pub const BCRYPT_THREADS: usize = 2;

// --- Threads ----------------------------------------------------------------------------------------------------

/// Stacks of pumps, of which there may be thousands: deep enough for tungstenite and SQLite reads.
pub const PUMP_STACK_BYTES: usize = 128 * 1024;
/// Stacks of workers and turns: JSON, TLS and SQLite on them.
pub const WORKER_STACK_BYTES: usize = 512 * 1024;

// --- WebSocket: architecture section 3, contract 8 --------------------------------------------------------------

/// One message of a client, all fragments together; beyond it close 1009.
pub const WS_MESSAGE_BYTES_MAX: usize = 65_536;
/// tungstenite's read buffer, held by every socket: its default of 128 KiB costs 150 KB each, and what clients send is
/// mostly shorter than this. Longer messages take more reads.
pub const WS_READ_BUFFER_BYTES: usize = 1024;
/// Open WebSockets when nothing is configured; beyond it close 1013.
pub const WS_CONNECTIONS_MAX: usize = 1024;
/// Pongs and close frames in waiting; when full the newest pong wins.
pub const WS_CONTROL_QUEUE: usize = 4;
/// Encoded frames in waiting that belong to no stream (Lag does not apply: `DropPeer` for answers).
pub const WS_DATA_QUEUE: usize = 64;
/// Bytes gathered for one write.
pub const WS_WRITE_BATCH_BYTES: usize = 64 * 1024;
pub const WS_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Renewed only by a protocol pong (contract 8.4).
pub const WS_PONG_TIMEOUT: Duration = Duration::from_secs(40);
pub const WS_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// After our close frame the peer may take this long to answer with its own: less than the stop gives all sockets.
pub const WS_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What is read and dropped behind a frame that ended the socket, so that its peer gets the close frame.
pub const WS_DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// Turns running or queued for one connection (contract 8.2).
pub const WS_TURNS_MAX: usize = 10;
/// Conversations that one connection follows at once; the longest unused is let go.
pub const WS_ATTACHED_MAX: usize = 64;
/// Refused frames per connection before it is closed: each earns an answer, so a flood must end (W-45).
pub const WS_BAD_FRAMES_MAX: u32 = 100;

// --- SSE ------------------------------------------------------------------------------------------------------------

/// SSE streams at once; each has a thread. Beyond it 503.
pub const SSE_STREAMS_MAX: usize = 256;
/// Comment lines keep proxies from cutting a silent stream (W-42).
pub const SSE_KEEPALIVE: Duration = Duration::from_secs(15);

// --- Streams and turns: architecture sections 4 and 5 ------------------------------------------------------------

/// The in-memory ring of one session.
pub const RING_BYTES_MAX: usize = 256 * 1024;
/// All rings together.
pub const RINGS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Sessions with a ring; beyond it the least recently used loses its ring (the log still has the frames).
pub const RINGS_MAX: usize = 10_000;
/// One row of the log and one entry of a ring.
pub const RUN_BYTES_MAX: usize = 32 * 1024;
/// Frames of one session that wait for the log; beyond it the turn waits (Block).
pub const PENDING_BYTES_MAX: usize = 128 * 1024;
/// Sessions that wait for the log (Block).
pub const LOG_QUEUE: usize = 1024;
/// Sessions in one commit.
pub const LOG_BATCH: usize = 64;
/// Numbers reserved by one durable commit.
pub const SEQ_BLOCK: u64 = 16_384;
/// Frames of one read from the log.
pub const REPLAY_CHUNK_BYTES: usize = 128 * 1024;
pub const LOG_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
pub const LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Pages of the event log's write-ahead log (4 KiB each) before the writer empties it.
pub const WAL_PAGES_MAX: i64 = 8192;
/// Rows deleted between two commits of new frames.
pub const PURGE_ROWS: usize = 256;
/// Turns that run at once.
pub const TURNS_MAX: usize = 32;
/// Sessions whose next turn waits for a free slot (Reject: `rate_limited`).
pub const TURNS_WAITING_MAX: usize = 256;
/// Messages queued behind the running turn of one session (Reject: `rate_limited`).
pub const SESSION_QUEUE_MAX: usize = 8;
/// With too many sessions in memory, those go that were not used for this long.
pub const SESSION_IDLE_MIN: Duration = Duration::from_secs(5);
/// Sessions kept in memory while idle.
pub const SESSIONS_IDLE_MAX: usize = 10_000;
/// A message waits this long for a turn that is just ending, before it is queued behind it.
pub const FINISHING_WAIT: Duration = Duration::from_millis(100);
/// How long a repeated `message_id` is recognised.
pub const MESSAGE_ID_TTL: Duration = Duration::from_secs(24 * 3600);
pub const MESSAGE_ID_BYTES_MAX: usize = 64;
pub const MESSAGE_BYTES_MAX: usize = 32_768;
pub const SESSION_ID_BYTES_MAX: usize = 256;
/// One tool call.
pub const TOOL_TIMEOUT: Duration = Duration::from_secs(30);
/// What a model (and the store) gets of one tool result.
pub const TOOL_RESULT_BYTES_MAX: usize = 32 * 1024;
/// Identical calls in one turn before the model is told to stop.
pub const TOOL_REPEATS_MAX: u32 = 3;
/// Calls of one round that run at the same time.
pub const TOOLS_PARALLEL_MAX: usize = 4;
/// Calls of one round; a model that asks for more is told so.
pub const TOOL_CALLS_MAX: usize = 64;
/// What an event quotes of a call's arguments.
pub const APPROVAL_SUMMARY_BYTES_MAX: usize = 16 * 1024;
/// How long a request for approval can be decided (contract engine 3.1).
pub const APPROVAL_TTL: Duration = Duration::from_secs(24 * 3600);
/// What a rule for one conversation lasts: "session" means "while I am at it".
pub const SESSION_RULE_TTL: Duration = Duration::from_secs(15 * 60);
/// How long a plain JSON answer waits for a decision, before it says that the turn waits (contract engine 1.4).
pub const JSON_PARKED_WAIT: Duration = Duration::from_secs(5 * 60);
/// Decided requests are kept this long.
pub const APPROVALS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// An assistant's answer as stored and sent in `content`.
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

// --- Tool servers: contract engine 8 ----------------------------------------------------------------------------------

/// One message of a tool server. A screenshot fits; a flood does not, and a small board can hold a few of them.
pub const MCP_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Dropped of a message beyond that, before the connection itself is given up.
pub const MCP_DROPPED_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Messages to a server that does not read (Reject).
pub const MCP_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Answers to a server's own requests that it does not read: it asked for more than it takes (`DropPeer`).
pub const MCP_REPLIES_BYTES_MAX: usize = 64 * 1024;
/// Calls of one connection at once: more than turns can run.
pub const MCP_CALLS_MAX: usize = 256;
/// Text of one result; agents get less of it ([`TOOL_RESULT_BYTES_MAX`]).
pub const MCP_RESULT_BYTES_MAX: usize = 256 * 1024;
/// A server's words in an error: what the reference quotes of standard error.
pub const MCP_ERROR_BYTES_MAX: usize = 1024;
/// Lines of standard error that are kept for the next error.
pub const MCP_STDERR_LINES_MAX: usize = 16;
/// Longest line of standard error.
pub const MCP_STDERR_LINE_BYTES_MAX: usize = 1024;
/// Standard error of a server that people can look at: some screens, also after a restart.
pub const MCP_LOG_LINES_KEPT: usize = 200;
pub const MCP_LOG_BYTES_KEPT: usize = 32 * 1024;
/// Server messages and complaints in our log per window and server.
pub const MCP_LOG_LINES_MAX: u32 = 20;
pub const MCP_LOG_WINDOW: Duration = Duration::from_secs(60);
/// What a server may send per second without answering anybody, before its pipe is left alone for the rest of it.
pub const MCP_IDLE_BYTES_PER_S: usize = 4 * 1024 * 1024;
pub const MCP_IDLE_LINES_PER_S: usize = 10_000;
/// Pages of one `tools/list`.
pub const MCP_PAGES_MAX: usize = 64;
/// Tools of one server: models cannot choose among more, and each costs memory and prompt.
pub const MCP_TOOLS_MAX: usize = 512;
/// A tool's description and its schema; what is longer is cut or left out.
pub const MCP_DESCRIPTION_BYTES_MAX: usize = 8 * 1024;
pub const MCP_SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Handshake and list of tools: `npx` and `uvx` may have to download the server first.
pub const MCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Name lookup, TCP and TLS of a remote server.
pub const MCP_HTTP_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One call without an answer or a sign of progress (contract engine 10.2, `[mcp]`).
pub const MCP_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A call that keeps showing progress lasts at most this many times its time-out.
pub const MCP_PROGRESS_FACTOR: u32 = 10;
/// Between two looks at a server's health, and how long it has to answer (contract engine 8.4).
pub const MCP_HEALTH_INTERVAL: Duration = Duration::from_secs(30);
pub const MCP_HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two lists of a server whose tools keep changing.
pub const MCP_RELIST_INTERVAL: Duration = Duration::from_secs(2);
/// A child that is to end: after its input was closed, then after SIGTERM; then it is killed. Both fit into the stop.
pub const MCP_STDIN_WAIT: Duration = Duration::from_secs(1);
pub const MCP_TERM_WAIT: Duration = Duration::from_secs(1);
/// All tool servers at a stop, and the least that they are given however late it is.
pub const MCP_STOP: Duration = Duration::from_millis(2800);
pub const MCP_STOP_MIN: Duration = Duration::from_millis(500);
/// Longest wait between two tries to start a server; the first is 1 s, doubled each time.
pub const MCP_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Tool servers that may be configured at run time, plugins included (contract engine 8.4).
pub const TOOL_SERVERS_MAX: usize = 50;
/// Changes of tool servers at once: each has a thread and may wait for a server to start (Reject: 503).
pub const TOOL_CHANGES_MAX: usize = 8;

// --- Identity -------------------------------------------------------------------------------------------------------

pub const KEY_NAME_BYTES_MAX: usize = 255;
pub const PASSWORD_BYTES_MIN: usize = 8;
/// bcrypt reads no further.
pub const PASSWORD_BYTES_MAX: usize = 72;
pub const BCRYPT_COST: u32 = 13;
/// Wrong PINs before it dies (W-3).
pub const PIN_TRIES_MAX: u32 = 10;
/// Addresses that the login throttle remembers; beyond it the oldest window is dropped (W-40).
pub const THROTTLE_ADDRESSES_MAX: usize = 4096;
/// Identities with a token bucket.
pub const RATE_IDENTITIES_MAX: usize = 4096;
/// Credentials whose check is cached.
pub const CREDENTIAL_CACHE_MAX: usize = 1024;
/// `last_used_at` and `last_seen_at` are written together, this often.
pub const TOUCH_INTERVAL: Duration = Duration::from_secs(10);
/// How soon an open socket notices that its credential is gone.
pub const REVOCATION_INTERVAL: Duration = Duration::from_millis(500);

// --- Tools for the web ----------------------------------------------------------------------------------------------

/// What `web_fetch` gives of a page at once (contract engine 8.7).
pub const WEB_PAGE_BYTES_MAX: usize = 8000;
pub const WEB_TITLE_BYTES_MAX: usize = 300;
/// Results of one search (contract engine 10.2 allows 20).
pub const SEARCH_RESULTS_MAX: usize = 20;

// --- Audit log ------------------------------------------------------------------------------------------------------

/// How long entries are kept when nothing is configured.
pub const AUDIT_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// Entries kept when nothing is configured: about 15 MB.
pub const AUDIT_ROWS_MAX: usize = 100_000;
/// Repeated refusals from one place become one entry in this time.
pub const AUDIT_REPEAT_WINDOW: Duration = Duration::from_secs(600);
/// Places counted apart; beyond it they are counted together.
pub const AUDIT_SOURCES_MAX: usize = 256;
/// Entries of one answer to `GET /api/v1/audit`, and how many when the client does not say.
pub const AUDIT_LISTED_MAX: usize = 500;
pub const AUDIT_LISTED: usize = 100;

// --- Stores and stop ------------------------------------------------------------------------------------------------

/// Read-only connections kept open.
pub const DB_READERS: usize = 4;
pub const DB_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much a power cut may cost the event log.
pub const LOG_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Requests in flight at a stop.
pub const STOP_DRAIN: Duration = Duration::from_secs(5);
/// Without requests and turns: then memory is given back.
pub const REST_AFTER: Duration = Duration::from_secs(5);
/// Before a restart: for requests that are on their way on connections that wait for one. Over earlier when all went.
pub const RESTART_GRACE: Duration = Duration::from_secs(2);
/// Before a restart: for requests and turns in flight, while new connections wait.
pub const RESTART_DRAIN: Duration = Duration::from_secs(10);
/// The whole stop.
pub const STOP_TOTAL: Duration = Duration::from_secs(8);
/// Messages of one answer to `GET /api/v1/sessions/{id}/messages`.
pub const MESSAGES_LISTED_MAX: usize = 200;

// --- Key-value store: contract engine 7 ----------------------------------------------------------------------------

/// Keys of one agent when nothing is configured.
pub const KV_KEYS_MAX: usize = 1000;
/// Bytes of a value when nothing is configured.
pub const KV_VALUE_BYTES_MAX: usize = 65_536;
/// A key is a name: paths and addresses fit, documents do not.
pub const KV_KEY_BYTES_MAX: usize = 1024;
/// How often rows of what has expired are removed when nothing is configured.
pub const KV_CLEANUP_INTERVAL: Duration = Duration::from_secs(3600);
/// Rows removed between two other writes.
pub const KV_PURGE_ROWS: i64 = 1000;
/// Keys and values of one answer over HTTP; what is behind it comes with `after`.
pub const KV_LIST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Rendered lists kept, each at most [`KV_CACHED_BYTES_MAX`]: 1 MiB in all.
pub const KV_LISTS_CACHED: usize = 16;
pub const KV_CACHED_BYTES_MAX: usize = 64 * 1024;
/// What a model gets of a listing: a few thousand tokens.
pub const KV_TOOL_LIST_BYTES_MAX: usize = 12 * 1024;
/// What a model gets of each value in a listing; the whole of it with `kv_get`.
pub const KV_TOOL_VALUE_BYTES_MAX: usize = 512;

// --- Notifications ---------------------------------------------------------------------------------------------------

/// Notices that wait in one channel of the hub; beyond it the oldest count as failed.
pub const NOTICES_WAITING_MAX: usize = 2000;
/// The same of an agent, all in memory: its hub is the better place for long waits.
pub const NOTICES_IN_MEMORY_MAX: usize = 128;
/// Failed notices that are kept to be looked at.
pub const NOTICES_FAILED_MAX: usize = 200;
/// Rows that a channel looks at together, and the most that one summary speaks of.
pub const NOTICES_BATCH: usize = 256;
/// Longest wait between two attempts; the first is a second, doubled each time.
pub const NOTICE_BACKOFF_MAX: Duration = Duration::from_secs(30 * 60);
/// Tried for so long, then given up: news of yesterday.
pub const NOTICE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Attempts while a server answers with an error of its own: about half an hour, so that one notice that it cannot
/// digest does not hold up the others for a day.
pub const NOTICE_ERROR_ATTEMPTS_MAX: u32 = 12;
pub const NOTICE_TITLE_BYTES_MAX: usize = 256;
/// ntfy turns more than 4096 bytes into an attachment.
pub const NOTICE_BODY_BYTES_MAX: usize = 3500;
/// Notices in one answer to `GET /api/v1/notifications`.
pub const NOTICES_LISTED_MAX: usize = 500;
/// Lines of a summary; the rest is counted.
pub const NOTICE_SUMMARY_LINES: usize = 20;
/// Stack of a channel's thread: name lookups, TLS, JSON and SQLite on it. What is not touched costs nothing.
pub const NOTIFY_STACK_BYTES: usize = 512 * 1024;

// --- Costs: contract engine 4 ---------------------------------------------------------------------------------------

/// Output tokens set aside for a call before anybody knows: longer than most answers. What an answer costs beyond it
/// counts once it is there.
pub const COST_OUTPUT_TOKENS_ESTIMATED: u64 = 1024;
/// Sums kept in memory, mostly of conversations; beyond it those without an open call are read again when needed.
pub const COST_ACCOUNTS_MAX: usize = 4096;
/// Days after which the rows of calls are put together. Longer than any series that is shown.
pub const COST_ROW_DAYS: i64 = 400;
/// Days in one answer of the costs route.
pub const COST_DAYS_MAX: u32 = 366;
pub const COST_DAYS: u32 = 30;
/// Conversations, models and keys in one answer, the latest used first.
pub const COST_LINES_MAX: usize = 1000;
/// Rendered answers kept.
pub const COST_REPORTS_CACHED: usize = 4;

// --- The gateway to models: contract agent-link 5 -----------------------------------------------------------------

/// A request of a machine: many results of tools in one conversation.
pub const GATEWAY_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bodies beyond the general limit, all together, until they are answered.
pub const LARGE_BODIES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Calls at once, of one machine and of all.
pub const GATEWAY_MACHINE_CALLS_MAX: usize = 4;
pub const GATEWAY_CALLS_MAX: usize = 32;
/// Calls of one machine in a minute.
pub const GATEWAY_CALLS_PER_MINUTE: usize = 60;
/// Tokens of one machine in a day, unless the configuration says otherwise: some hundred long diagnoses.
pub const GATEWAY_TOKENS_PER_DAY: u64 = 5_000_000;
/// The longest that a call may take, and how long one may that does not say.
pub const GATEWAY_TIMEOUT_MAX: Duration = Duration::from_secs(600);
pub const GATEWAY_TIMEOUT: Duration = Duration::from_secs(120);
/// Messages and tools of one request.
pub const GATEWAY_MESSAGES_MAX: usize = 2000;
pub const GATEWAY_TOOLS_MAX: usize = 256;

// --- Alerts: contract agent-link 2.7 --------------------------------------------------------------------------------

/// Closed alerts and the events of all stay this long.
pub const ALERTS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Rows of alerts, open ones included; beyond it the oldest closed ones go, then the oldest open ones. More than a
/// hundred thousand alerts in one go are kept.
pub const ALERT_ROWS_MAX: i64 = 150_000;
/// Rows of events; beyond it the oldest go.
pub const ALERT_EVENT_ROWS_MAX: i64 = 300_000;
/// A description; the rest is cut off with a mark. A screen or two.
pub const ALERT_TEXT_BYTES_MAX: usize = 16 * 1024;
/// A diagnosis.
pub const ALERT_REPORT_BYTES_MAX: usize = 64 * 1024;
/// A name of a label or attribute, and its value.
pub const ALERT_NAME_BYTES_MAX: usize = 128;
pub const ALERT_LABEL_BYTES_MAX: usize = 1024;
pub const ALERT_ATTR_BYTES_MAX: usize = 2048;
/// Labels of one event beside those that identify it, and its attributes.
pub const ALERT_PAIRS_MAX: usize = 64;
/// Alerts in one list.
pub const ALERTS_LISTED: usize = 100;
pub const ALERTS_LISTED_MAX: usize = 500;

// --- Schedules ------------------------------------------------------------------------------------------------------

/// Schedules that can be made by the API or by agents; a file may hold more.
pub const SCHEDULES_MAX: usize = 256;
/// Those of them that agents made for themselves, each.
pub const SCHEDULES_OF_AGENT_MAX: usize = 20;
/// Rows of the history of one schedule.
pub const SCHEDULE_RUNS_KEPT: usize = 500;

const _: () = {
    assert!(REQUEST_LINE_BYTES_MAX < HEAD_BYTES_MAX);
    assert!(HEAD_BYTES_MAX < BODY_BYTES_MAX && BODY_BYTES_MAX < BUFFERED_BYTES_MAX);
    assert!(RUN_BYTES_MAX < RING_BYTES_MAX && RING_BYTES_MAX < RINGS_BYTES_MAX);
    assert!(MESSAGE_BYTES_MAX < WS_MESSAGE_BYTES_MAX);
    assert!(WS_PING_INTERVAL.as_secs() < WS_PONG_TIMEOUT.as_secs());
    assert!(STOP_DRAIN.as_secs() < STOP_TOTAL.as_secs());
    assert!(RESTART_GRACE.as_secs() < RESTART_DRAIN.as_secs());
    assert!(REVOCATION_INTERVAL.as_millis() < 1000);
};
