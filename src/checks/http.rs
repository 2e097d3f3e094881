//! `http`: does a page answer, with what status and content, how soon, and how long does its certificate last (contract
//! agent-link 7.5, 9).
//!
//! `[checks.http]`: `targets` (URLs), `method` (GET), `headers` (a table), `body`, `timeout` (5s), `redirects` (5),
//! `verify_tls` (on), `expect_status` (`20*`), `expect_body` (a part of it, or `/regular expression/`), `severity`
//! (Critical: no answer), `mismatch_severity` (Warning: another one); `response_time` (off, milliseconds), `cert_expiry`
//! (within 72h / 24h).
//!
//! A redirect is followed at most five times. It was chosen by the peer, so it may lead to the same host or into the
//! internet, not to another machine of the private network, and what was configured to be sent does not travel along.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::alert::Level;
use crate::checks::cert::judge;
use crate::checks::each::{Look, Seen, each, targets, timeout};
use crate::checks::glob;
use crate::checks::limits::{Limits, Unit};
use crate::checks::peek::{Before, Endpoint, chain};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::regex::Regex;
use crate::checks::settings::{SettingError, Settings};
use crate::net::guard::{Guard, Origin, check_header};
use crate::net::url::{Url, redact_url};
use crate::net::{AddressFilter, Call, HttpClient, Method, NetError, Timeouts};
use crate::rt::Cancel;

const CONNECTIVITY: &str = "http::connectivity";
const STATUS_CODE: &str = "http::status_code";
const RESPONSE_BODY: &str = "http::response_body";
const RESPONSE_TIME: &str = "http::response_time";
const CERT_EXPIRY: &str = "http::cert_expiry";

const REDIRECTS_MAX: usize = 5;

/// Of an answer; what is looked for has to stand there (contract agent-link 7.5, 9).
const BODY_BYTES_MAX: usize = 1024 * 1024;

const METHODS: [(&str, Method); 6] = [
    ("GET", Method::Get),
    ("HEAD", Method::Head),
    ("POST", Method::Post),
    ("PUT", Method::Put),
    ("PATCH", Method::Patch),
    ("DELETE", Method::Delete),
];

struct Http {
    targets: Arc<[Target]>,
    wish: Arc<Wish>,
}

struct Target {
    /// As alerts name it: without a password.
    name: String,
    url: Url,
}

enum Expected {
    Part(String),
    Regex(Regex),
}

/// What is sent, and what has to come back.
struct Wish {
    method: (&'static str, Method),
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Duration,
    redirects: usize,
    verify_tls: bool,
    status: Vec<String>,
    expected: Option<Expected>,
    level: Level,
    mismatch_level: Level,
    response_time: Limits,
    cert_expiry: Limits,
    /// One for all, so that lookups that hang are bounded.
    client: HttpClient,
}

/// The last answer of a chain of redirects.
struct Got {
    status: u16,
    /// Until its head had come.
    time: Duration,
    body: Option<String>,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let mut found = Vec::new();
    for target in targets(settings, "URLs that begin with http:// or https://")? {
        let url = Url::parse(&target).map_err(|reason| {
            settings
                .error("targets", format!("{:?}: {reason}; a URL begins with http:// or https://", redact_url(&target)))
        })?;
        // Secrets of a query are hidden; what then looks the same must still be told apart.
        let name = redact_url(&target);
        let same = found.iter().filter(|known: &&Target| known.name.split(' ').next() == Some(&name)).count();
        let name = if same == 0 { name } else { format!("{name} #{}", same + 1) };
        found.push(Target { name, url });
    }
    let method = settings.word("method", &METHODS.map(|(name, _)| name), "GET")?;
    let method = METHODS.into_iter().find(|(name, _)| *name == method).unwrap_or(METHODS[0]);
    let headers = headers(settings)?;
    let body = settings.text("body", "")?.into_bytes();
    if !body.is_empty() && !matches!(method.1, Method::Post | Method::Put | Method::Patch) {
        return Err(settings.error("body", "is sent with POST, PUT and PATCH only: set method too"));
    }
    let timeout = timeout(settings, "timeout", Duration::from_secs(5))?;
    let redirects = settings.whole("redirects", 5, 0, 5)?;
    let status = settings.texts("expect_status", &["20*"])?;
    let wrong = |glob: &String| glob.is_empty() || !glob.chars().all(|c| c.is_ascii_digit() || c == '*' || c == '?');
    if let Some(wrong) = status.iter().find(|glob| wrong(glob)) {
        return Err(settings.error("expect_status", format!("{wrong:?} is not like 200, 20* or 4??")));
    }
    let expected = match settings.text("expect_body", "")?.as_str() {
        "" => None,
        text => Some(match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|r| !r.is_empty()) {
            Some(regex) => Expected::Regex(Regex::new(regex).map_err(|reason| settings.error("expect_body", reason))?),
            None => Expected::Part(text.to_owned()),
        }),
    };
    let timeouts = Timeouts { connect: timeout, first_byte: timeout, idle: timeout, total: Some(timeout) };
    let verify_tls = settings.flag("verify_tls", true)?;
    let wish = Wish {
        client: client(timeouts, verify_tls),
        method,
        headers,
        body,
        timeout,
        redirects: usize::try_from(redirects).unwrap_or(REDIRECTS_MAX),
        verify_tls,
        status,
        expected,
        level: settings.level("severity", Level::Critical)?,
        mismatch_level: settings.level("mismatch_severity", Level::Warning)?,
        response_time: settings.limits("response_time", Limits::above(Unit::Millis, 0.0, 0.0))?,
        cert_expiry: settings.limits("cert_expiry", Limits::within(hours(72), hours(24)))?,
    };
    Ok(vec![Box::new(Http { targets: found.into(), wish: Arc::new(wish) })])
}

fn client(timeouts: Timeouts, verify_tls: bool) -> HttpClient {
    let client = HttpClient::new(timeouts).without_reuse();
    if verify_tls { client } else { client.with_tls_unchecked() }
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn headers(settings: &mut Settings) -> Result<Vec<(String, String)>, SettingError> {
    let table = match settings.take("headers") {
        None => return Ok(Vec::new()),
        Some(Value::Object(table)) => table,
        Some(_) => return Err(settings.error("headers", "must be a table of texts")),
    };
    let mut headers = Vec::new();
    for (name, value) in table {
        let Value::String(value) = value else { return Err(settings.error("headers", "must be a table of texts")) };
        check_header(&name, &value).map_err(|error| settings.error("headers", error.to_string()))?;
        headers.push((name, value));
    }
    Ok(headers)
}

impl Check for Http {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let wish = Arc::clone(&self.wish);
        // The page, then its certificate, each with its own time.
        each(&self.targets, self.wish.timeout * 2, context, move |target: &Target, look| wish.look(target, look))
    }
}

impl Wish {
    fn look(&self, target: &Target, look: &Look<'_>) -> Seen {
        let got = self.get(&target.url, look.cancel);
        let mut readings = match got {
            Err(_) if look.cancel.is_set() => return Seen::Nothing,
            Ok(got) => self.readings(&target.name, &got),
            Err(error) => vec![Reading::failed_at(CONNECTIVITY, &target.name, self.level, error)],
        };
        if target.url.https && !self.cert_expiry.is_off() {
            let host = target.url.host.to_string();
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let endpoint = Endpoint { sni: host.clone(), host, port: target.url.port };
            // Whether somebody answers was said above; a certificate that does not come says no more.
            if let Ok(chain) = chain(&endpoint, Before::Nothing, look.deadline, look.cancel) {
                readings.push(judge(CERT_EXPIRY, &target.name, &self.cert_expiry, &chain, look.now_s));
            } else if readings[0].level == Level::Ok {
                readings[0].measured = false;
            }
        }
        if look.cancel.is_set() {
            return Seen::Nothing;
        }
        Seen::Readings(readings.into_iter().map(|reading| reading.label("method", self.method.0)).collect())
    }

    /// The error is for the reader of an alert.
    fn get(&self, url: &Url, cancel: &Cancel) -> Result<Got, String> {
        let started = Instant::now();
        let guard = Guard::new(Origin::Untrusted);
        let mut method = self.method.1;
        let (mut at, mut filter): (Url, Option<AddressFilter>) = (url.clone(), None);
        for hop in 0..=REDIRECTS_MAX {
            let left = self.timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(NetError::Timeout { phase: crate::net::Phase::Total, after: self.timeout }.to_string());
            }
            let timeouts = Timeouts { connect: left, first_byte: left, idle: left, total: Some(left) };
            // Another host needs a filter of its own.
            let filtered = filter.take().map(|filter| client(timeouts, self.verify_tls).with_filter(filter));
            let client = filtered.as_ref().unwrap_or(&self.client);
            let text = at.text();
            let own = at.origin() == url.origin();
            let mut call = Call::new(method, &text).timeouts(timeouts);
            if own {
                call = call.headers(&self.headers);
                if !self.body.is_empty() && matches!(method, Method::Post | Method::Put | Method::Patch) {
                    call = call.body(&self.body);
                }
            }
            if !(own && self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept"))) {
                call = call.header("accept", "*/*");
            }
            let mut answer = client.send(&call, cancel).map_err(|error| error.to_string())?;
            let time = started.elapsed();
            let location = answer.header("location").map(str::to_owned);
            let status = answer.status();
            if let (301..=303 | 307 | 308, Some(location)) = (status, &location)
                && self.redirects > 0
            {
                if hop >= self.redirects {
                    return Err(format!("redirected more than {} times", self.redirects));
                }
                let next = at.join(location).map_err(|reason| format!("redirected to no usable address: {reason}"))?;
                if next.host != url.host {
                    let refused =
                        |error| format!("redirected to {}: {error}; name it as a target itself", next.origin());
                    filter = Some(guard.check_url(&next.text()).map_err(refused)?.filter());
                }
                if status < 307 && method != Method::Head {
                    method = Method::Get;
                }
                at = next;
                continue;
            }
            let body = match self.expected {
                None => None,
                Some(_) => {
                    let (bytes, _) = answer.body_start(BODY_BYTES_MAX).map_err(|error| error.to_string())?;
                    Some(String::from_utf8_lossy(&bytes).into_owned())
                }
            };
            return Ok(Got { status, time, body });
        }
        Err(format!("redirected more than {REDIRECTS_MAX} times"))
    }

    fn readings(&self, target: &str, got: &Got) -> Vec<Reading> {
        let millis = got.time.as_secs_f64() * 1000.0;
        let code = got.status.to_string();
        let mut readings = vec![Reading::new(CONNECTIVITY, target, Level::Ok, format!("answers in {millis:.1}ms"))];
        readings.push(if glob::any(&self.status, &code) {
            Reading::new(STATUS_CODE, target, Level::Ok, format!("status {code}"))
        } else {
            let text = format!("status {code}, expected {}", self.status.join(", "));
            Reading::new(STATUS_CODE, target, self.mismatch_level, text)
        });
        if let (Some(expected), Some(body)) = (&self.expected, &got.body) {
            let (found, what) = match expected {
                Expected::Part(part) => (body.contains(part), format!("{part:?}")),
                Expected::Regex(regex) => (regex.is_match(body), "the regular expression".to_owned()),
            };
            readings.push(if found {
                Reading::new(RESPONSE_BODY, target, Level::Ok, "the body is as expected")
            } else {
                let text = format!("the body ({} bytes read) does not hold {what}", body.len());
                Reading::new(RESPONSE_BODY, target, self.mismatch_level, text)
            });
        }
        readings.extend(self.response_time.reading(RESPONSE_TIME, target, "response time", millis));
        let dress = |reading: Reading| {
            reading.attr("status_code", code.clone()).attr("response_time", format!("{millis:.1}ms"))
        };
        readings.into_iter().map(dress).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::each::tests::{lines, round};
    use crate::checks::peek::tests::tls_server;
    use crate::checks::testing::Bench;
    use crate::checks::x509::tests::LASTING;
    use crate::diag::HostRoot;
    use crate::net::test_peer::{LONG, Peer, Step, send, whole};
    use serde_json::json;

    /// The readings of one round, each as `check level: description` without the plugin's name.
    fn look(mut table: Value, url: &str) -> Vec<String> {
        table["targets"] = json!(url);
        let bench = Bench::new();
        let mut checks = bench.build(build, &table);
        let (readings, ..) = round(&mut *checks[0], &HostRoot::system());
        assert!(readings.iter().all(|reading| reading.labels[0].0 == "method"));
        let plain = |line: &String| line.trim_start_matches("http::").replace(&format!("{url} "), "");
        lines(&readings).iter().map(plain).collect()
    }

    fn starts(found: &[String], expected: &[&str]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (line, expected) in found.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line:?}, not {expected:?}");
        }
    }

    #[test]
    fn status_body_and_time_are_judged() {
        let peer = Peer::new((0..3).map(|_| vec![whole("200 OK", "", "all is well")]).collect());
        starts(&look(json!({}), &peer.url()), &["connectivity Ok: answers in ", "status_code Ok: status 200"]);
        let table = json!({"expect_status": "204", "expect_body": "/w.ll$/", "response_time": {"warn": 0.0001}});
        let expected = [
            "connectivity Ok",
            "status_code Warning: status 200, expected 204",
            "response_body Ok",
            "response_time Warning: response time ",
        ];
        starts(&look(table, &peer.url()), &expected);
        let found = look(json!({"expect_body": "ill", "mismatch_severity": "Critical"}), &peer.url());
        assert_eq!(found[2], "response_body Critical: the body (11 bytes read) does not hold \"ill\"");
    }

    #[test]
    fn what_is_configured_is_sent() {
        let peer = Peer::one(vec![whole("200 OK", "", "")]);
        let mut table = json!({"method": "POST", "body": "{\"a\":1}", "headers": {"X-Key": "k"}});
        table["targets"] = json!([format!("{}/p?q", peer.url())]);
        let bench = Bench::new();
        let (readings, ..) = round(&mut *bench.build(build, &table)[0], &HostRoot::system());
        assert_eq!(readings[1].target, format!("{}/p?%2A%2A%2A", peer.url()));
        let (head, body) = peer.requests.recv().unwrap();
        assert!(
            head.starts_with("POST /p?q HTTP/1.1\r\n") && head.to_lowercase().contains("\r\nx-key: k\r\n"),
            "{head}"
        );
        assert_eq!(body, json!({"a": 1}));
    }

    #[test]
    fn redirects_are_followed_within_bounds_and_without_secrets() {
        let to = |place: &str| vec![whole("302 Found", &format!("Location: {place}\r\n"), "")];
        let peer = Peer::new(vec![to("/b"), vec![whole("200 OK", "", "")]]);
        let table = json!({"headers": {"Authorization": "Bearer x"}, "method": "POST"});
        starts(&look(table, &peer.url()), &["connectivity Ok", "status_code Ok: status 200"]);
        assert!(peer.requests.recv().unwrap().0.starts_with("POST / "));
        let head = peer.requests.recv().unwrap().0;
        assert!(head.starts_with("GET /b ") && head.contains("Bearer x"), "the same origin: {head}");
        // Another port of the same host is another origin.
        let other = Peer::one(vec![whole("200 OK", "", "")]);
        let peer = Peer::one(to(&other.url()));
        starts(
            &look(json!({"headers": {"Authorization": "Bearer x"}}), &peer.url()),
            &["connectivity Ok", "status_code Ok"],
        );
        assert!(!other.requests.recv().unwrap().0.contains("Bearer"));
        let peer = Peer::new((0..6).map(|_| to("/loop")).collect());
        starts(&look(json!({}), &peer.url()), &["connectivity Critical: redirected more than 5 times"]);
        let peer = Peer::one(to("/x"));
        starts(&look(json!({"redirects": 0}), &peer.url()), &["connectivity Ok", "status_code Warning: status 302"]);
        for (place, part) in [
            ("http://169.254.169.254/latest", "always refused"),
            ("http://192.168.0.1/", "refused"),
            ("ftp://x/", "no usable address"),
        ] {
            let peer = Peer::one(to(place));
            let found = look(json!({}), &peer.url());
            assert!(
                found[0].starts_with("connectivity Critical: redirected to ") && found[0].contains(part),
                "{found:?}"
            );
        }
    }

    #[test]
    fn peers_that_misbehave_are_told_apart() {
        let quick = json!({"timeout": "80ms", "severity": "Warning"});
        let peer = Peer::one(vec![Step::Stall]);
        starts(&look(quick.clone(), &peer.url()), &["connectivity Warning: time-out"]);
        let peer = Peer::one(vec![send("garbage\r\n\r\n"), Step::Cut]);
        starts(&look(json!({}), &peer.url()), &["connectivity Critical: "]);
        let peer = Peer::one(vec![Step::Cut]);
        starts(&look(json!({}), &peer.url()), &["connectivity Critical: "]);
        // An endless body is read as far as it has to be.
        let mut flood = vec![send("HTTP/1.1 200 OK\r\n\r\n")];
        flood.push(send("x".repeat(3 * BODY_BYTES_MAX)));
        let peer = Peer::one(flood);
        let found = look(json!({"expect_body": "y"}), &peer.url());
        assert!(found[2].contains("(1048576 bytes read)"), "{found:?}");
        starts(&look(json!({}), "http://no.such.name.invalid/"), &["connectivity Critical: connect: unknown host"]);
    }

    #[test]
    fn a_certificate_is_looked_at_though_nobody_trusts_it() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let (port, threads) = tls_server(&[LASTING], 2, &[], answer);
        let found = look(json!({"verify_tls": false}), &format!("https://localhost:{port}/"));
        starts(
            &found,
            &["connectivity Ok", "status_code Ok: status 200", "cert_expiry Ok: certificate of holt.test ends on"],
        );
        assert!(threads.join_all(LONG).is_empty());
        let (port, threads) = tls_server(&[LASTING], 2, &[], answer);
        let found = look(json!({}), &format!("https://localhost:{port}/"));
        starts(&found, &["connectivity Critical: connect: ", "cert_expiry Ok"]);
        assert!(threads.join_all(LONG).is_empty());
    }

    #[test]
    fn settings_are_checked_and_names_hold_no_password() {
        let bench = Bench::new();
        for (table, key) in [
            (json!({}), "targets"),
            (json!({"targets": "nas.local"}), "targets"),
            (json!({"targets": "http://x", "method": "BREW"}), "method"),
            (json!({"targets": "http://x", "body": "x"}), "body"),
            (json!({"targets": "http://x", "headers": {"Host": "x"}}), "headers"),
            (json!({"targets": "http://x", "headers": ["x"]}), "headers"),
            (json!({"targets": "http://x", "expect_status": "ok"}), "expect_status"),
            (json!({"targets": "http://x", "expect_body": "/(/"}), "expect_body"),
            (json!({"targets": "http://x", "redirects": 6}), "redirects"),
        ] {
            assert_eq!(bench.refused(build, &table), format!("checks.x.{key}"));
        }
        let found = look(json!({"timeout": "50ms"}), "http://me:hunter2@127.0.0.1:1/");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}
