//! `POST /api/v1/chat`: one turn, answered as JSON or followed as an event stream (contract 6.2; additions "REST").

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::error::ApiError;
use crate::api::login::{decode, json_line};
use crate::api::message::{Reply, Responder, Response, SseProgress, SseResume, SseStart, response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::auth::{AuthError, Identity};
use crate::chat::engine::{Outcome, Submit, Submitted, Ticket, Work};
use crate::chat::{ChatError, engine};
use crate::limits;
use crate::rt::fields::typed;
use crate::rt::{Slot, json as wire, lock};

#[derive(Default)]
struct ChatBody {
    agent: String,
    session_id: String,
    message: String,
    user_name: String,
    message_id: Option<String>,
    resume_after_seq: Option<i64>,
    epoch: Option<String>,
    /// Holt's own: after so many seconds the answer is that the turn runs.
    wait_secs: Option<u32>,
}

typed!(ChatBody { agent, session_id, message, user_name, message_id, resume_after_seq, epoch, wait_secs });

/// Runs a turn, or follows a session from a number on.
pub(super) fn chat(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let caller = call.caller.as_ref().ok_or(AuthError::Missing)?;
    let mut body: ChatBody = decode(&call.req.body, "invalid JSON body")?;
    let sse = call.req.headers.get("accept") == Some("text/event-stream");
    if body.resume_after_seq.is_none() && body.message.is_empty() {
        body.resume_after_seq = call.req.headers.get("last-event-id").and_then(|text| text.trim().parse().ok());
    }
    if body.message.trim().is_empty() {
        return match body.resume_after_seq {
            Some(after) if sse => resume(ctx, call, caller, &body, after),
            _ => Err(ApiError::bad_request("message is required")),
        };
    }
    if body.message.len() > limits::MESSAGE_BYTES_MAX {
        return Err(ApiError::bad_request("message exceeds maximum length of 32768 bytes"));
    }
    if body.agent.is_empty() {
        "default".clone_into(&mut body.agent);
    }
    if sse { stream(ctx, call, caller, &body) } else { answer(ctx, caller, body) }
}

fn submit<'a>(body: &'a ChatBody, caller: &'a crate::chat::access::Caller) -> Submit<'a> {
    Submit {
        session_id: Some(body.session_id.as_str()).filter(|id| !id.is_empty()),
        agent: &body.agent,
        text: &body.message,
        user_name: &body.user_name,
        message_id: body.message_id.as_deref(),
        origin: "api",
        caller,
        work: Work::CHAT,
    }
}

/// JSON: the turn's thread answers; the connection waits without a worker.
fn answer(ctx: &Ctx, caller: &Identity, body: ChatBody) -> Result<Reply, ApiError> {
    let (own, caller, wait) = (ctx.clone(), caller.caller(), body.wait_secs);
    let message_id = body.message_id.clone();
    Ok(later(wait, message_id, move |ticket| own.deps.engine.submit(&submit(&body, &caller), Some(ticket))))
}

/// Submits a message and answers when its turn has ended; after `wait_secs`, or when it waits for a decision, with the
/// `message_id` under which the answer can be asked for again.
pub(super) fn later(
    wait_secs: Option<u32>,
    message_id: Option<String>,
    submit: impl FnOnce(Box<dyn Ticket>) -> Result<Submitted, ChatError> + Send + 'static,
) -> Reply {
    Reply::Later(Box::new(move |responder| {
        let wait = wait_secs.map(|seconds| Duration::from_secs(seconds.into()));
        let since = Instant::now();
        let slot = Arc::new(Mutex::new(JsonWait {
            responder: Some(responder),
            session_id: None,
            outcome: None,
            message_id,
            wait,
            since,
        }));
        let ticket = Box::new(JsonTicket(Arc::clone(&slot)));
        match submit(ticket) {
            Ok(submitted) => settle(&slot, |wait| wait.session_id = Some(submitted.session.stream().id().to_owned())),
            Err(error) => {
                if let Some(responder) = lock(&slot).responder.take() {
                    responder.respond(ApiError::from(error).into_response());
                }
            }
        }
    }))
}

/// The answer needs both: the session's id and the outcome, whichever is known first.
struct JsonWait {
    responder: Option<Responder>,
    session_id: Option<String>,
    outcome: Option<Outcome>,
    message_id: Option<String>,
    /// How long the client wants to wait; None for as long as it takes.
    wait: Option<Duration>,
    since: Instant,
}

impl JsonWait {
    /// Answers that the turn goes on; false when the answer was given.
    fn give_up(slot: &Mutex<Self>, status: &str, text: &str) -> bool {
        let (responder, session_id, message_id) = {
            let mut wait = lock(slot);
            // Between the start of the turn and what tells its session: asked again in a moment.
            let Some(session_id) = wait.session_id.clone() else { return true };
            (wait.responder.take(), session_id, wait.message_id.clone())
        };
        if let Some(responder) = responder {
            let mut shape = json!({"session_id": session_id, "status": status, "response": "", "message": text});
            if let Some(id) = message_id {
                shape["message_id"] = json!(id);
            }
            responder.respond(json_line(202, &shape));
        }
        false
    }
}

struct JsonTicket(Arc<Mutex<JsonWait>>);

impl Ticket for JsonTicket {
    fn started(&mut self, _after_seq: u64) {}

    /// Nobody listens to events here, so nobody may know that somebody has to decide.
    fn parked(&mut self, waited: Duration) -> bool {
        if waited < limits::JSON_PARKED_WAIT && lock(&self.0).wait.is_none() {
            return true;
        }
        let text = "the turn waits for a decision: see GET /api/v1/approvals?status=pending; its answer comes to the \
                    session";
        JsonWait::give_up(&self.0, "waiting_for_approval", text)
    }

    fn waits(&mut self) -> bool {
        let is_over = {
            let wait = lock(&self.0);
            wait.wait.is_some_and(|wait_max| wait.since.elapsed() >= wait_max)
        };
        !is_over || JsonWait::give_up(&self.0, "running", "the turn goes on; its answer comes to the session")
    }

    fn ended(&mut self, outcome: &Outcome) {
        settle(&self.0, |wait| wait.outcome = Some(outcome.clone()));
    }
}

fn settle(slot: &Mutex<JsonWait>, change: impl FnOnce(&mut JsonWait)) {
    let ready = {
        let mut wait = lock(slot);
        change(&mut wait);
        match (&wait.session_id, &wait.outcome) {
            (Some(session_id), Some(outcome)) => {
                let response = outcome_response(session_id, outcome);
                wait.responder.take().map(|responder| (responder, response))
            }
            _ => None,
        }
    };
    if let Some((responder, response)) = ready {
        responder.respond(response);
    }
}

/// 200, or the status that fits the turn's error code.
fn outcome_response(session_id: &str, outcome: &Outcome) -> Response {
    let Some((code, message)) = &outcome.error else {
        return json_line(200, &json!({"session_id": session_id, "response": outcome.text}));
    };
    let status = match *code {
        "cancelled" => 409,
        "interrupted" => 503,
        "rate_limited" | "provider_rate" => 429,
        "budget" | "provider_credit" => 402,
        "provider_timeout" => 504,
        "storage_full" => 507,
        code if code.starts_with("provider_") => 502,
        _ => 500,
    };
    json_line(status, &json!({"error": message, "code": code, "session_id": session_id}))
}

/// SSE: the stream follows the session from the turn's first frame.
fn stream(ctx: &Ctx, call: &Call<'_>, caller: &Identity, body: &ChatBody) -> Result<Reply, ApiError> {
    let progress = Arc::new(SseProgress::default());
    let ticket = Box::new(SseTicket(Arc::clone(&progress)));
    let chat_caller = caller.caller();
    // Before the message is accepted: who is told to try again must not find it done twice.
    let slot = sse_slot(ctx)?;
    let submitted = ctx.deps.engine.submit(&submit(body, &chat_caller), Some(ticket))?;
    progress.set_position(submitted.position.unwrap_or(0));
    Ok(Reply::Stream(Box::new(SseStart {
        slot,
        session: submitted.session,
        progress,
        resume: None,
        ids: wants_ids(call),
        chunked: !call.req.http10,
        credential: caller.credential.clone(),
        extra_headers: Vec::new(),
        shape: None,
    })))
}

struct SseTicket(Arc<SseProgress>);

impl Ticket for SseTicket {
    fn started(&mut self, after_seq: u64) {
        self.0.set_started(after_seq);
    }

    fn ended(&mut self, _outcome: &Outcome) {
        self.0.set_ended();
    }
}

/// Also when the turn never comes to its end: deleted while it waited.
impl Drop for SseTicket {
    fn drop(&mut self) {
        self.0.set_ended();
    }
}

fn sse_slot(ctx: &Ctx) -> Result<Slot, ApiError> {
    Slot::take(&ctx.sse_open, limits::SSE_STREAMS_MAX).ok_or_else(|| {
        ApiError::new(503, "busy", "too many event streams are open; try again").with_header("Retry-After", "5")
    })
}

/// One frame that says that there is nothing, as a whole event stream.
fn nothing_to_replay(ctx: &Ctx, session_id: &str) -> Response {
    let frame = json!({
        "type": "error", "code": "replay_unavailable", "session_id": session_id,
        "message": "replay buffer expired or empty", "epoch": ctx.deps.engine.streams().epoch,
        "oldest_seq": 0, "last_seq": 0,
    });
    let mut body = b"data: ".to_vec();
    body.extend_from_slice(&wire::to_vec(&frame));
    body.extend_from_slice(b"\n\n");
    response(200, "text/event-stream", body)
}

/// SSE without a message: what is kept after a number, then live until the terminal frame.
fn resume(ctx: &Ctx, call: &Call<'_>, caller: &Identity, body: &ChatBody, after: i64) -> Result<Reply, ApiError> {
    engine::check_session_id(&body.session_id)?;
    match ctx.deps.engine.conversations().owner(&body.session_id)? {
        Some(owner) if caller.caller().may_read(&owner) => {}
        Some(_) => return Err(ChatError::Denied.into()),
        // Unknown, or deleted: whatever the log may still hold is nobody's.
        None => return Ok(Reply::Full(nothing_to_replay(ctx, &body.session_id))),
    }
    let slot = sse_slot(ctx)?;
    let session = ctx.deps.engine.session(&body.session_id)?;
    Ok(Reply::Stream(Box::new(SseStart {
        slot,
        session,
        progress: Arc::new(SseProgress::default()),
        resume: Some(SseResume { after_seq: u64::try_from(after).unwrap_or(0), epoch: body.epoch.clone() }),
        ids: wants_ids(call),
        chunked: !call.req.http10,
        credential: caller.credential.clone(),
        extra_headers: Vec::new(),
        shape: None,
    })))
}

fn wants_ids(call: &Call<'_>) -> bool {
    call.req.query_param("ids").as_deref() == Some("1")
}
