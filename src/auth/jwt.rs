//! Signed tokens (RFC 7515, 7517, 7519), as far as a login needs them: RS256, ES256 and EdDSA, checked with `ring`.
//!
//! `none` and algorithms with a shared secret are refused: who may check such a token could make one. What the claims
//! must say is the caller's business.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256};
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Keys of a set that are tried at most.
const KEYS_MAX: usize = 64;

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtError {
    /// Not three parts of base64url and JSON.
    Malformed,
    /// Unsigned, signed with a shared secret, or in a way that is not known here.
    Algorithm,
    /// None of the keys is the one that it names.
    UnknownKey,
    Signature,
}

impl std::fmt::Display for JwtError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is no signed token",
            Self::Algorithm => "it is not signed with RS256, ES256 or EdDSA",
            Self::UnknownKey => "its key is not in the issuer's key set",
            Self::Signature => "its signature is wrong",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

/// A token in its parts; nothing of it may be believed before [`Token::verify`].
pub struct Token<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Value,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub fn parse(text: &'a str) -> Result<Self, JwtError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = (object(header)?, object(claims)?);
        let algorithm = match header["alg"].as_str() {
            Some("RS256") => Algorithm::Rs256,
            Some("ES256") => Algorithm::Es256,
            Some("EdDSA" | "Ed25519") => Algorithm::EdDsa,
            _ => return Err(JwtError::Algorithm),
        };
        // Extensions that must be understood; none is (RFC 7515 4.1.11).
        if header.get("crit").is_some() {
            return Err(JwtError::Algorithm);
        }
        let signature = bytes(signature).ok_or(JwtError::Malformed)?;
        let key_id = header["kid"].as_str().map(str::to_owned);
        Ok(Self { signed, signature, algorithm, key_id, claims })
    }

    /// Checks the signature with a key set (RFC 7517); the claims when it is right.
    pub fn verify(&self, keys: &Value) -> Result<&Value, JwtError> {
        let all = keys["keys"].as_array().map_or(&[][..], Vec::as_slice);
        let mut is_known = false;
        for key in all.iter().take(KEYS_MAX).filter(|key| self.may_be(key)) {
            is_known = true;
            if self.fits(key).is_some() {
                return Ok(&self.claims);
            }
        }
        Err(if is_known { JwtError::Signature } else { JwtError::UnknownKey })
    }

    /// Whether a key is meant for such a token. The kind of the key decides what is checked, never the token alone.
    fn may_be(&self, key: &Value) -> bool {
        let (kind, curve, name) = match self.algorithm {
            Algorithm::Rs256 => ("RSA", None, "RS256"),
            Algorithm::Es256 => ("EC", Some("P-256"), "ES256"),
            Algorithm::EdDsa => ("OKP", Some("Ed25519"), "EdDSA"),
        };
        key["kty"] == kind
            && curve.is_none_or(|curve| key["crv"] == curve)
            && key["use"].as_str().is_none_or(|used| used == "sig")
            && key["alg"].as_str().is_none_or(|alg| alg == name || (name == "EdDSA" && alg == "Ed25519"))
            && self.key_id.as_deref().is_none_or(|id| key["kid"] == id)
    }

    fn fits(&self, key: &Value) -> Option<()> {
        let part = |name: &str| bytes(key[name].as_str()?);
        let message = self.signed.as_bytes();
        match self.algorithm {
            Algorithm::Rs256 => {
                let (n, e) = (part("n")?, part("e")?);
                // Leading zeros are allowed in the set, but not by `ring`.
                let n = &n[n.iter().position(|byte| *byte != 0)?..];
                let key = RsaPublicKeyComponents { n, e: e.as_slice() };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, &self.signature).ok()
            }
            Algorithm::Es256 => {
                let (x, y) = (part("x")?, part("y")?);
                if (x.len(), y.len()) != (32, 32) {
                    return None;
                }
                let point = [&[4][..], &x, &y].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, &self.signature).ok()
            }
            Algorithm::EdDsa => UnparsedPublicKey::new(&ED25519, part("x")?).verify(message, &self.signature).ok(),
        }
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn object(part: &str) -> Result<Value, JwtError> {
    let bytes = bytes(part).ok_or(JwtError::Malformed)?;
    serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object).ok_or(JwtError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// RFC 7515 appendix A.2 and A.3, RFC 8037 appendix A.
    const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    fn keys() -> Value {
        json!({"keys": [
            {"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
            {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
        ]})
    }

    #[test]
    fn the_examples_of_the_standard_hold_and_every_changed_one_does_not() {
        for text in [RS256, ES256] {
            let token = Token::parse(text).unwrap();
            assert_eq!(token.verify(&keys()).unwrap()["iss"], "joe");
            assert_eq!(token.verify(&json!({"keys": []})).err(), Some(JwtError::UnknownKey));
            assert_eq!(token.verify(&json!([])).err(), Some(JwtError::UnknownKey));
            // A claim, or the signature, is another.
            let at = text.find('.').unwrap() + 8;
            for at in [at, text.len() - 10] {
                let mut changed = text.to_owned().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(changed).unwrap();
                let result = Token::parse(&changed).and_then(|token| token.verify(&keys()).cloned());
                assert!(matches!(result, Err(JwtError::Signature | JwtError::Malformed)), "{changed}");
            }
            // Keys that are for something else.
            for (field, value) in [("use", "enc"), ("alg", "RS512"), ("kty", "oct")] {
                let mut other = keys();
                for key in other["keys"].as_array_mut().unwrap() {
                    key[field] = json!(value);
                }
                assert_eq!(token.verify(&other).err(), Some(JwtError::UnknownKey), "{field}");
            }
        }
    }

    #[test]
    fn a_named_key_is_the_only_one_that_counts() {
        use ring::signature::{Ed25519KeyPair, KeyPair};
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let signed = [
            URL_SAFE_NO_PAD.encode(json!({"alg": "EdDSA", "kid": "one"}).to_string()),
            URL_SAFE_NO_PAD.encode(json!({"sub": "me"}).to_string()),
        ]
        .join(".");
        let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())));
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let set = |kid: &str| json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}]});
        let token = Token::parse(&text).unwrap();
        assert_eq!(token.verify(&set("one")).unwrap()["sub"], "me");
        assert_eq!(token.verify(&set("two")).err(), Some(JwtError::UnknownKey));
    }

    #[test]
    fn what_anybody_could_make_is_refused() {
        let make = |header: Value| {
            format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode("{}"))
        };
        for alg in ["none", "None", "HS256", "RS384", "PS256", ""] {
            assert_eq!(Token::parse(&make(json!({"alg": alg}))).err(), Some(JwtError::Algorithm), "{alg}");
        }
        let critical = make(json!({"alg": "RS256", "crit": ["b64"]}));
        assert_eq!(Token::parse(&critical).err(), Some(JwtError::Algorithm));
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for text in ["", ".", "..", "a.b.c", "e30", "e30.e30", "W10.e30.", &long] {
            assert!(Token::parse(text).is_err(), "{text}");
        }
    }
}
