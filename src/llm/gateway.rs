//! The hub as a provider (contract agent-link 5): machines ask the hub's models through it and need no key of their
//! own. One endpoint, no streaming, no list of models.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use serde_json::{Map, Value, json};

use super::endpoint::{ANSWER_BYTES_MAX, decode};
use super::wire_error::message_of_body;
use super::{Completion, LlmError, Message, Provider, Request, Role, Sink, ToolCall, Usage, cut_note, made_up_id};
use crate::net::{Call, HttpClient, NetError, Timeouts};
use crate::rt::Cancel;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait before the first retry; doubles with each.
const RETRY_WAIT: Duration = Duration::from_secs(2);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);
/// More calls than this in one answer are an error of the model.
const TOOL_CALLS_MAX: usize = 256;

/// Gives the credential of the moment: the hub may replace it.
pub type TokenSource = Arc<dyn Fn() -> String + Send + Sync>;

/// Where the gateway is and how patiently it is asked.
pub struct GatewaySettings {
    /// Without a slash at its end; may carry a user.
    pub base: String,
    pub agent_id: String,
    pub token: TokenSource,
    /// Certificates beside the Mozilla roots.
    pub ca_file: Option<std::path::PathBuf>,
    /// One attempt, body included; told to the hub, which answers before it runs out.
    pub timeout: Duration,
    /// 0 means that every call is made once.
    pub max_retries: u32,
}

/// What a call is for (contract agent-link 5.2). Empty parts are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayScene<'a> {
    /// `diagnose` or `chat`.
    pub name: &'a str,
    pub diagnose_id: &'a str,
    pub plugin: &'a str,
    pub target: &'a str,
    /// `diagnose`, `remote_chat` or `local_chat`.
    pub source: &'a str,
    pub session_id: &'a str,
}

/// Calls one hub.
pub struct Gateway {
    url: String,
    agent_id: String,
    token: TokenSource,
    timeout: Duration,
    max_retries: u32,
    client: HttpClient,
    /// Used when the peer's certificate is not from a public authority.
    private: Option<HttpClient>,
}

impl Gateway {
    /// A gateway; connects to nothing. Fails when the certificates cannot be used.
    pub fn new(settings: GatewaySettings) -> Result<Self, LlmError> {
        let timeouts = Timeouts {
            connect: CONNECT_TIMEOUT.min(settings.timeout),
            first_byte: settings.timeout,
            idle: settings.timeout,
            total: Some(settings.timeout),
        };
        let private = settings.ca_file.as_deref().map(|path| with_certificates(path, timeouts)).transpose()?;
        Ok(Self {
            url: format!("{}/chat", settings.base),
            agent_id: settings.agent_id,
            token: settings.token,
            timeout: settings.timeout,
            max_retries: settings.max_retries,
            client: HttpClient::new(timeouts),
            private,
        })
    }

    /// Makes one call, with its retries. Blocks until it is answered, failed or cancelled. `request.model` and
    /// `request.stream` mean nothing: the hub chooses the model.
    pub fn ask(
        &self,
        scene: &GatewayScene<'_>,
        request: &Request<'_>,
        cancel: &Cancel,
    ) -> Result<Completion, LlmError> {
        let body = serde_json::to_vec(&body_of(scene, request, self.timeout))
            .map_err(|error| decode(format!("make the request: {error}")))?;
        let mut attempt = 0;
        loop {
            let error = match self.attempt(scene, &body, cancel) {
                Ok(completion) => return Ok(completion),
                Err(error) if attempt >= self.max_retries || !is_retried(&error) => return Err(error),
                Err(error) => error,
            };
            log::debug!("the hub's gateway: {error}; trying again");
            let asked = match &error {
                LlmError::Status { retry_after, .. } => *retry_after,
                _ => None,
            };
            let wait = asked.unwrap_or(jitter(RETRY_WAIT * 2_u32.saturating_pow(attempt))).min(RETRY_WAIT_MAX);
            attempt += 1;
            pause(wait, cancel)?;
        }
    }

    fn attempt(&self, scene: &GatewayScene<'_>, body: &[u8], cancel: &Cancel) -> Result<Completion, LlmError> {
        match (self.send(&self.client, scene, body, cancel), &self.private) {
            // Nothing was sent yet: TLS comes first.
            (Err(LlmError::Connect { cause }), Some(private)) if cause.contains("certificate") => {
                self.send(private, scene, body, cancel)
            }
            (result, _) => result,
        }
    }

    fn send(
        &self,
        client: &HttpClient,
        scene: &GatewayScene<'_>,
        body: &[u8],
        cancel: &Cancel,
    ) -> Result<Completion, LlmError> {
        let token = (self.token)();
        let mut call = Call::post(&self.url, body)
            .header("accept", "application/json")
            .header("x-agent-id", &self.agent_id)
            .header("x-agent-scene", scene.name);
        if !token.is_empty() {
            call = call.header("x-agent-token", &token);
        }
        let mut answer = client.send(&call, cancel)?;
        let (status, retry_after) = (answer.status(), answer.retry_after());
        let body = match answer.body(ANSWER_BYTES_MAX) {
            Ok(body) => body,
            Err(NetError::Cancelled) => return Err(LlmError::Cancelled),
            // The status says more than the end of its explanation.
            Err(_) if status != 200 => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if status != 200 {
            let message = message_of_body(&body).replace(token.as_str(), if token.is_empty() { "" } else { "[token]" });
            return Err(LlmError::Status { status, message, retry_after });
        }
        completion_of(&body)
    }
}

/// As a provider among others; its scene is that of a local chat.
impl Provider for Gateway {
    fn name(&self) -> &'static str {
        "gateway"
    }

    /// The hub keeps the accounts.
    fn is_free(&self) -> bool {
        true
    }

    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        let scene = GatewayScene { name: "chat", source: "local_chat", ..GatewayScene::default() };
        let completion = self.ask(&scene, &request, cancel)?;
        if request.stream {
            sink.text(&completion.text);
        }
        Ok(completion)
    }

    /// The hub chooses.
    fn models(&self, _cancel: &Cancel) -> Result<Vec<String>, LlmError> {
        Ok(Vec::new())
    }
}

fn with_certificates(path: &Path, timeouts: Timeouts) -> Result<HttpClient, LlmError> {
    let bad = |cause: String| LlmError::Config { cause: format!("ca_file {}: {cause}", path.display()) };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    Ok(HttpClient::new(timeouts).with_certificates(&pem).map_err(|error| bad(error.to_string()))?.without_reuse())
}

/// The body of contract agent-link 5.2.
fn body_of(scene: &GatewayScene<'_>, request: &Request<'_>, timeout: Duration) -> Value {
    let mut metadata = Map::new();
    for (name, value) in [
        ("diagnose_id", scene.diagnose_id),
        ("plugin", scene.plugin),
        ("target", scene.target),
        ("request_source", scene.source),
        ("session_id", scene.session_id),
    ] {
        if !value.is_empty() {
            metadata.insert(name.to_owned(), json!(value));
        }
    }
    let tools = request.tools.iter().map(|tool| {
        let (name, description, parameters) = (&tool.name, &tool.description, &tool.parameters);
        json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
    });
    let mut body = json!({
        "messages": request.messages.iter().map(message).collect::<Vec<_>>(),
        "timeout_ms": u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        "metadata": metadata,
    });
    if !request.tools.is_empty() {
        body["tools"] = tools.collect();
    }
    body
}

fn message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut wire = json!({"role": role, "content": message.content});
    if let Some(id) = &message.tool_call_id {
        wire["tool_call_id"] = json!(id);
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let arguments = if call.arguments.is_empty() { "{}" } else { &call.arguments };
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        });
        wire["tool_calls"] = calls.collect();
    }
    wire
}

/// Reads `data` of contract agent-link 5.3.
fn completion_of(body: &[u8]) -> Result<Completion, LlmError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| decode(format!("JSON: {error}")))?;
    let message = value.pointer("/data/message").ok_or_else(|| decode("the hub's answer holds no message"))?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let calls = message.get("tool_calls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if calls.len() > TOOL_CALLS_MAX {
        return Err(decode("the answer asks for too many tools at once"));
    }
    let tool_calls = calls
        .iter()
        .map(|call| {
            let id = text(call.get("id"));
            let arguments = match call.pointer("/function/arguments") {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(object) => object.to_string(),
            };
            let name = text(call.pointer("/function/name"));
            ToolCall { id: if id.is_empty() { made_up_id() } else { id }, name, arguments }
        })
        .filter(|call| !call.name.is_empty())
        .collect::<Vec<_>>();
    let mut content = text(message.get("content"));
    let is_cut = value.pointer("/data/finish_reason").and_then(Value::as_str) == Some("length");
    // A hub of ours says so itself.
    if is_cut && !content.trim_end().ends_with(']') {
        content.push_str(&cut_note(None));
    }
    let tokens = |name: &str| value.pointer(&format!("/data/usage/{name}")).and_then(Value::as_u64).unwrap_or(0);
    let usage =
        Usage { input_tokens: tokens("prompt_tokens"), output_tokens: tokens("completion_tokens"), ..Usage::default() };
    Ok(Completion { text: content, tool_calls, usage, model: text(value.pointer("/data/model")) })
}

/// Contract agent-link 5.3: what may go better a moment later.
fn is_retried(error: &LlmError) -> bool {
    match error {
        LlmError::Status { status, .. } => matches!(status, 429 | 500 | 502 | 503 | 504),
        LlmError::Connect { .. } | LlmError::Timeout { .. } | LlmError::Cut { .. } | LlmError::Decode { .. } => true,
        LlmError::Cancelled | LlmError::TooLarge { .. } | LlmError::Config { .. } | LlmError::Budget { .. } => false,
    }
}

fn jitter(wait: Duration) -> Duration {
    let mut random = [0_u8; 2];
    // Without randomness all machines wait alike, which only costs the hub a busy moment.
    let _ = getrandom::fill(&mut random);
    wait.mul_f64(0.75 + 0.5 * f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
}

/// Waits; ends early when cancelled.
fn pause(wait: Duration, cancel: &Cancel) -> Result<(), LlmError> {
    let (tx, rx) = bounded::<()>(1);
    cancel.set_hook(move || {
        // Full means that it was cancelled before.
        let _ = tx.try_send(());
    });
    let cancelled = rx.recv_timeout(wait).is_ok();
    cancel.clear_hook();
    if cancelled || cancel.is_set() { Err(LlmError::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
