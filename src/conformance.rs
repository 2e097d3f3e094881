//! Every exported item of the two packages that Holt follows, and its place here. Documentation only; a test
//! (`tests/it/conformance.rs`) names and uses each item, so that this page stays true.
//!
//! Names are in Rust's style. What were globals of the second package are fields of one [`Link`](crate::fleet::link::Link).
//!
//! # `api`
//!
//! | item | in Holt |
//! | --- | --- |
//! | `FrameTypeChatRequest`, `FrameTypeApprovalResponse`, `FrameTypeCancel`, `FrameTypePong`, `FrameTypePing`, `FrameTypeError`, `FrameTypeActivity` | [`FRAME_TYPE_CHAT_REQUEST`](crate::ws::frames::FRAME_TYPE_CHAT_REQUEST) and the other constants of [`ws::frames`](crate::ws::frames) |
//! | `ParseClientFrame` | [`parse_client_frame`](crate::ws::frames::parse_client_frame) |
//! | `WSClientFrame` | [`WsClientFrame`](crate::ws::frames::WsClientFrame) |
//! | `ChatRequestFrame`, `ApprovalResponseFrame`, `CancelFrame`, `PongFrame`, `PingFrame` | [`ChatRequestFrame`](crate::ws::frames::ChatRequestFrame), [`ApprovalResponseFrame`](crate::ws::frames::ApprovalResponseFrame), [`CancelFrame`](crate::ws::frames::CancelFrame), [`PongFrame`](crate::ws::frames::PongFrame), [`PingFrame`](crate::ws::frames::PingFrame) |
//! | `WSEventFrame`, `WSErrorFrame`, `ActivityFrame` | [`WsEventFrame`](crate::ws::frames::WsEventFrame), [`WsErrorFrame`](crate::ws::frames::WsErrorFrame), [`ActivityFrame`](crate::ws::frames::ActivityFrame) |
//! | `WSConn` | [`ws::Conn`](crate::ws::Conn) |
//! | `WSHub`: `Register`, `Unregister`, `Broadcast`, `ConnCount`, `Shutdown`, `StartCleanup` | [`ws::Hub`](crate::ws::Hub): `register`, `unregister`, `broadcast`, `conn_count`, `shutdown`; `cleanup` is called by the keeper |
//! | `ReplayBuffer`: `NewReplayBuffer`, `Append`, `Len`, `ReplaySince` | [`ReplayBuffer`](crate::chat::replay::ReplayBuffer): `new`, `append`, `len`, `replay_since` |
//! | `ReplayStore`: `NewReplayStore`, `Buffer`, `Cleanup`, `Len`, `Remove` | [`ReplayStore`](crate::chat::replay::ReplayStore): `new`, `buffer`, `cleanup`, `len`, `remove` |
//! | `StreamSession`: `SendEvent`, `SendContent`, `SendDone`, `SendError` | [`StreamSession`](crate::chat::deliver::StreamSession); to one socket [`WsStreamSession`](crate::ws::WsStreamSession) |
//! | `SSEStreamSession`, `NewSSEStreamSession` | [`SseStreamSession`](crate::http::sse_session::SseStreamSession) |
//! | `APIKeyRecord` | [`ApiKeyRecord`](crate::store::ApiKeyRecord) |
//! | `KeyStore`: `NewKeyStore`, `NewInMemoryKeyStore`, `Create`, `List`, `FindActiveByHash`, `TouchLastUsed`, `Revoke`, `HasActiveKey`, `Delete`, `Rotate` | [`KeyStore`](crate::store::KeyStore): `new`, `in_memory`, `create`, `list`, `find_active_by_hash`, `touch_last_used`, `revoke`, `has_active_key`, `delete`, `rotate` |
//! | `ValidScopes`, `ValidateKeyInput` | [`VALID_SCOPES`](crate::auth::scope::VALID_SCOPES), [`validate_key_input`](crate::auth::validate_key_input) |
//! | `Session`, `SessionManager`: `NewSessionManager`, `Create`, `CreateWithRequest`, `Read`, `Clear`, `Store` | [`Session`](crate::auth::Session), [`SessionManager`](crate::auth::SessionManager): `new`, `create`, `create_with_request`, `read`, `clear`, field `store` |
//! | `SessionRecord`, `ScopesFromRecord` | [`SessionRecord`](crate::store::SessionRecord), [`scopes_from_record`](crate::store::logins::scopes_from_record) |
//! | `SessionStore`: `NewSessionStore`, `NewInMemorySessionStore`, `Create`, `Get`, `ListByEmail`, `Delete`, `DeleteAllByEmail`, `Touch`, `PurgeExpired`, `Count`, `Close` | [`SessionStore`](crate::store::SessionStore): `new`, `in_memory`, `create`, `get`, `list_by_email`, `delete`, `delete_all_by_email`, `touch`, `purge_expired`, `count`, `close` |
//! | `Server`: `New`, `HTTPHandler`, `Run`, `RequireScope`, `WSHub` | [`api::Server`](crate::api::Server): `new`, `http_handler` (serves a request without a socket), `require_scope`; running it and its WebSockets are matters of [`App`](crate::app::App): `start`, `ws_hub` |
//! | `Deps` | [`api::Deps`](crate::api::Deps); where a field is `None` its routes answer 503 |
//! | `Deps`: `KeyStore`, `Sessions`, `PasswordHash`, `WebHandler`, `ConfigPath`, `Config` | `key_store`, `sessions`, `password_hash`, `web_handler`, `settings`, `settings` |
//! | `Deps`: `SetupPIN` | [`Setup`](crate::auth::setup::Setup): the PIN is a row, so that it outlives a restart |
//! | `Deps`: `Memory`, `Dispatcher` | `engine`: [`Engine`](crate::chat::Engine) runs turns and holds the conversations |
//! | `Deps`: `CostTracker`, `Approvals`, `LifecycleMgr`, `KVStore`, `ModelLister`, `ModelDetailLister` | `cost_tracker`, `approvals`, `lifecycle`, `kv_store`, `model_lister`, `model_detail_lister` |
//! | `Deps`: `OIDCProvider`; `OIDCProvider`: `NewOIDCProvider`, `HandleLogin`, `HandleCallback` | `oidc_provider`; [`OidcProvider`](crate::auth::oidc::OidcProvider): `new`, `handle_login`, `handle_callback` |
//! | `Deps`: `OAuthDeps`; `OAuthDeps`: `TokenStore`, `PendingMgr` | `oauth`; [`OAuthDeps`](crate::mcp::oauth::OAuthDeps): [`TokenStore`](crate::mcp::oauth::TokenStore), [`PendingMgr`](crate::mcp::oauth::PendingMgr) |
//! | `Deps`: `BrowserProfiles` | `browser`: [`Browser`](crate::tools::plugins::Browser) |
//! | `Deps`: `Scheduler` | `scheduler`: [`Scheduler`](crate::sched::Scheduler) |
//! | `Deps`: `ReloadFunc`, `RestartFunc` | [`Settings::reload`](crate::api::settings::Settings::reload); `restart` of [`CtxInner`](crate::api::server::CtxInner), set by the composition root |
//! | `Deps`: `MetricsHandler` | [`metrics`](crate::metrics), shown when `[otel] enabled` says so |
//!
//! # `server`
//!
//! | item | in Holt |
//! | --- | --- |
//! | `RingBuffer`: `NewRingBuffer`, `Push`, `Drain`, `Len` | [`RingBuffer`](crate::fleet::RingBuffer): `new`, `push`, `drain`, `len` |
//! | `InitAlertBuffer`, `SendAlertEvent` | [`Link::new`](crate::fleet::link::Link::new), [`Link::send_alert_event`](crate::fleet::link::Link::send_alert_event): the buffer is a file, so that events outlive the process |
//! | `NewServerNotifier`, `ServerNotifier`: `Forward`, `Name` | [`Notifier`](crate::notify::Notifier), [`ServerNotifier`](crate::fleet::ServerNotifier) |
//! | `Run`, `RunForever` | [`Link::run`](crate::fleet::link::Link::run), [`Link::run_forever`](crate::fleet::link::Link::run_forever) |
//! | `Conn`, `Message` | [`link::Conn`](crate::fleet::link::Conn), [`wire::Message`](crate::fleet::wire::Message) |
//! | `SetChatRunner`, `ChatRunner`: `NewSession`, `ChatHandle`: `HandleMessage`, `ChatSessionOpts` | [`Link::set_chat_runner`](crate::fleet::link::Link::set_chat_runner), [`ChatRunner`](crate::fleet::link::runner::ChatRunner), [`ChatHandle`](crate::fleet::link::runner::ChatHandle), [`ChatSessionOpts`](crate::fleet::link::runner::ChatSessionOpts); `allow_shell` is accepted and ignored: no shell exists |
//! | `SetDiagnoseRunner`, `DiagnoseRunner`: `RunStreaming`, `StreamCallback` | [`Link::set_diagnose_runner`](crate::fleet::link::Link::set_diagnose_runner), [`DiagnoseRunner`](crate::fleet::link::runner::DiagnoseRunner), [`StreamCallback`](crate::fleet::link::runner::StreamCallback) |
//! | `SetConcurrencyLimiter`, `ConcurrencyLimiter`: `TrySem`, `ReleaseSem` | [`Link::set_concurrency_limiter`](crate::fleet::link::Link::set_concurrency_limiter), [`ConcurrencyLimiter`](crate::fleet::link::runner::ConcurrencyLimiter), and [`CountedLimiter`](crate::fleet::link::runner::CountedLimiter) unless another is set |
