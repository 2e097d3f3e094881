//! Logins at remote tool servers (contract engine 8.8, http-api 11.2; MCP 2025-11-25, "Authorization"): discovery, our
//! registration there, the way of a browser and back, tokens and their renewal.
//!
//! What a server says of its logins is a peer's word: every address in it is judged ([`Place`]), nothing is followed
//! to where it redirects, and a token goes only to the server that it was made for.
//!
//! No threads of its own; whatever asks a network says so.

mod access;
mod discovery;
mod flow;
mod pending;
mod place;
mod revoke;
mod tokens;

use std::sync::Arc;

pub use access::Access;
pub use flow::{Wish, begin, exchange};
pub use pending::{Pending, PendingMgr};
pub use place::Place;
pub use revoke::revoke;
pub use tokens::{Summary, Token, TokenStore};

/// What logins at tool servers need.
#[derive(Clone)]
pub struct OAuthDeps {
    pub token_store: Arc<TokenStore>,
    pub pending_mgr: Arc<PendingMgr>,
}
