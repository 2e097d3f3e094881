//! What the claims of an ID token must say (OpenID Connect Core 3.1.3.7). Pure.

use serde_json::Value;

use super::OidcError;

/// How far clocks may be apart.
const SKEW_S: f64 = 60.0;

/// Whether a token is from that issuer, for this client, and valid now. The error says what is wrong, without a value.
pub(super) fn check(claims: &Value, issuer: &str, client_id: &str, now_s: i64) -> Result<(), String> {
    let wrong = |what: &str| Err(what.to_owned());
    if claims["iss"] != issuer {
        return wrong("it is from another issuer");
    }
    let is_ours = match &claims["aud"] {
        Value::String(audience) => audience == client_id,
        Value::Array(all) => all.iter().any(|audience| audience == client_id),
        _ => false,
    };
    if !is_ours {
        return wrong("it is for another client");
    }
    let is_shared = claims["aud"].as_array().is_some_and(|all| all.len() > 1);
    match claims.get("azp") {
        Some(party) if party != client_id => return wrong("it was issued to another client"),
        None if is_shared => return wrong("it is for several clients and does not say which it was issued to"),
        _ => {}
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds of this age fit")]
    let now = now_s as f64;
    let time = |name: &str| claims.get(name).map(|value| value.as_f64().filter(|time| time.is_finite()));
    match time("exp") {
        Some(Some(expiry)) if expiry + SKEW_S > now => {}
        Some(Some(_)) => return wrong("it has expired"),
        _ => return wrong("it does not say when it expires"),
    }
    match time("iat") {
        Some(Some(issued)) if issued <= now + SKEW_S => {}
        Some(Some(_)) => return wrong("it was issued in the future; are the clocks right?"),
        _ => return wrong("it does not say when it was issued"),
    }
    match time("nbf") {
        None => Ok(()),
        Some(Some(begin)) if begin <= now + SKEW_S => Ok(()),
        Some(_) => wrong("it is not valid yet; are the clocks right?"),
    }
}

/// The verified e-mail address, lower case; None when there is no address at all.
pub(super) fn email(claims: &Value) -> Result<Option<String>, OidcError> {
    let email = match claims.get("email") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(email)) if email.is_empty() => return Ok(None),
        Some(Value::String(email)) => email.trim().to_lowercase(),
        Some(_) => return Err(OidcError::Claims("its e-mail address is no text".to_owned())),
    };
    // Some providers write it as a text.
    let is_verified = claims["email_verified"] == true || claims["email_verified"] == "true";
    if is_verified { Ok(Some(email)) } else { Err(OidcError::EmailNotVerified) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_claim_counts() {
        let good = json!({"iss": "https://i", "aud": "me", "exp": 1000, "iat": 900});
        let check = |name: &str, value: Value, expected: &str| {
            let mut claims = good.clone();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
            let said = check(&claims, "https://i", "me", 950).err().unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{name} {value}: {said}");
        };
        check("x", json!(1), "");
        check("iss", json!("https://i/"), "another issuer");
        check("iss", json!(null), "another issuer");
        check("aud", json!("you"), "another client");
        check("aud", json!(["you"]), "another client");
        check("aud", json!(["me"]), "");
        check("aud", json!(["me", "you"]), "several clients");
        check("aud", json!(null), "another client");
        check("azp", json!("you"), "issued to another");
        check("azp", json!("me"), "");
        check("exp", json!(891), "");
        check("exp", json!(890), "expired");
        check("exp", json!("1000"), "when it expires");
        check("exp", json!(null), "when it expires");
        check("iat", json!(1010), "");
        check("iat", json!(1011), "in the future");
        check("iat", json!(null), "when it was issued");
        check("nbf", json!(1011), "not valid yet");
        check("nbf", json!(1000.5), "");
    }

    #[test]
    fn addresses_must_be_verified() {
        let of = |claims: Value| email(&claims);
        assert_eq!(of(json!({"email": "Me@Example.ORG", "email_verified": true})).unwrap().unwrap(), "me@example.org");
        assert_eq!(of(json!({"email": "a@b", "email_verified": "true"})).unwrap().unwrap(), "a@b");
        for verified in [json!(false), json!(null), json!(1), json!("yes")] {
            let said = of(json!({"email": "a@b", "email_verified": verified}));
            assert!(matches!(said, Err(OidcError::EmailNotVerified)), "{verified}");
        }
        assert!(matches!(of(json!({"email_verified": true})), Ok(None)));
        assert!(matches!(of(json!({"email": 7, "email_verified": true})), Err(OidcError::Claims(_))));
    }
}
