//! Streams of events over HTTP: those that hold an answer, the standing one of the streamable transport, and the one
//! that the older transport (MCP 2024-11-05, "HTTP with SSE") answers on.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::http::{LONG, STANDING, Shared};
use super::inbox::Waiting;
use super::{McpError, TransportKind};
use crate::limits;
use crate::net::sse::Parser;
use crate::net::{Answer, Method};
use crate::rt::Cancel;

/// What one read takes.
const READ_BYTES: usize = 16 * 1024;
/// How often a cut stream is taken up again, and how long to wait before (contract engine 8.2).
const RECONNECTS_MAX: u32 = 5;
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);
/// The least when somebody waits for the answer, whatever the server asks for.
const RESUME_DELAY_MIN: Duration = Duration::from_millis(100);

/// How far a stream came.
#[derive(Default)]
struct Read {
    /// The id of its last whole event: where to take it up again.
    last_id: String,
    /// How long the server wants us to wait before that.
    retry: Option<Duration>,
    n_events: u64,
}

/// Posts a request and reads what comes until its answer is there. A stream that is cut is taken up again where it
/// was, if its events have ids.
pub(super) fn exchange(
    shared: &Arc<Shared>,
    message: &[u8],
    waiting: &Waiting,
    cancel: &Cancel,
) -> Result<(), McpError> {
    let answer = shared.request(Method::Post, Some(message), LONG, cancel, &[])?;
    if shared.kind == TransportKind::LegacySse {
        // The answer comes on the stream.
        return Ok(());
    }
    let mut read = read_answer(shared, answer, waiting)?;
    for attempt in 0..RECONNECTS_MAX {
        if waiting.is_settled() || cancel.is_set() {
            return Ok(());
        }
        if read.last_id.is_empty() || shared.stop.wait(delay(attempt, read.retry, RESUME_DELAY_MIN)) {
            break;
        }
        match resume(shared, &read.last_id, cancel, Some(waiting)) {
            Ok(next) if next.last_id.is_empty() => {}
            Ok(next) => read = next,
            Err(error @ (McpError::SessionLost | McpError::Status { .. } | McpError::Unauthorized)) => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
    if waiting.is_settled() || cancel.is_set() {
        return Ok(());
    }
    Err(McpError::Gone { detail: "the answer was cut off".to_owned() })
}

/// The standing stream, on which the server speaks without being asked. A server without one says so (405).
pub(super) fn stand(shared: &Arc<Shared>) {
    let cancel = shared.begin(STANDING);
    let mut last_id = String::new();
    let mut attempt = 0;
    while !cancel.is_set() && attempt <= RECONNECTS_MAX {
        let retry = match resume(shared, &last_id, &cancel, None) {
            Ok(read) => {
                if read.n_events > 0 {
                    attempt = 0;
                }
                if !read.last_id.is_empty() {
                    last_id = read.last_id;
                }
                read.retry
            }
            // It has none, or none for us. Whether the session still is one, the next request shows.
            Err(McpError::Status { status: 400..=499, .. } | McpError::Unauthorized | McpError::Protocol { .. }) => {
                break;
            }
            Err(_) => None,
        };
        if shared.stop.wait(delay(attempt, retry, DELAY_MIN)) {
            break;
        }
        attempt += 1;
    }
    shared.end(STANDING);
}

/// Opens the stream of the older transport and waits until it says where messages go.
pub(super) fn open_legacy(shared: &Arc<Shared>, timeout: Duration, cancel: &Cancel) -> Result<(), McpError> {
    let (ready_tx, ready_rx) = bounded(1);
    let own = Arc::clone(shared);
    shared.spawn(move || legacy(&own, &ready_tx))?;
    // The connect time-out of the stream bounds what a cancel has to wait for.
    let (woken_tx, woken_rx) = bounded::<()>(1);
    cancel.set_hook(move || {
        // Full: woken already.
        let _ = woken_tx.try_send(());
    });
    let result = crossbeam_channel::select! {
        recv(ready_rx) -> ready => ready.unwrap_or_else(|_| Err(McpError::Gone { detail: String::new() })),
        recv(woken_rx) -> _ => Err(McpError::Cancelled),
        default(timeout) => Err(McpError::Timeout { what: "connect", after: timeout }),
    };
    cancel.clear_hook();
    result
}

/// The body of the older transport's thread: the stream is the connection.
fn legacy(shared: &Arc<Shared>, ready_tx: &Sender<Result<(), McpError>>) {
    let cancel = shared.begin(STANDING);
    let result = shared.request(Method::Get, None, LONG, &cancel, &[("Accept", "text/event-stream")]);
    let mut is_ready = false;
    let ended = result.and_then(|answer| {
        read_events(shared, answer, |name, data| {
            match name {
                "endpoint" if !is_ready => {
                    shared.set_endpoint(data)?;
                    is_ready = true;
                    // Full: it was ready already.
                    let _ = ready_tx.try_send(Ok(()));
                }
                _ => shared.feed(data),
            }
            Ok(true)
        })
    });
    let reason = ended.err().unwrap_or(McpError::Gone { detail: "its stream has ended".to_owned() });
    // Nobody listens any more when it was ready before.
    let _ = ready_tx.try_send(Err(reason.clone()));
    shared.inbox.close(reason);
    shared.end(STANDING);
}

/// Reads the answer to a posted request: one message, or a stream of events.
fn read_answer(shared: &Arc<Shared>, mut answer: Answer<'_>, waiting: &Waiting) -> Result<Read, McpError> {
    let kind = answer.header("content-type").unwrap_or("").to_ascii_lowercase();
    if kind.starts_with("text/event-stream") {
        return until_settled(shared, answer, Some(waiting));
    }
    let body = answer.body(limits::MCP_MESSAGE_BYTES_MAX).map_err(|error| shared.net_error(error))?;
    shared.feed_bytes(&body);
    if waiting.is_settled() {
        return Ok(Read::default());
    }
    let shown = if kind.is_empty() { "nothing" } else { kind.as_str() };
    Err(McpError::Protocol { reason: format!("it answered a request with {shown} that is no answer") })
}

/// Takes a stream up behind an event, or opens the standing one.
fn resume(shared: &Arc<Shared>, last_id: &str, cancel: &Cancel, waiting: Option<&Waiting>) -> Result<Read, McpError> {
    let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", last_id)];
    let headers = if last_id.is_empty() { &headers[..1] } else { &headers[..] };
    let answer = shared.request(Method::Get, None, LONG, cancel, headers)?;
    until_settled(shared, answer, waiting)
}

/// Feeds events until the awaited answer was among them, or the stream ends however it ends.
fn until_settled(shared: &Arc<Shared>, answer: Answer<'_>, waiting: Option<&Waiting>) -> Result<Read, McpError> {
    let mut read = Read::default();
    let ended = read_with(shared, answer, &mut read, |_, data| {
        shared.feed(data);
        Ok(!waiting.is_some_and(Waiting::is_settled))
    });
    match ended {
        // A cut is the business of whoever can take the stream up again.
        Ok(()) | Err(McpError::Connect { .. }) => Ok(read),
        Err(error) => Err(error),
    }
}

fn read_events(
    shared: &Arc<Shared>,
    answer: Answer<'_>,
    take: impl FnMut(&str, &str) -> Result<bool, McpError>,
) -> Result<(), McpError> {
    read_with(shared, answer, &mut Read::default(), take)
}

/// Hands events to `take` until it has enough.
fn read_with(
    shared: &Arc<Shared>,
    mut answer: Answer<'_>,
    read: &mut Read,
    mut take: impl FnMut(&str, &str) -> Result<bool, McpError>,
) -> Result<(), McpError> {
    let kind = answer.header("content-type").unwrap_or("").to_ascii_lowercase();
    if !kind.starts_with("text/event-stream") {
        return Err(McpError::Protocol { reason: "it has no stream of events where one belongs".to_owned() });
    }
    let too_large = |_| McpError::TooLarge { bytes_max: limits::MCP_MESSAGE_BYTES_MAX };
    let mut parser = Parser::new(limits::MCP_MESSAGE_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = answer.read(&mut buffer).map_err(|error| shared.net_error(error))?;
        if count == 0 {
            // An event without its end does not count: it comes again when the stream is taken up.
            return Ok(());
        }
        parser.push(&buffer[..count]);
        let mut wants_more = true;
        while wants_more {
            let Some(event) = parser.next_event().map_err(too_large)? else { break };
            read.n_events += 1;
            wants_more = take(event.name, event.data)?;
        }
        parser.last_id().clone_into(&mut read.last_id);
        read.retry = parser.retry();
        if !wants_more {
            answer.finish();
            return Ok(());
        }
    }
}

/// 1 s, half as much again each time, up to 30 s, and a little by chance, so that many clients of a server that was
/// away do not come back at once. What the server asks for counts instead, but no less than `least`: without that a
/// server could keep us busy.
fn delay(attempt: u32, asked: Option<Duration>, least: Duration) -> Duration {
    let wait = asked.unwrap_or_else(|| DELAY_MIN.mul_f64(1.5_f64.powi(i32::try_from(attempt).unwrap_or(0).min(20))));
    let mut random = [0; 1];
    // Without randomness there is no jitter, which harms nobody here.
    let _ = getrandom::fill(&mut random);
    wait.clamp(least, DELAY_MAX).mul_f64(1.0 + f64::from(random[0]) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_makes_us_hurry() {
        let asked = |ms| Some(Duration::from_millis(ms));
        for attempt in [0, 5, u32::MAX] {
            assert!(delay(attempt, asked(0), DELAY_MIN) >= DELAY_MIN);
            assert!(delay(attempt, asked(0), RESUME_DELAY_MIN) >= RESUME_DELAY_MIN);
            assert!(delay(attempt, asked(u64::MAX), DELAY_MIN) <= DELAY_MAX.mul_f64(1.25));
            assert!(delay(attempt, None, DELAY_MIN) >= DELAY_MIN);
        }
    }
}
