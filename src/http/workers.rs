//! The threads `http-work-N`: a handler for each complete request, and its answer onto the wire. What the socket does
//! not take at once goes back to the poller, so no client can hold a worker by being slow to read.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use tiny_http::Method;

use crate::api::message::{FileAnswer, Reply, Req, Responder, Response, Watch, json_response};
use crate::http::conn::{Conn, Phase, Progress, Socket};
use crate::http::head::Refusal;
use crate::http::poll::{Shared, TOO_LARGE, Work};
use crate::http::reply::{self, Framing};
use crate::limits;

/// Body of a worker thread.
pub(super) fn run(shared: &Arc<Shared>, work_rx: &Receiver<Work>) {
    while let Ok(work) = work_rx.recv() {
        let mut next = Some(work);
        let mut burst = 0;
        while let Some(work) = next.take() {
            burst += 1;
            next = serve(shared, work, burst < limits::PIPELINE_BURST_MAX);
        }
    }
}

/// Answers one request; the next one of the same connection, if it is here already and `more` allows it.
fn serve(shared: &Arc<Shared>, work: Work, more: bool) -> Option<Work> {
    let Work { mut conn, req, asks } = work;
    if let Some(length) = asks {
        return ask(shared, conn, &req, length);
    }
    conn.served += 1;
    let reply = catch_unwind(AssertUnwindSafe(|| shared.app.handle(&req))).unwrap_or_else(|_| {
        log::error!("a handler panicked: {} {}", req.method, req.path);
        Reply::Full(internal_error())
    });
    conn.authenticated |= req.authenticated.get();
    match reply {
        Reply::Full(response) => {
            let framing = framing(shared, &mut conn, req.method == Method::Head, req.http10);
            reply::push_response(&mut conn.output, response, framing, shared.app.common_headers(&req.path));
            let bytes = req.headers.into_bytes();
            conn.recycle(bytes);
            send(shared, conn, more)
        }
        Reply::File(answer) => {
            let FileAnswer { head, file, bytes } = *answer;
            let framing = framing(shared, &mut conn, req.method == Method::Head, req.http10);
            let common = shared.app.common_headers(&req.path);
            reply::push_with_tail(&mut conn.output, head, bytes, framing, common);
            conn.tail = (!framing.head_only).then(|| Box::new(file.take(bytes)));
            send(shared, conn, more)
        }
        Reply::Later(begin) => {
            let answer_on = Arc::clone(shared);
            let path = req.path.clone();
            let (head_only, http10) = (req.method == Method::Head, req.http10);
            let watch = if req.watched.get() { conn.stream.socket().try_clone().ok() } else { None };
            let responder = Responder::new(move |response: Response| {
                // Asked now: a stop may have begun since the request came.
                let framing = framing(&answer_on, &mut conn, head_only, http10);
                reply::push_response(&mut conn.output, response, framing, answer_on.app.common_headers(&path));
                // The thread that answers has other things to do: the poller takes the next request.
                send(&answer_on, conn, false);
            })
            .watching(watch.map(Watch::new));
            if catch_unwind(AssertUnwindSafe(|| begin(responder))).is_err() {
                log::error!("a handler panicked while it handed over its answer");
            }
            None
        }
        Reply::Stream(start) => {
            match shared.detach(conn) {
                Ok((stream, peer)) => shared.app.stream(Socket { stream, peer }, *start),
                Err(error) => log::warn!("hand over a stream: {error}"),
            }
            None
        }
        Reply::Upgrade(start) => {
            let early = conn.take_input();
            match shared.detach(conn) {
                Ok((stream, peer)) => shared.app.upgrade(Socket { stream, peer }, early, *start),
                Err(error) => log::warn!("hand over a websocket: {error}"),
            }
            None
        }
    }
}

/// Lets a large body come, or answers its head and closes.
fn ask(shared: &Arc<Shared>, mut conn: Box<Conn>, head: &Req, length: usize) -> Option<Work> {
    let allowed = catch_unwind(AssertUnwindSafe(|| shared.app.allow_body(head, length))).unwrap_or_else(|_| {
        log::error!("a check of a large body panicked: {}", head.path);
        Err(internal_error())
    });
    conn.authenticated |= head.authenticated.get();
    match allowed {
        Ok(()) if conn.allow_large(length, &shared.large_all) => {
            conn.phase = Phase::Flush; // nothing to write: the poller goes on at once, with what it has read already
            shared.park(conn);
        }
        Ok(()) => {
            conn.refused = Some(Refusal { status: 503, text: "too much is being sent at once; try again" });
            conn.phase = Phase::Flush;
            shared.park(conn);
        }
        Err(response) => {
            conn.keep_alive = false; // its body is not read
            let framing = framing(shared, &mut conn, false, head.http10);
            reply::push_response(&mut conn.output, response, framing, shared.app.common_headers(&head.path));
            send(shared, conn, false);
        }
    }
    None
}

fn framing(shared: &Shared, conn: &mut Conn, head_only: bool, http10: bool) -> Framing {
    if shared.is_stopping() {
        conn.keep_alive = false;
    }
    Framing { head_only, keep_alive: conn.keep_alive, http10 }
}

/// Writes the answer; what the socket does not take, and what comes next, is the poller's unless a complete request
/// is here already.
fn send(shared: &Arc<Shared>, mut conn: Box<Conn>, more: bool) -> Option<Work> {
    match conn.flush() {
        Err(_) => shared.close(conn),
        Ok(false) => {
            conn.phase = Phase::Flush;
            shared.park(conn);
        }
        Ok(true) if !conn.keep_alive => {
            conn.close_writing();
            conn.phase = Phase::Linger;
            shared.park(conn);
        }
        Ok(true) if more && conn.has_input() => match conn.assemble(shared.settings.body_bytes_max) {
            Progress::Request(req) => return Some(Work { conn, req, asks: None }),
            Progress::Ask(req, length) if shared.app.has_large_body(&req) => {
                return Some(Work { conn, req, asks: Some(length) });
            }
            Progress::Ask(..) => {
                conn.refused = Some(TOO_LARGE);
                conn.phase = Phase::Flush;
                shared.park(conn);
            }
            Progress::Refused(refusal) => {
                conn.refused = Some(refusal);
                conn.phase = Phase::Flush; // the poller answers it
                shared.park(conn);
            }
            Progress::Wait => {
                if conn.expects_continue() {
                    conn.phase = Phase::Flush; // the poller says 100 Continue
                }
                shared.park(conn);
            }
            Progress::Closed => shared.close(conn),
        },
        Ok(true) => {
            // With input left, an empty flush makes the poller look at it at once.
            conn.phase = if conn.has_input() { Phase::Flush } else { Phase::Idle };
            shared.park(conn);
        }
    }
    None
}

fn internal_error() -> Response {
    json_response(500, b"{\"error\":\"internal server error\",\"code\":\"internal\"}\n".to_vec())
}
