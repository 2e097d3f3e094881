//! What this machine shows its hub, and how it knows the hub (contract agent-link 8): join codes, tokens, the pinned
//! key.

use super::LinkError;
use super::state::{Membership, name_of_token};
use crate::fleet::sign;
use crate::fleet::wire::Ack;

/// Tokens of one machine, given by the hub.
const MACHINE: &str = "hm_";
/// Secrets of join codes.
const JOIN: &str = "hj_";
/// Tokens that a machine makes itself, to ask for approval.
const REQUEST: &str = "hr_";

/// `hj_SECRET_FINGERPRINT`: lets one machine join the hub whose key has that fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCode {
    /// `hj_SECRET`: what travels.
    secret: String,
    fingerprint: String,
}

impl JoinCode {
    /// Reads a code. The error says what a code looks like, without a part of it.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let bad = || LinkError::Address {
            cause: "a join code looks like hj_..._...; copy the whole of what `holt machines join` printed".to_owned(),
        };
        let (secret, fingerprint) = text.trim().rsplit_once('_').ok_or_else(bad)?;
        let is_hex = fingerprint.len() == 32 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_secret = secret.strip_prefix(JOIN).is_some_and(|rest| rest.len() >= 8) && is_token(secret);
        if !is_hex || !is_secret {
            return Err(bad());
        }
        Ok(Self { secret: secret.to_owned(), fingerprint: fingerprint.to_ascii_lowercase() })
    }
}

/// Whether it can stand in a header.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 512 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What was configured, beside the address.
#[derive(Clone, Default)]
pub(super) struct Configured<'a> {
    pub(super) address: String,
    pub(super) ca_file: String,
    pub(super) join: Option<&'a JoinCode>,
    pub(super) token: Option<&'a str>,
}

/// The membership to begin with: a join code comes first, then a configured token, then what is stored, then a token
/// that asks for approval.
///
/// A code or a token that was already exchanged for a token of this machine is not used again: service files keep
/// their command lines.
pub(super) fn choose(stored: Membership, configured: &Configured<'_>) -> Result<Membership, LinkError> {
    let mut chosen = Membership { address: configured.address.clone(), ca_file: configured.ca_file.clone(), ..stored };
    let shown = configured.join.map(|code| code.secret.as_str()).or(configured.token);
    match shown {
        Some(shown) if !is_token(shown) => {
            return Err(LinkError::Address {
                cause: "the agent's token has a blank or a strange character".to_owned(),
            });
        }
        Some(shown)
            if chosen.token == shown || (!chosen.token.is_empty() && chosen.replaces == name_of_token(shown)) => {}
        Some(shown) => {
            shown.clone_into(&mut chosen.token);
            chosen.hub_key.clear();
            chosen.replaces.clear();
            chosen.fingerprint = configured.join.map(|code| code.fingerprint.clone()).unwrap_or_default();
        }
        None if chosen.token.is_empty() => {
            let mut random = [0_u8; 32];
            getrandom::fill(&mut random).map_err(|error| LinkError::Connect { cause: error.to_string() })?;
            chosen.token = format!("{REQUEST}{}", crate::rt::text::hex(&random));
        }
        None => {}
    }
    Ok(chosen)
}

/// What people compare at both ends while a machine asks for approval; None when it does not ask.
pub(super) fn request_name(member: &Membership) -> Option<String> {
    member.token.starts_with(REQUEST).then(|| name_of_token(&member.token)[..8].to_owned())
}

/// Judges the `ack` of a registration: whether this is the hub that this machine belongs to, and what is new. None
/// when nothing is.
pub(super) fn accept(
    member: &Membership,
    answer: &Ack,
    agent_id: &str,
    nonce: &str,
) -> Result<Option<Membership>, LinkError> {
    let forged = |cause: &str| LinkError::Forged { cause: cause.to_owned() };
    let mut next = member.clone();
    let expects_key = !member.hub_key.is_empty() || !member.fingerprint.is_empty();
    if answer.hub_key.is_empty() {
        if expects_key {
            return Err(forged("it did not show its key"));
        }
    } else {
        let key = answer.hub_key.trim();
        if !member.hub_key.is_empty() && member.hub_key != key {
            return Err(forged("it has another key; if the hub was set up anew, join it again"));
        }
        if !member.fingerprint.is_empty() && sign::fingerprint(key).as_ref() != Some(&member.fingerprint) {
            return Err(forged("its key is not the one that the join code names"));
        }
        sign::verify_proof(key, agent_id, nonce, &answer.hub_proof)
            .map_err(|_| forged("it could not prove to hold its key"))?;
        if member.hub_key.is_empty() {
            log::info!(
                "from now on this machine believes only the hub with key {}",
                sign::fingerprint(key).unwrap_or_default()
            );
            key.clone_into(&mut next.hub_key);
        }
    }
    replace_token(&mut next, &answer.new_token);
    Ok((next != *member).then_some(next))
}

/// Takes a new token, if there is one.
pub(super) fn replace_token(member: &mut Membership, new_token: &str) {
    if new_token.is_empty() || member.token == new_token {
        return;
    }
    if !is_token(new_token) {
        log::warn!("the hub sent a token that cannot be used");
        return;
    }
    // A rotated token still stands for what was configured in the beginning.
    if !member.token.starts_with(MACHINE) || member.replaces.is_empty() {
        member.replaces = name_of_token(&member.token);
    }
    new_token.clone_into(&mut member.token);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::sign::HubKey;

    fn hub() -> (tempfile::TempDir, HubKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = HubKey::read_or_make(dir.path()).unwrap();
        (dir, key)
    }

    fn configured<'a>(join: Option<&'a JoinCode>, token: Option<&'a str>) -> Configured<'a> {
        Configured { address: "http://h".into(), ca_file: String::new(), join, token }
    }

    #[test]
    fn join_codes_are_read_strictly() {
        let fingerprint = "0123456789abcdef0123456789ABCDEF";
        let code = JoinCode::parse(&format!(" hj_abcdefgh_{fingerprint}\n")).unwrap();
        assert_eq!(code.secret, "hj_abcdefgh");
        assert_eq!(code.fingerprint, fingerprint.to_ascii_lowercase());
        let long = JoinCode::parse(&format!("hj_abc_defgh_{fingerprint}")).unwrap();
        assert_eq!(long.secret, "hj_abc_defgh");
        for bad in [
            "",
            "hj_abcdefgh",
            "hj__0123",
            &format!("hm_abcdefgh_{fingerprint}"),
            &format!("hj_ab cdefgh_{fingerprint}"),
        ] {
            assert!(JoinCode::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_code_is_exchanged_once() {
        let (_dir, key) = hub();
        let code = JoinCode::parse(&format!("hj_abcdefgh_{}", key.fingerprint())).unwrap();
        let member = choose(Membership::default(), &configured(Some(&code), None)).unwrap();
        assert_eq!(member.token, "hj_abcdefgh");
        let proof = key.prove("id", "n");
        let answer = Ack {
            ok: true,
            hub_key: key.public_base64(),
            hub_proof: proof,
            new_token: "hm_1".into(),
            ..Ack::default()
        };
        let joined = accept(&member, &answer, "id", "n").unwrap().unwrap();
        assert_eq!((joined.token.as_str(), &joined.hub_key), ("hm_1", &key.public_base64()));
        let again = choose(joined.clone(), &configured(Some(&code), None)).unwrap();
        assert_eq!(again, joined, "the command line of a service keeps the spent code");
        assert_eq!(choose(joined.clone(), &configured(None, None)).unwrap(), joined);
        // Rotated: the code is still spent.
        let mut rotated = joined;
        replace_token(&mut rotated, "hm_2");
        assert_eq!(choose(rotated.clone(), &configured(Some(&code), None)).unwrap().token, "hm_2");
        let other = JoinCode::parse(&format!("hj_zzzzzzzz_{}", key.fingerprint())).unwrap();
        let moved = choose(rotated, &configured(Some(&other), None)).unwrap();
        assert_eq!((moved.token.as_str(), moved.hub_key.as_str()), ("hj_zzzzzzzz", ""));
    }

    #[test]
    fn another_hub_is_not_believed() {
        let ((_dir, key), (_other_dir, other)) = (hub(), hub());
        let answer = |hub: &HubKey, nonce: &str| Ack {
            ok: true,
            hub_key: hub.public_base64(),
            hub_proof: hub.prove("id", nonce),
            ..Ack::default()
        };
        let forged = |member: &Membership, answer: &Ack| {
            matches!(accept(member, answer, "id", "n"), Err(LinkError::Forged { .. }))
        };
        let pinned = Membership { token: "t".into(), hub_key: key.public_base64(), ..Membership::default() };
        assert_eq!(accept(&pinned, &answer(&key, "n"), "id", "n"), Ok(None));
        assert!(forged(&pinned, &answer(&other, "n")) && forged(&pinned, &answer(&key, "old")));
        assert!(forged(&pinned, &Ack { ok: true, ..Ack::default() }), "a key cannot be left out");
        let joining = Membership { fingerprint: key.fingerprint(), ..Membership::default() };
        assert!(forged(&joining, &answer(&other, "n")) && forged(&joining, &Ack::default()));
        assert!(accept(&joining, &answer(&key, "n"), "id", "n").unwrap().is_some());
        // A token configured by hand: the first key counts, and a hub without keys is a hub of the reference.
        let by_hand = choose(Membership::default(), &configured(None, Some("shared"))).unwrap();
        assert_eq!(accept(&by_hand, &Ack { ok: true, ..Ack::default() }, "id", "n"), Ok(None));
        assert_eq!(accept(&by_hand, &answer(&key, "n"), "id", "n").unwrap().unwrap().hub_key, key.public_base64());
        assert!(forged(&by_hand, &answer(&key, "old")));
    }

    #[test]
    fn without_any_credential_a_machine_asks() {
        let member = choose(Membership::default(), &configured(None, None)).unwrap();
        assert!(member.token.starts_with("hr_") && member.token.len() == 67);
        assert_eq!(request_name(&member).unwrap().len(), 8);
        assert_eq!(choose(member.clone(), &configured(None, None)).unwrap(), member, "it asks with the same token");
        let configured_later = choose(member, &configured(None, Some("shared"))).unwrap();
        assert_eq!(configured_later.token, "shared");
        assert_eq!(request_name(&configured_later), None);
        assert!(choose(Membership::default(), &configured(None, Some("a b"))).is_err());
    }
}
