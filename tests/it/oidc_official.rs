//! Logging in through a certified identity provider (npm `oidc-provider`), with a browser's requests. Runs where
//! `tests/oidc` is installed (see `.ci/run`); `HOLT_OIDC_TESTS=required` makes its absence a failure.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::hub::Builder;
use crate::support::{Answer, Client, wait_until};

const CALLBACK: &str = "http://holt.test/auth/callback";
const SECRET: &str = "a secret with / and +";

/// The provider's script; None when it is not installed and need not be.
fn installed() -> Option<PathBuf> {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/oidc");
    let is_there = place.join("node_modules/oidc-provider").exists();
    let is_required = std::env::var("HOLT_OIDC_TESTS").is_ok_and(|value| value == "required");
    assert!(is_there || !is_required, "{} is not installed; see .ci/run", place.display());
    if !is_there {
        eprintln!("skipped: {} is not installed", place.display());
    }
    is_there.then(|| place.join("server.mjs"))
}

/// A provider, ended when dropped.
struct Provider {
    child: Child,
    port: u16,
}

impl Provider {
    fn start(script: &PathBuf, conform: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("node");
        command.arg(script).env("PORT", port.to_string()).env("REDIRECT_URI", CALLBACK).env("CLIENT_SECRET", SECRET);
        command.env("CONFORM", conform.to_string());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let provider = Self { child, port };
        wait_until("the provider listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        provider
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As much of a browser as a login needs.
struct Browser {
    address: String,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let client = Client::new(&self.address).with("Cookie", &cookies.join("; "));
        let answer = client.with("Content-Type", "application/x-www-form-urlencoded").send(method, path, body);
        for (_, line) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    /// From the login page to the way back: what the provider adds to the callback address.
    fn log_in(&mut self, page: &str, user: &str) -> String {
        let base = format!("http://{}", self.address);
        let mut path = page.strip_prefix(&base).unwrap().to_owned();
        let (mut method, mut body) = ("GET", String::new());
        for _ in 0..12 {
            let answer = self.ask(method, &path, &body);
            (method, body) = ("GET", String::new());
            match answer.header("location") {
                "" => {
                    let is_login = answer.text().contains("name=\"login\"");
                    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                    method = "POST";
                    body = if is_login {
                        format!("prompt=login&login={user}&password=x")
                    } else {
                        "prompt=consent".into()
                    };
                }
                back if back.starts_with(CALLBACK) => return back.split_once('?').unwrap().1.to_owned(),
                next => next.strip_prefix(&base).unwrap_or(next).clone_into(&mut path),
            }
        }
        panic!("no end of it at {path}");
    }
}

#[test]
fn people_log_in_through_a_certified_provider() {
    let Some(script) = installed() else { return };
    for conform in [false, true] {
        let (dir, provider) = (tempfile::tempdir().unwrap(), Provider::start(&script, conform));
        let issuer = format!("http://127.0.0.1:{}", provider.port);
        let settings = format!(
            "[api.auth.oidc]\nenabled = true\nissuer = \"{issuer}\"\nclient_id = \"holt\"\nclient_secret = \"{SECRET}\"\n\
             redirect_url = \"{CALLBACK}\"\nallowed_emails = [\"me@example.org\", \"unverified@example.org\"]"
        );
        let hub = Builder::new(dir.path()).config(&settings).start();
        let try_as = |user: &str| {
            let begun = hub.client().get("/auth/oidc/login");
            assert_eq!(begun.status, 302, "{}", begun.text());
            let mut browser = Browser { address: format!("127.0.0.1:{}", provider.port), cookies: BTreeMap::new() };
            let query = browser.log_in(begun.header("location"), user);
            let cookie = begun.header("set-cookie").split(';').next().unwrap().to_owned();
            hub.client().with("Cookie", &cookie).get(&format!("/auth/callback?{query}"))
        };
        let answer = try_as("me");
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, "/#/overview"),
            "{} {}",
            answer.text(),
            hub.log_tail()
        );
        let me = hub.client().with_cookie_of(&answer);
        assert_eq!(me.get("/auth/session").json(), json!({"authenticated": true, "email": "me@example.org"}));
        let answer = try_as("eve");
        assert_eq!((answer.status, answer.text().trim_end()), (403, "email not authorized"));
        let answer = try_as("unverified");
        assert_eq!((answer.status, answer.text().trim_end()), (403, "email not verified by provider"));
    }
}
