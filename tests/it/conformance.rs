//! Each item of the conformance page (`holt::conformance`), named and used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holt::alert::{Event, Level, key_of};
use holt::api::{Deps, Server};
use holt::auth::scope::VALID_SCOPES;
use holt::auth::{Session, SessionManager, validate_key_input};
use holt::chat::ChatEvent;
use holt::chat::deliver::StreamSession;
use holt::chat::replay::{ReplayBuffer, ReplayStore, Since};
use holt::fleet::link::runner::{
    ChatHandle, ChatRunner, ChatSessionOpts, ConcurrencyLimiter, CountedLimiter, DiagnoseRunner, RunError,
    StreamCallback,
};
use holt::fleet::link::{Link, LinkError};
use holt::fleet::wire::Message;
use holt::fleet::{RingBuffer, ServerNotifier};
use holt::http::sse_session::SseStreamSession;
use holt::notify::Notifier;
use holt::rt::{Cancel, Headers};
use holt::store::logins::scopes_from_record;
use holt::store::{ApiKeyRecord, KeyStore, SessionRecord, SessionStore};
use holt::ws::frames::{
    self, ActivityFrame, ApprovalResponseFrame, CancelFrame, ChatRequestFrame, ClientFrame, PingFrame, PongFrame,
    WsClientFrame, WsErrorFrame, WsEventFrame, parse_client_frame,
};
use holt::ws::{Conn, Hub, WsStreamSession};
use serde_json::Value;

#[test]
fn frames() {
    for (constant, text) in [
        (frames::FRAME_TYPE_CHAT_REQUEST, "chat_request"),
        (frames::FRAME_TYPE_APPROVAL_RESPONSE, "approval_response"),
        (frames::FRAME_TYPE_CANCEL, "cancel"),
        (frames::FRAME_TYPE_PONG, "pong"),
        (frames::FRAME_TYPE_PING, "ping"),
        (frames::FRAME_TYPE_ERROR, "error"),
        (frames::FRAME_TYPE_ACTIVITY, "activity"),
    ] {
        assert_eq!(constant, text);
    }
    let parse = |text: &str| parse_client_frame(text.as_bytes()).unwrap();
    let chat: ChatRequestFrame = match parse(r#"{"type":"chat_request","message":"hi"}"#) {
        ClientFrame::ChatRequest(frame) => *frame,
        other => panic!("{other:?}"),
    };
    assert_eq!(chat.message, "hi");
    let decided = ApprovalResponseFrame { approval_id: "a".to_owned(), action: "approve".to_owned() };
    assert_eq!(
        parse(r#"{"type":"approval_response","approval_id":"a","action":"approve"}"#),
        ClientFrame::ApprovalResponse(decided)
    );
    assert_eq!(
        parse(r#"{"type":"cancel","session_id":"s"}"#),
        ClientFrame::Cancel(CancelFrame { session_id: "s".to_owned() })
    );
    assert_eq!(parse(r#"{"type":"ping"}"#), ClientFrame::Ping(PingFrame));
    assert_eq!(parse(r#"{"type":"pong"}"#), ClientFrame::Pong(PongFrame));
    let envelope: WsClientFrame = serde_json::from_str(r#"{"type":"x"}"#).unwrap();
    assert_eq!(envelope.kind, "x");
    let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let event = WsEventFrame { event: ChatEvent::Done, session_id: "s".to_owned(), seq: 3 };
    assert_eq!(json(event.encode())["seq"], 3);
    assert_eq!(json(WsErrorFrame { session_id: "s", code: "internal", message: "m" }.encode())["code"], "internal");
    let activity = ActivityFrame { conversation_id: "c", agent: "a", adapter: "api" };
    assert_eq!(json(activity.encode())["type"], "activity");
}

#[test]
fn sockets_and_replay() {
    // A connection is made by an upgrade: `ws_protocol` opens thousands. Here: that the ways exist.
    let _: fn(&Hub, &Arc<Conn>) -> bool = Hub::register;
    let _: fn(&Hub, &Conn) = Hub::unregister;
    let _: fn(&Hub, &[u8]) = Hub::broadcast;
    let _: fn(&Hub) -> usize = Hub::conn_count;
    let _: fn(&Hub, Duration) -> Vec<String> = Hub::shutdown;
    let _: fn(&Hub) = Hub::cleanup;
    let _ = |conn: &Conn| WsStreamSession::new(conn, "s").send_event(&ChatEvent::Done);

    let buffer = ReplayBuffer::new(1024);
    assert!(buffer.is_empty());
    let _: fn(&ReplayBuffer) -> u64 = ReplayBuffer::len;
    let _: fn(&ReplayBuffer, Arc<holt::store::log::Run>) -> Option<isize> = ReplayBuffer::append;
    let _: fn(&ReplayBuffer, u64, usize) -> Since = ReplayBuffer::replay_since;
    let store = ReplayStore::new(Duration::from_secs(60));
    let _kept = store.buffer("s");
    assert_eq!(store.len(), 1);
    store.cleanup();
    store.remove("s");
    assert_eq!(store.len(), 0);

    let mut out = Vec::new();
    let mut session = SseStreamSession::new(&mut out, "s");
    session.send_event(&ChatEvent::Thinking { round: 0 }).unwrap();
    session.send_content("hi").unwrap();
    session.send_done().unwrap();
    session.send_error("internal", "m").unwrap();
    assert_eq!(String::from_utf8(out).unwrap().matches("data: ").count(), 4);
}

#[test]
fn keys_and_scopes() {
    let scopes = vec!["chat".to_owned()];
    assert!(VALID_SCOPES.contains(&"chat"));
    assert!(validate_key_input("k", &scopes).is_ok() && validate_key_input("", &scopes).is_err());
    let _: fn(Arc<holt::store::Db>) -> KeyStore = KeyStore::new;
    let keys = KeyStore::in_memory().unwrap();
    assert!(!keys.has_active_key().unwrap());
    let (made, plain): (ApiKeyRecord, String) = keys.create("k", &scopes).unwrap();
    let hash = holt::store::keys::hash_key(&plain);
    assert_eq!(keys.find_active_by_hash(&hash).unwrap().unwrap().id, made.id);
    keys.touch_last_used(&made.id);
    let (next, _) = keys.rotate(&made.id).unwrap();
    assert!(keys.has_active_key().unwrap());
    keys.revoke(&next.id).unwrap();
    keys.delete(&next.id).unwrap();
    assert_eq!(keys.list().unwrap().len(), 1);
}

#[test]
fn logins() {
    let scopes = vec!["chat".to_owned()];
    let _: fn(Arc<holt::store::Db>) -> SessionStore = SessionStore::new;
    let store = Arc::new(SessionStore::in_memory().unwrap());
    let later = holt::rt::clock::unix_ms() + 60_000;
    let id = store.create("a@b", &scopes, "agent", "ip", later).unwrap();
    let record: SessionRecord = store.get(&id).unwrap().unwrap();
    assert_eq!(scopes_from_record(&record), scopes);
    store.touch(&id);
    assert_eq!((store.list_by_email("a@b").unwrap().len(), store.count().unwrap()), (1, 1));
    assert_eq!(store.purge_expired().unwrap(), 0);
    store.delete(&id).unwrap();
    let manager = SessionManager::new(&"ab".repeat(32), Some(Arc::clone(&store)), 60, false).unwrap();
    let cookie = manager.create_with_request("a@b", &scopes, "agent", "ip").unwrap();
    let shown = cookie.split(';').next().unwrap().to_owned();
    let session: Session = manager.read(&Headers::from_pairs(&[("Cookie", &shown)])).unwrap().unwrap();
    assert_eq!((session.email.as_str(), manager.store.is_some()), ("a@b", true));
    assert!(manager.create("a@b", &scopes).unwrap().starts_with("dk_session="));
    assert!(manager.clear().contains("Max-Age=0"));
    assert_eq!(store.delete_all_by_email("a@b").unwrap(), 1);
    store.close().unwrap();
}

#[test]
fn the_server_and_what_it_needs() {
    let _: fn(Deps) -> std::io::Result<Server> = Server::new;
    let _: fn(&Server, &holt::api::message::Req) -> holt::api::message::Reply = Server::http_handler;
    let _ = |server: &Server, req: &holt::api::message::Req| server.require_scope(req, "chat").is_ok();
    let _: fn(&holt::app::App) -> &Arc<Hub> = holt::app::App::ws_hub;
    let _ = |deps: &Deps| {
        let _ = (&deps.key_store, &deps.sessions, &deps.password_hash, &deps.web_handler, &deps.settings);
        let _ = (&deps.engine, &deps.cost_tracker, &deps.approvals, &deps.lifecycle, &deps.kv_store);
        let _ = (&deps.model_lister, &deps.model_detail_lister);
    };
    let _: fn(Arc<holt::store::Db>) -> holt::auth::setup::Setup = holt::auth::setup::Setup::new;
    let mut page = holt::metrics::Page::default();
    holt::metrics::render(&mut page);
    assert!(page.finish().contains("# TYPE holt_messages_total counter"));
}

#[test]
fn logins_through_a_provider() {
    use holt::auth::oidc::{Callback, LoggedIn, LoginBegun, OidcError, OidcProvider};
    let _ = OidcProvider::new;
    let _: fn(&OidcProvider, &Cancel) -> Result<LoginBegun, OidcError> = OidcProvider::handle_login;
    let _: fn(&OidcProvider, &Callback, &Cancel) -> Result<LoggedIn, OidcError> = OidcProvider::handle_callback;
    let _ = |deps: &Deps| deps.oidc_provider.is_some();
    let _ = |deps: &holt::mcp::oauth::OAuthDeps| {
        let _: &Arc<holt::mcp::oauth::TokenStore> = &deps.token_store;
        let _: &Arc<holt::mcp::oauth::PendingMgr> = &deps.pending_mgr;
    };
    let _ = |deps: &Deps| deps.browser.as_ref().map(|browser| browser.profiles().is_ok());
    let _ = |deps: &Deps| (deps.oauth.is_some(), deps.scheduler.as_ref().map(|scheduler| scheduler.list().len()));
    let _ = |deps: &Deps| deps.settings.reload().is_ok();
    let _ = |server: &Server| server.ctx().restart.get().is_some();
}

struct Nobody;

impl ChatRunner for Nobody {
    fn new_session(
        &self,
        opts: ChatSessionOpts,
        _callback: &mut StreamCallback<'_>,
        _cancel: &Cancel,
    ) -> Result<Box<dyn ChatHandle>, RunError> {
        assert!(opts.history.is_empty());
        Ok(Box::new(Self))
    }
}

impl ChatHandle for Nobody {
    fn handle_message(&mut self, input: &str, _: &mut StreamCallback<'_>, _: &Cancel) -> Result<String, RunError> {
        Ok(input.to_owned())
    }
}

impl DiagnoseRunner for Nobody {
    fn run_streaming(
        &self,
        mode: &str,
        _plugin: &str,
        _target: &str,
        _params: &serde_json::Map<String, Value>,
        _callback: &mut StreamCallback<'_>,
        _cancel: &Cancel,
    ) -> Result<String, RunError> {
        Ok(mode.to_owned())
    }
}

#[test]
fn the_machine_link() {
    let labels: BTreeMap<String, String> = [("check".to_owned(), "disk".to_owned())].into();
    let event = Event {
        time: 1,
        level: Level::Warning,
        key: key_of(&labels),
        labels,
        attrs: BTreeMap::new(),
        description: String::new(),
        format: String::new(),
    };
    let ring = RingBuffer::new(1);
    assert!(ring.push(event.clone()).is_none() && ring.len() == 1);
    assert!(ring.push(event).is_some(), "the oldest makes room");
    assert_eq!(ring.drain(9).len(), 1);

    let _: fn(&Link, &Event) -> bool = Link::send_alert_event;
    let _: fn(&Link) -> Result<(), LinkError> = Link::run;
    let _: fn(&Link) = Link::run_forever;
    let _: fn(&Link, Arc<dyn ChatRunner>) = Link::set_chat_runner;
    let _: fn(&Link, Arc<dyn DiagnoseRunner>) = Link::set_diagnose_runner;
    let _: fn(&Link, Arc<dyn ConcurrencyLimiter>) = Link::set_concurrency_limiter;
    let _ = |link: &Link, event: &Event| {
        let notifier = ServerNotifier::new(link);
        (notifier.name().to_owned(), notifier.forward(event))
    };
    let _ = |_: &holt::fleet::link::Conn<'_>| ();
    let message: Message = serde_json::from_str(r#"{"type":"ping","id":"a"}"#).unwrap();
    assert_eq!(message.id, "a");

    let limiter = CountedLimiter::new(1);
    assert!(limiter.try_sem() && !limiter.try_sem());
    limiter.release_sem();
    assert!(limiter.try_sem());
    let (mut heard, cancel) = (|_: &str, _: holt::fleet::link::runner::Stage, _: _| (), Cancel::new());
    let mut chat = Nobody.new_session(ChatSessionOpts::default(), &mut heard, &cancel).unwrap();
    assert_eq!(chat.handle_message("hi", &mut heard, &cancel).unwrap(), "hi");
    let params = serde_json::Map::new();
    assert_eq!(Nobody.run_streaming("inspect", "", "", &params, &mut heard, &cancel).unwrap(), "inspect");
}
