//! Holt keeps a household's or an edge site's AI agents and machines in one place: one small binary, no async runtime,
//! made to run for years on a Raspberry Pi, a NAS or a mini-PC. This page is the map; `README.md` is for users.
//!
//! # Bird's eye
//!
//! ```text
//!  clients ── http-poll ── bounded queue ──▶ http-work-N ── api ──▶ Full / Later / Stream / Upgrade
//!               (assembles whole requests)                              │        │        │
//!                                                              turn-N answers  sse-write  ws-read + ws-write
//!                                                                       │        ▲        ▲
//!  chat::engine ── turn-N ── llm / tools                                │        │  cursor into
//!       │             │ emit                                            │        │  ring, else log
//!       ▼             ▼                                                 │        │
//!   holt.db      pending frames ──▶ store-log ── commit events.db ── publish ────┴────────┘
//! ```
//!
//! A message is a row before anything runs. A turn belongs to its conversation, not to a connection: its events are
//! numbered, logged, and only then seen; whoever may read the conversation follows it from any number, at any pace,
//! also after a restart.
//!
//! # Rooms, from the top down
//!
//! A room uses those beside and below it, never those above (`tests/tidy.rs` checks).
//!
//! | room | what it owns |
//! | --- | --- |
//! | [`cli`] | the commands; the only place that prints |
//! | [`app`] | how the parts are put together, started and stopped |
//! | [`http`], [`ws`], [`web`] | connections and limits; the two pumps of a WebSocket; the page |
//! | [`api`] | the one table of routes, guards, handlers, the one mapping from errors to statuses |
//! | [`auth`], [`chat`], [`agents`], [`tools`], [`diag`], [`checks`], [`notify`], [`fleet`], [`costs`], [`audit`], [`moving`], [`sched`] | who asks; turns and streams; who answers; what agents can do; what they know of the host; what is wrong with it; telling people; machines and the link to them; what it costs; who did what; moving in, backups, whether all is well; what happens by itself |
//! | [`llm`], [`mcp`], [`store`] | model providers; tool servers; the two database files |
//! | [`net`], [`tls`] | outbound HTTP: time-outs, cancelling, which addresses may be reached; certificates, and sockets that are plain or TLS |
//! | [`alert`], [`rt`], [`config`], [`limits`], [`metrics`], [`sys`] | events of checks; stop, threads, locks, JSON; settings; every number with its reason; figures for monitoring; the only unsafe code |
//!
//! # Where to look
//!
//! | behaviour | place |
//! | --- | --- |
//! | a limit and its status | [`limits`], `http::head`, `http::body`, `http::poll` |
//! | who may call a route | [`api::routes::ROUTES`], `api::guard` |
//! | the order of a turn's events | `chat::turn`, [`chat::event`] |
//! | numbering, replay, slow clients | [`chat::stream`], [`chat::replay`], `ws::write_pump`, [`http::sse`] |
//! | what a restart does | `chat::interrupted`, `chat::parking`, [`chat::Engine::recover`] |
//! | what a tool call needs, and who is asked | `chat::round`, [`chat::approvals`], [`store::rules`] |
//! | how calls are made, together and bounded | `chat::execute` |
//! | a turn that waits for a decision | `chat::parking`, [`store::parked`] |
//! | the off switch | `chat::panic` |
//! | a question to the built-in agent | [`llm::local`], [`diag`] |
//! | causes of trouble, by evidence and without a model | [`llm::local::Diagnostician`] |
//! | what a remote session does on its machine | [`fleet::runner`] |
//! | a tool server's life; its wire | [`tools::servers`]; [`mcp`] |
//! | a login at a tool server; its token | `tools::servers::login`; [`mcp::oauth`] |
//! | logging in through an identity provider; signed tokens | [`auth::oidc`]; [`auth::jwt`] |
//! | what becomes of an event, and who hears of it | `store::alerts`, [`fleet::hub::alerts`] |
//! | models for machines; large bodies | [`fleet::hub::gateway`]; `api::routes::Large` |
//! | a socket that is TLS; a new certificate without a restart | [`tls::Transport`]; [`tls::Acceptor`] |
//! | which addresses may be reached, and for whom | [`net::guard`], [`net::address`] |
//! | what a check is; which there are | [`checks::plugin`]; `checks::registry` |
//! | when people are told of a check, again, and of its end | `checks::ledger` |
//! | a machine's connection, from upgrade to end | `api::agent_link`, `ws::agent`, [`fleet::hub::Arrival`] |
//! | who is down, and who is told | `fleet::hub::presence`, `fleet::hub::upkeep` |
//! | a turn on a machine | `chat::remote`, `fleet::hub::run` |
//! | a message of the machine link; the hub's side of it; the agent's | [`fleet::wire`]; [`fleet::hub`], `ws::agent`; [`fleet::link`] |
//! | who may do what on a machine | `fleet::hub::access`; a turn that runs there: `chat::remote`, [`agents::remote`] |
//! | what a machine answers, with and without a model | [`fleet::runner`], [`llm::local`] |
//! | what is measured and when it counts as wrong | [`checks`]; a plugin is a file |
//! | an alert's life, storms, silences; who is told, and how | `fleet::hub::alerts`, [`store::alerts`]; [`notify`] |
//! | what is recorded of logins, keys and changes | [`audit`], [`store::audit`] |
//! | what a route takes and answers | `api/openapi/routes.txt` |
//! | the hub as a tool server | `api::mcp`, `api::mcp_tools` |
//! | where an item of the packages that Holt follows is | [`conformance`] |
//! | a figure for monitoring | [`metrics`]; `api::metrics` |
//! | when a schedule is due; what becomes of each moment, also when clocks are set | `sched::next`; [`sched`], [`store::schedule_runs`] |
//! | a setting | [`config`]; its key in `config::raw` |
//! | a setting that changes while the hub runs | [`api::settings`], `app::live`; which count at once: `LIVE` there |
//! | agents made, renamed, removed | `api::agents_change`, `chat::agents` |
//! | a restart that loses no request | `app::again`, `http::poll` |
//!
//! # Invariants
//!
//! - No frame is sent before it is in the log. `kill -9` loses no frame that any client ever received.
//! - A sequence number is never given twice under one epoch; the only gap names itself (`prev_seq`).
//! - One turn at a time per conversation; a turn ends with exactly one terminal frame.
//! - A request for approval is a row before its event exists, and is decided once. A turn that waits for one is rows and a
//!   place in its session: no thread, no slot, and no end at a restart.
//! - No call of a model is made before its cost is reserved, none is forgotten after it.
//! - One thread writes a socket. No worker waits for a client. No lock is held over I/O, but the writers' own.
//! - Every queue is bounded and says what happens when it is full; every thread has a name, an owner and an end.
//! - Secrets are in no log, no URL that Holt makes, no error and no event. The setup PIN is printed on purpose.
//!
//! # Decisions
//!
//! *2026-11-22, a cursor instead of a queue per follower.* A follower could have a queue of frames, marked lagging when
//! full; or a cursor and a bell. The cursor has no second path: a slow client is simply behind, and reads from the ring
//! or the log when it can. The cost is one lookup in the ring per batch.
//!
//! *2026-11-22, frames are stored as they are sent.* A row of the log and an entry of a ring hold whole WebSocket
//! frames, so that a replay is a copy. The cost: an SSE stream walks the frame headers to find the JSON.
//!
//! *2026-11-22, workers park connections themselves.* Handing a served connection back to the poller by message would
//! wake it for every answer. Instead the worker puts it into its slot and arms the socket, under the slot's lock.
//!
//! *2026-11-22, a round waits as a whole.* Of several calls that a model asks for at once, those that need no approval
//! could run while somebody is asked about the others. Instead nothing of a round is made before all of it is decided:
//! one state to store, results in the model's order, nothing half done at a restart. The cost: a call that only reads
//! waits too.
//!
//! *2026-11-22, money is rows.* Limits could be counters in memory that are written now and then. Instead every call of
//! a model is a row, reserved before and settled after it; sums in memory only save reading them again. The cost: two
//! commits for each paid call, 0.3 ms beside seconds of a model.
//!
//! *2026-11-22, small code.* Holt is compiled for size, a few hot crates excepted: 0.7 MB less than level `s`. The cost is
//! speed where nobody waits for it; the README has the figures.
//!
//! *2026-11-22, a machine's turn is a turn.* A look at a machine could be a stream of its own kind. Instead it is a turn
//! of a conversation whose agent is `machine:<id>`: numbering, replay, queue, cancel and rights are those that exist.
//!
//! *2026-11-22, alerts are rows before they are acknowledged.* A batch is one commit; the agent keeps it in its spool
//! until the `ack` came. What people are told of it is decided later, from the rows, by one thread.

pub mod agents;
pub mod alert;
pub mod api;
pub mod app;
pub mod audit;
pub mod auth;
pub mod chat;
pub mod checks;
pub mod cli;
pub mod config;
pub mod conformance;
pub mod costs;
pub mod diag;
pub mod fleet;
pub mod http;
pub mod limits;
pub mod llm;
pub mod mcp;
pub mod metrics;
pub mod moving;
pub mod net;
pub mod notify;
pub mod rt;
pub mod sched;
pub mod skills;
pub mod store;
pub mod sys;
pub mod tls;
pub mod tools;
pub mod web;
pub mod ws;
