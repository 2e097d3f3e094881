//! Giving a token back to the login server that made it (RFC 7009).

use super::discovery::{Asking, Found};
use super::{Place, Token};
use crate::mcp::McpError;
use crate::net::oauth;
use crate::net::url::Url;
use crate::rt::Cancel;

/// Has a token revoked where it comes from; false when that server takes none back. The error is for the audit log.
/// Every address is judged as for a login. Blocks up to a minute; a cancel ends it.
pub fn revoke(place: &Place, headers: &[(String, String)], token: &Token, cancel: &Cancel) -> Result<bool, String> {
    let found = issuer_of(place, headers, token, cancel)?;
    let Some(endpoint) = found.revocation_endpoint else { return Ok(false) };
    // The longer life first: most servers end the other one with it.
    for (word, hint) in [(&token.refresh, "refresh_token"), (&token.access, "access_token")] {
        if !word.is_empty() {
            let pairs = [("token", word.as_str()), ("token_type_hint", hint)];
            oauth::post_form(&endpoint, &token.client, &pairs, cancel).map_err(|error| error.to_string())?;
        }
    }
    Ok(true)
}

/// The login server that made the token; the tool server is asked for it only when the token's own address does not
/// tell.
fn issuer_of(place: &Place, headers: &[(String, String)], token: &Token, cancel: &Cancel) -> Result<Found, String> {
    let asking = Asking::new(place, cancel);
    let is_maker = |found: &Found| found.token_endpoint.text() == token.token_url;
    let origin = Url::parse(&token.token_url).map_err(str::to_owned)?.origin();
    let direct = || {
        let metadata = asking.server_metadata(&origin)?;
        asking.endpoints(&origin, metadata)
    };
    let found = match direct().ok().filter(is_maker) {
        Some(found) if found.is_known => return Ok(found),
        _ => asking.discover(headers).map_err(|error: McpError| error.to_string())?,
    };
    if is_maker(&found) { Ok(found) } else { Err("the tool server names another login server now".to_owned()) }
}
