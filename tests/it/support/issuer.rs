//! A scripted identity provider: real keys and signatures, and every lie that a test wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::script::{Asked, Script, field, flood, hang, json as answer_json, plain};

pub const CLIENT: &str = "holt client";
pub const SECRET: &str = "s3cret/+&";

/// A key for tests, made for nothing else: PKCS#8.
const RSA_KEY: &str = "\
MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQCs5O1jz3n8SjSvMf90N4QvPkuL6kCtulRUDja9ybGqPPECjp+VCjS8oJHUWK\
9z3JpEhXCV9CkwrkggSl6W0Z1NglRs2TsbgeG3ykuSqanK+2jNZ1qaQlSC9z/zwYBYSa1NBM5QdS82hEu0QApMZtnNMFMJL78bZfx8jBE8InbX\
zlounnS1FJLxfJ9pLsI0k2pCmgsXGR9lb83+jzHVyWbXJ8t9KCyuJzWRJNIPgNCEkjjk0WFopOY9U0/ZoxSQGQwcljqEMXODpeB8Q5v/YlfuEI\
vTYUKNE5hMWew/5Ovq4Lge9Lp2ENQjbweWZ8v9F/p1sFq7P2VInJ/MMrRBk6drAgMBAAECggEAGcXok2Pm2dKQBvvLil4KQOam6V0Ktjsb/gm+\
ZE1QREHgZZKwPE3wrZu8EW0E/p8IiiVgMqJaj4yzaMjdT9tAeUDv5+f8FS4n4TdxS5QqIP2YUmJRUcSIh5tm96XFRaP6Bwyr2reVSamwBVc0kc\
4VMq68+hYZhXKPEFvq5811bNbxtWo0mHUsB89d3G2iUIjIIctZ5m/ZlonKooqNOg/WWknF6XUUiuJtQuhgjD+V+YqHrHQdTqLY7NEsC2Wq5sU0\
7953Og9OjtmVElmsDdgHyiL/R1kgjl1z+8duq/RkgM8oXmRixKtTSJWahbHzPV1CLycLMKC8xLCDcZgi1oFw9QKBgQDcQIqigu63xKz+PL6ALr\
6rVBQRWi1jGTEH7uxRWrT6obIt7yUOOB3LVzkjf3owpTIiTG32VGqas625GgegCit5xKJhOJKMOXYwcc/m5lM4DUFAbzHuju0z3/TJ9Y6kwEpw\
5xWktS3wNe1WlR/j/P0G0XiNFNZrfTMVoHMRDVCCjwKBgQDI9KuECcYKoYbAdBSTq4eOvZZ6nWQQTDWE5WdSPhM+6XOQ+ITADIpPAS9yVFRkYt\
qSwBEXcT90pb+CHGqQU8VNxAU4NKOQkEPkm5pIPvy2dIBHTr1HFmbK5rRWOsvem2rQbye7OvSG4TTv5l6+p8WJ27ZLTozJR5/898H8C4wLZQKB\
gGZY/5Mg8LkohZLmu0dpcWS//0tI8kpYjHY5SktLsUm+FcROmpOO9BlngL/EHw231iImDfsnoxocYJ/hPqXZ0/YTr7kpxr+ufANq/8c2RHmJf0\
bn5PYMKKGwclne59gbGvx4BZCyOJSlGpLfXSBekV23vSMiCbmNRk3Ib2//Feh1AoGAUH/amTkFEUslXMDjYUhMNDz0I8gaxoCQy9zNp99f/Equ\
VbuIChq76OwTopvvdos2/aRc9GQURFkFP0y8z3YPSpikcqB7iTSRTembQyegOkKvBGGhZvGtWchTI1vIQTNG9Zohc1opjEJ430UMXRl+Azx1aP\
NdaF/90es51QqXHhUCgYA8VPbodkA002n9jVXJ0L+/mxttXLdbKg7/BStadLqn9iuVAPPlh1W3PPs03hFXPIHMICw8x05BqpGPJHk4t1wKdK50\
TcspHBF7ZE+/qDmsGjKK1Biax+Pz7GV1n/VVYE7fXOZOcpZBHzALZzDVI0BQXb6USoCTkuTKgDsw917BPg==\
";

/// How a path behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    Hangs,
    Garbage,
    Flood,
    Broken,
    Redirects,
}

/// What a code stands for.
struct Grant {
    challenge: String,
    redirect_uri: String,
    claims: Value,
    signing: Signing,
}

/// How an ID token is signed.
#[derive(Clone, Debug)]
pub struct Signing {
    pub algorithm: &'static str,
    pub key_id: String,
    /// Left out of the answer altogether.
    pub missing: bool,
}

impl Default for Signing {
    fn default() -> Self {
        Self { algorithm: "RS256", key_id: "rsa".to_owned(), missing: false }
    }
}

struct Keys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

#[derive(Default)]
pub struct State {
    grants: HashMap<String, Grant>,
    pub moods: HashMap<String, Mood>,
    /// Laid over the metadata.
    pub metadata: Value,
    /// Names of the keys in the set: RSA, EC, Ed25519.
    pub names: [&'static str; 3],
    pub user: Value,
}

pub struct Issuer {
    pub script: Script,
    keys: Arc<Keys>,
    pub state: Arc<Mutex<State>>,
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Issuer {
    pub fn start() -> Self {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let keys = Arc::new(Keys {
            rsa: RsaKeyPair::from_pkcs8(&STANDARD.decode(RSA_KEY).unwrap()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap(),
        });
        let state = State { names: ["rsa", "ec", "ed"], ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let (own_keys, own) = (Arc::clone(&keys), Arc::clone(&state));
        let script = Script::start(move |asked, out| {
            let mood = own.lock().unwrap().moods.get(&asked.path).copied().unwrap_or(Mood::Well);
            match mood {
                Mood::Hangs => hang(out),
                Mood::Garbage => plain(out, "200 OK", "Content-Type: application/json\r\n", "{\"issuer\": <html>"),
                Mood::Flood => flood(out),
                Mood::Broken => plain(out, "503 Service Unavailable", "", "no"),
                Mood::Redirects => plain(out, "302 Found", "Location: http://169.254.169.254/latest\r\n", ""),
                Mood::Well => {
                    let (status, body) = answer(&own, &own_keys, asked);
                    answer_json(out, status, &body)
                }
            }
        });
        Self { script, keys, state }
    }

    pub fn url(&self) -> String {
        self.script.url("")
    }

    pub fn mood(&self, path: &str, mood: Mood) {
        self.state.lock().unwrap().moods.insert(path.to_owned(), mood);
    }

    /// Claims as they should be for a login that began with that query.
    pub fn claims(&self, query: &str) -> Value {
        json!({"iss": self.url(), "aud": CLIENT, "sub": "user-1", "iat": now(), "exp": now() + 300,
            "nonce": field(query, "nonce"), "email": "Me@Example.org", "email_verified": true})
    }

    /// The user says yes: a code for a login that began with that query.
    pub fn grant(&self, query: &str, claims: Value, signing: Signing) -> String {
        let mut state = self.state.lock().unwrap();
        let code = format!("code-{}", state.grants.len());
        let (challenge, redirect_uri) = (field(query, "code_challenge"), field(query, "redirect_uri"));
        state.grants.insert(code.clone(), Grant { challenge, redirect_uri, claims, signing });
        code
    }
}

fn answer(state: &Mutex<State>, keys: &Keys, asked: &Asked) -> (&'static str, Value) {
    let mut state = state.lock().unwrap();
    let base = format!("http://{}", asked.header("host").unwrap());
    match asked.path.as_str() {
        "/.well-known/openid-configuration" => {
            let mut metadata = json!({"issuer": base, "authorization_endpoint": format!("{base}/authorize?v=1"),
                "token_endpoint": format!("{base}/token"), "jwks_uri": format!("{base}/keys"),
                "userinfo_endpoint": format!("{base}/me")});
            for (name, value) in state.metadata.as_object().into_iter().flatten() {
                metadata[name] = value.clone();
            }
            ("200 OK", metadata)
        }
        "/keys" => ("200 OK", key_set(keys, state.names)),
        "/me" if asked.header("authorization") == Some("Bearer access-1") => ("200 OK", state.user.clone()),
        "/token" => {
            let client = format!("Basic {}", STANDARD.encode("holt%20client:s3cret%2F%2B%26"));
            if asked.header("authorization") != Some(&client) || asked.form("grant_type") != "authorization_code" {
                return ("401 Unauthorized", json!({"error": "invalid_client"}));
            }
            // A code counts once.
            let Some(grant) = state.grants.remove(&asked.form("code")) else {
                return ("400 Bad Request", json!({"error": "invalid_grant", "error_description": "secret words"}));
            };
            let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(asked.form("code_verifier")));
            if challenge != grant.challenge || asked.form("redirect_uri") != grant.redirect_uri {
                return ("400 Bad Request", json!({"error": "invalid_grant"}));
            }
            let mut token = json!({"access_token": "access-1", "token_type": "Bearer", "expires_in": 60});
            if !grant.signing.missing {
                token["id_token"] = json!(sign(keys, &grant.claims, &grant.signing));
            }
            ("200 OK", token)
        }
        _ => ("404 Not Found", json!({})),
    }
}

fn key_set(keys: &Keys, names: [&str; 3]) -> Value {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = keys.ec.public_key().as_ref();
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(keys.rsa.public());
    json!({"keys": [
        {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": names[0],
            "n": text(&public.n),
            "e": text(&public.e)},
        {"kty": "EC", "crv": "P-256", "kid": names[1], "x": text(&point[1..33]), "y": text(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": names[2], "x": text(keys.ed.public_key().as_ref())},
    ]})
}

fn sign(keys: &Keys, claims: &Value, signing: &Signing) -> String {
    let header = json!({"alg": signing.algorithm, "kid": signing.key_id, "typ": "JWT"});
    let text = [header.to_string(), claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let random = SystemRandom::new();
    let signature = match signing.algorithm {
        "RS256" => {
            let mut signature = vec![0; keys.rsa.public().modulus_len()];
            keys.rsa.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).unwrap();
            signature
        }
        "ES256" => keys.ec.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec(),
        "EdDSA" => keys.ed.sign(text.as_bytes()).as_ref().to_vec(),
        // The classic: the public key as a shared secret.
        "HS256" => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, keys.rsa.public().as_ref());
            ring::hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
        }
        _ => Vec::new(),
    };
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

impl Issuer {
    /// A token of that shape, for tests that want to change it.
    pub fn sign(&self, claims: &Value, signing: &Signing) -> String {
        sign(&self.keys, claims, signing)
    }
}
