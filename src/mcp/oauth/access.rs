//! A server's token as its requests use it: renewed in time, once for all of them, and given up when the server's
//! login server says so.

use std::sync::Arc;

use super::discovery::net_error;
use super::flow::updated;
use super::{Place, Token, TokenStore};
use crate::mcp::McpError;
use crate::net::oauth::{self, TokenError};
use crate::rt::{Cancel, clock};

/// A token is renewed so long before it expires (contract engine 8.8), or in the last half of a shorter life.
const AHEAD_MS: i64 = 5 * 60 * 1000;
/// What a login server says when only a person can help (RFC 6749 5.2).
const FINAL: [&str; 3] = ["invalid_grant", "invalid_client", "unauthorized_client"];

/// The way to one server's token.
pub struct Access {
    tokens: Arc<TokenStore>,
    tool: String,
    place: Place,
}

impl Access {
    /// The token of the server `tool`, which is at `place`.
    pub fn new(tokens: Arc<TokenStore>, tool: &str, place: Place) -> Self {
        Self { tokens, tool: tool.to_owned(), place }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether there is a token that can be used, or renewed.
    pub fn is_usable(&self) -> bool {
        self.token().is_ok_and(|token| token.is_usable())
    }

    /// The token for the next request; renewed when it ends soon. [`McpError::Unauthorized`] when a person has to log
    /// in. Blocks while it is renewed.
    pub(crate) fn bearer(&self) -> Result<String, McpError> {
        let token = self.token()?;
        if !ends_soon(&token) {
            return Ok(token.access);
        }
        self.renew(None)
    }

    /// Another token than the one that the server has just refused.
    pub(crate) fn instead_of(&self, refused: &str) -> Result<String, McpError> {
        self.renew(Some(refused))
    }

    /// The stored token, if it is for this server.
    fn token(&self) -> Result<Token, McpError> {
        let token = self.tokens.get(&self.tool).map_err(|error| McpError::Start { cause: error.to_string() })?;
        token.filter(|token| self.place.is_within(&token.resource)).ok_or(McpError::Unauthorized)
    }

    fn renew(&self, refused: Option<&str>) -> Result<String, McpError> {
        let _turn = self.tokens.turn(&self.tool);
        // Another request may have done it meanwhile.
        let token = self.token()?;
        let is_refused = refused == Some(token.access.as_str());
        if !is_refused && !ends_soon(&token) {
            return Ok(token.access);
        }
        let is_alive = !is_refused && token.expires_at.is_none_or(|at| at > clock::unix_ms());
        if token.refresh.is_empty() || token.token_url.is_empty() {
            if is_alive {
                return Ok(token.access);
            }
            self.give_up(token);
            return Err(McpError::Unauthorized);
        }
        let url = self.place.check(&token.token_url)?;
        let pairs = [("grant_type", "refresh_token"), ("refresh_token", &token.refresh), ("resource", &token.resource)];
        // Not ended by the request that needs it: a server that has replaced the refresh token takes the old one no
        // more. It has a time-out of its own.
        let said = oauth::ask_token(&url, &token.client, &pairs, &Cancel::new());
        let renewed = said.and_then(|said| updated(token.clone(), &said));
        match renewed {
            Ok(new) => {
                if let Err(error) = self.tokens.put(&self.tool, &new) {
                    log::error!("tool server {}: store its renewed token: {error}", self.tool);
                }
                Ok(new.access)
            }
            Err(TokenError::Refused { error, .. }) if FINAL.contains(&error.as_str()) => {
                log::warn!("tool server {}: its login has ended ({error}); connect it again", self.tool);
                self.give_up(token);
                Err(McpError::Unauthorized)
            }
            Err(error) => {
                log::warn!("tool server {}: renew its token: {error}", self.tool);
                if is_alive {
                    return Ok(token.access);
                }
                Err(match error {
                    TokenError::Net(error) => net_error(error, &url),
                    other => McpError::Connect { cause: format!("renew its token: {other}") },
                })
            }
        }
    }

    /// Only a person can help: remembered, also over a restart.
    fn give_up(&self, token: Token) {
        let expires_at = Some(token.expires_at.unwrap_or(i64::MAX).min(clock::unix_ms()));
        let spent = Token { refresh: String::new(), expires_at, ..token };
        if let Err(error) = self.tokens.put(&self.tool, &spent) {
            log::error!("tool server {}: note that its login has ended: {error}", self.tool);
        }
    }
}

fn ends_soon(token: &Token) -> bool {
    token.expires_at.is_some_and(|at| {
        let ahead = AHEAD_MS.min((at - token.stored_at).max(0) / 2);
        at - ahead <= clock::unix_ms()
    })
}
