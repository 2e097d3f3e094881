//! What comes from a server finds its way here: answers to whoever waits, requests answered, notices noted.
//!
//! Knows no transport and does no I/O: a transport feeds it messages and sends what it gives back.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::McpError;
use super::lines::Line;
use super::mask::{Mask, cut};
use super::rpc::{self, Incoming};
use crate::limits;
use crate::rt::lock;

/// The inbox of one connection.
pub(super) struct Inbox {
    /// The name that the log calls the server.
    name: String,
    pub(super) mask: Mask,
    bell_tx: Sender<()>,
    bell_rx: Receiver<()>,
    /// Guarded by the mutex: everything that changes. A waiting call's own mutex may be taken under it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    waiting: HashMap<u64, Arc<Waiting>>,
    closed: Option<McpError>,
    tools_changed: bool,
    suspected: bool,
    logged: Logged,
}

/// How much of the server's own words went to the log within the window.
#[derive(Default)]
struct Logged {
    since: Option<Instant>,
    lines: u32,
}

/// A request that waits for its answer.
#[derive(Default)]
pub(super) struct Waiting {
    /// Guarded by the mutex: how far the call is. Nothing is taken under it.
    progress: Mutex<Progress>,
    moved: Condvar,
}

#[derive(Default)]
struct Progress {
    last: Option<Instant>,
    woken: bool,
    /// Stays when the caller has taken the result.
    is_settled: bool,
    result: Option<Result<Value, McpError>>,
}

/// How long a call may wait.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// Without an answer or a sign of progress.
    pub(super) idle: Duration,
    /// In all.
    pub(super) deadline: Instant,
}

/// What a transport has to do after it fed a message.
#[derive(Default)]
pub(super) struct Fed {
    /// Answers to the server's requests.
    pub(super) replies: Vec<Vec<u8>>,
    /// Nothing in it was an answer that somebody waited for.
    pub(super) idle: bool,
}

impl Waiting {
    fn settle(&self, result: Result<Value, McpError>) {
        let mut progress = lock(&self.progress);
        if !progress.is_settled {
            progress.is_settled = true;
            progress.result = Some(result);
        }
        drop(progress);
        self.moved.notify_all();
    }

    /// Whether the answer is there.
    pub(super) fn is_settled(&self) -> bool {
        lock(&self.progress).is_settled
    }

    /// Wakes the caller, so that it looks at its cancel flag.
    pub(super) fn wake(&self) {
        lock(&self.progress).woken = true;
        self.moved.notify_all();
    }

    /// Waits for the answer; None when the time is over or `give_up` says so (asked whenever woken).
    pub(super) fn wait(&self, limit: Limit, give_up: impl Fn() -> bool) -> Option<Result<Value, McpError>> {
        let begun = Instant::now();
        let mut progress = lock(&self.progress);
        loop {
            if let Some(result) = progress.result.take() {
                return Some(result);
            }
            progress.woken = false;
            let until = (progress.last.unwrap_or(begun) + limit.idle).min(limit.deadline);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || give_up() {
                return None;
            }
            progress = self.moved.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inbox {
    pub(super) fn new(name: &str, mask: Mask) -> Arc<Self> {
        let (bell_tx, bell_rx) = bounded(1);
        Arc::new(Self { name: name.to_owned(), mask, bell_tx, bell_rx, state: Mutex::default() })
    }

    /// Rings when the connection ended or the tools changed.
    pub(super) fn bell(&self) -> &Receiver<()> {
        &self.bell_rx
    }

    fn ring(&self) {
        // Full: it rings already.
        let _ = self.bell_tx.try_send(());
    }

    /// A number for a request, and the place where its answer will be.
    pub(super) fn begin(&self) -> Result<(u64, Arc<Waiting>), McpError> {
        let mut state = lock(&self.state);
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        if state.waiting.len() >= limits::MCP_CALLS_MAX {
            return Err(McpError::Stuck);
        }
        state.next_id += 1;
        let (id, waiting) = (state.next_id, Arc::new(Waiting::default()));
        state.waiting.insert(id, Arc::clone(&waiting));
        Ok((id, waiting))
    }

    /// Nobody waits for that answer any more; a late one is ignored.
    pub(super) fn forget(&self, id: u64) {
        lock(&self.state).waiting.remove(&id);
    }

    /// Ends one call.
    pub(super) fn fail(&self, id: u64, error: McpError) {
        let waiting = lock(&self.state).waiting.remove(&id);
        if let Some(waiting) = waiting {
            waiting.settle(Err(error));
        }
    }

    /// Ends the connection and every call that waits. The first reason stays.
    pub(super) fn close(&self, reason: McpError) {
        let waiting: Vec<Arc<Waiting>> = {
            let mut state = lock(&self.state);
            if state.closed.is_none() {
                state.closed = Some(reason.clone());
            }
            state.waiting.drain().map(|(_, waiting)| waiting).collect()
        };
        for call in waiting {
            call.settle(Err(reason.clone()));
        }
        self.ring();
    }

    /// Why the connection is over, if it is.
    pub(super) fn closed(&self) -> Option<McpError> {
        lock(&self.state).closed.clone()
    }

    /// A call failed in a way that the whole connection may be the cause of: its owner should look.
    pub(super) fn suspect(&self) {
        lock(&self.state).suspected = true;
        self.ring();
    }

    /// Whether that happened since this was last asked.
    pub(super) fn take_suspected(&self) -> bool {
        std::mem::take(&mut lock(&self.state).suspected)
    }

    /// Whether a request waits for its answer.
    pub(super) fn is_busy(&self) -> bool {
        !lock(&self.state).waiting.is_empty()
    }

    /// Whether the server said that its tools changed since this was last asked.
    pub(super) fn take_tools_changed(&self) -> bool {
        std::mem::take(&mut lock(&self.state).tools_changed)
    }

    /// Takes a line of a stream.
    pub(super) fn feed_line(&self, line: Line<'_>) -> Fed {
        let too_large = McpError::TooLarge { bytes_max: limits::MCP_MESSAGE_BYTES_MAX };
        match line {
            Line::Whole(text) => return self.feed(text),
            Line::Overflow => {
                // With one call in flight there is no doubt whose answer it is: it need not wait for the end.
                let only = {
                    let state = lock(&self.state);
                    (state.waiting.len() == 1).then(|| state.waiting.keys().next().copied()).flatten()
                };
                self.warn(|| format!("{too_large}; it is dropped"));
                if let Some(id) = only {
                    self.fail(id, too_large);
                }
            }
            Line::TooLong { head, tail } => match rpc::sniff_id(head, tail) {
                Some(id) => self.fail(id, too_large),
                None => {
                    let ids: Vec<u64> = lock(&self.state).waiting.keys().copied().collect();
                    for id in ids {
                        self.fail(id, too_large.clone());
                    }
                }
            },
        }
        Fed { idle: true, ..Fed::default() }
    }

    /// Takes one message, or a batch of them.
    pub(super) fn feed(&self, text: &[u8]) -> Fed {
        let mut fed = Fed { idle: true, ..Fed::default() };
        for message in rpc::parse(text) {
            match message {
                Incoming::Answer { id, result } => {
                    let waiting = lock(&self.state).waiting.remove(&id);
                    match waiting {
                        Some(waiting) => {
                            fed.idle = false;
                            waiting.settle(result.map_err(|(code, message)| McpError::Rpc {
                                code,
                                message: cut(&self.mask.apply(&message), limits::MCP_ERROR_BYTES_MAX).to_owned(),
                            }));
                        }
                        // Given up, answered twice, or never asked.
                        None => log::debug!("tool server {}: an answer that nobody waits for", self.name),
                    }
                }
                Incoming::Request { id, method } => fed.replies.push(match method.as_str() {
                    "ping" => rpc::answer(&id, Ok(json!({}))),
                    "roots/list" => rpc::answer(&id, Ok(json!({"roots": []}))),
                    _ => rpc::answer(&id, Err((rpc::METHOD_NOT_FOUND, "method not found"))),
                }),
                Incoming::Notice { method, params } => self.notice(&method, &params),
                Incoming::Nonsense => {
                    self.warn(|| {
                        let masked = self.mask.apply(&String::from_utf8_lossy(text));
                        format!("sent what is no JSON-RPC: {:?}", cut(&masked, 80))
                    });
                }
            }
        }
        fed
    }

    fn notice(&self, method: &str, params: &Value) {
        match method {
            "notifications/tools/list_changed" => {
                lock(&self.state).tools_changed = true;
                self.ring();
            }
            "notifications/progress" => {
                let token = params.get("progressToken");
                let id = token.and_then(|token| token.as_u64().or_else(|| token.as_str()?.parse().ok()));
                let waiting = id.and_then(|id| lock(&self.state).waiting.get(&id).cloned());
                if let Some(waiting) = waiting {
                    lock(&waiting.progress).last = Some(Instant::now());
                    waiting.moved.notify_all();
                }
            }
            "notifications/message" => self.server_log(params),
            _ => {}
        }
    }

    /// The server's own log, in ours.
    fn server_log(&self, params: &Value) {
        let level = match params.get("level").and_then(Value::as_str).unwrap_or("") {
            "debug" => log::Level::Trace,
            "info" | "notice" => log::Level::Debug,
            "warning" => log::Level::Info,
            _ => log::Level::Warn,
        };
        if log::log_enabled!(level) && self.may_log() {
            let text = match params.get("data") {
                Some(Value::String(text)) => text.clone(),
                Some(data) => data.to_string(),
                None => String::new(),
            };
            log::log!(level, "tool server {} says: {}", self.name, one_line(&self.mask, &text));
        }
    }

    fn warn(&self, text: impl FnOnce() -> String) {
        if self.may_log() {
            log::warn!("tool server {}: {}", self.name, text());
        }
    }

    /// A few lines per minute; a flood is mentioned once.
    fn may_log(&self) -> bool {
        let mut state = lock(&self.state);
        let logged = &mut state.logged;
        if logged.since.is_none_or(|since| since.elapsed() >= limits::MCP_LOG_WINDOW) {
            *logged = Logged { since: Some(Instant::now()), lines: 0 };
        }
        logged.lines = logged.lines.saturating_add(1);
        let lines = logged.lines;
        drop(state);
        if lines == limits::MCP_LOG_LINES_MAX {
            log::warn!("tool server {}: too many messages; more of this minute are not logged", self.name);
        }
        lines < limits::MCP_LOG_LINES_MAX
    }
}

/// Foreign text for the log: one bounded line without control characters and secrets.
fn one_line(mask: &Mask, text: &str) -> String {
    // Masked before it is cut: the part of a secret would not be known as one.
    let shown: String = cut(&mask.apply(text), limits::MCP_ERROR_BYTES_MAX * 4)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cut(&shown, limits::MCP_ERROR_BYTES_MAX).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Limit {
        Limit { idle: Duration::from_secs(60), deadline: Instant::now() + Duration::from_secs(60) }
    }

    #[test]
    fn answers_find_their_callers_once() {
        let inbox = Inbox::new("t", Mask::default());
        let (first, one) = inbox.begin().unwrap();
        let (second, two) = inbox.begin().unwrap();
        assert!(inbox.feed(b"{\"id\":99,\"result\":1}").idle);
        assert!(!inbox.feed(format!("{{\"id\":{second},\"result\":\"b\"}}").as_bytes()).idle);
        assert!(inbox.feed(format!("{{\"id\":{second},\"result\":\"late\"}}").as_bytes()).idle);
        assert_eq!(two.wait(limit(), || false).unwrap().unwrap(), json!("b"));
        inbox.feed(format!("{{\"id\":{first},\"error\":{{\"code\":-1,\"message\":\"no\"}}}}").as_bytes());
        let refused = McpError::Rpc { code: -1, message: "no".to_owned() };
        assert_eq!(one.wait(limit(), || false).unwrap(), Err(refused));
    }

    #[test]
    fn requests_are_answered_and_changes_ring() {
        let inbox = Inbox::new("t", Mask::default());
        let reply = |text: &str| {
            let fed = inbox.feed(text.as_bytes());
            serde_json::from_slice::<Value>(&fed.replies[0]).unwrap()
        };
        assert_eq!(reply(r#"{"id":"a","method":"ping"}"#)["result"], json!({}));
        assert_eq!(reply(r#"{"id":2,"method":"roots/list"}"#)["result"]["roots"], json!([]));
        assert_eq!(reply(r#"{"id":3,"method":"sampling/createMessage"}"#)["error"]["code"], -32601);
        assert!(!inbox.take_tools_changed());
        for _ in 0..1000 {
            inbox.feed(br#"{"method":"notifications/tools/list_changed"}"#);
        }
        assert!(inbox.bell().try_recv().is_ok() && inbox.bell().try_recv().is_err());
        assert!(inbox.take_tools_changed() && !inbox.take_tools_changed());
    }

    #[test]
    fn a_closed_connection_ends_every_call() {
        let inbox = Inbox::new("t", Mask::default());
        let (_, call) = inbox.begin().unwrap();
        inbox.close(McpError::Stuck);
        inbox.close(McpError::Cancelled);
        assert_eq!(call.wait(limit(), || false), Some(Err(McpError::Stuck)));
        assert_eq!(inbox.begin().map(|_| ()), Err(McpError::Stuck));
    }

    #[test]
    fn progress_puts_the_idle_limit_off() {
        let inbox = Inbox::new("t", Mask::default());
        let (id, call) = inbox.begin().unwrap();
        let past = Limit { idle: Duration::ZERO, ..limit() };
        assert_eq!(call.wait(past, || false), None);
        inbox.feed(
            format!("{{\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{id}}}}}").as_bytes(),
        );
        assert!(lock(&call.progress).last.is_some());
        assert_eq!(call.wait(limit(), || true), None, "whoever gives up does not wait");
    }

    #[test]
    fn an_overlong_line_fails_the_call_it_belongs_to() {
        let inbox = Inbox::new("t", Mask::default());
        let (_, other) = inbox.begin().unwrap();
        let (id, call) = inbox.begin().unwrap();
        inbox.feed_line(Line::Overflow);
        assert!(!call.is_settled() && !other.is_settled());
        inbox.feed_line(Line::TooLong { head: format!("{{\"id\":{id},\"result\":").as_bytes(), tail: b"" });
        assert!(call.is_settled() && !other.is_settled());
        inbox.feed_line(Line::Overflow);
        assert!(other.is_settled());
    }
}
