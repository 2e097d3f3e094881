//! The services against scripted peers: correct ones, slow ones, refusing ones, and those that talk garbage or die.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::channel::{Channel, Message, SendError};
use super::mqtt::Mqtt;
use super::smtp::Smtp;
use super::web;
use super::{HUB_TOPIC, Kind, MachineState, Notice, Situation};
use crate::alert::Level;
use crate::config::{
    ChannelConfig, EmailConfig, Encryption, GotifyConfig, MqttConfig, NtfyConfig, Service, WebhookConfig,
};
use crate::net::test_peer::{self, Step as Http, send, whole};
use crate::rt::{Cancel, Threads, clock, lock};

const STACK_BYTES: usize = 256 * 1024;
const LONG: Duration = Duration::from_secs(60);
/// For peers that never answer.
const SHORT: Duration = Duration::from_millis(50);
/// A root that exists for these tests only, and what it signed: localhost and 127.0.0.1, until 2126.
const ROOT: &str = "-----BEGIN CERTIFICATE-----
MIIBfjCCASWgAwIBAgIUBiGOfdEXt3HeXhJ5vZ8hZQDeChIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJdGVzdCByb290MCAXDTI2MTEyMjExMDIwOVoYDzIxMjYxMDI5
MTEwMjA5WjAUMRIwEAYDVQQDDAl0ZXN0IHJvb3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATzcJkGhVVGnb7fdT2hNEEsWHuBoEfdCWMeC00DnIbIyrV7drOHXXjn
1f6FVwenv4HrAfTcGrhkMlHlVmuX502/o1MwUTAdBgNVHQ4EFgQUiFO7jAKr1xAX
yOcDagEhVYRSV3kwHwYDVR0jBBgwFoAUiFO7jAKr1xAXyOcDagEhVYRSV3kwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBsTmBOCJ9LR7pctxQ89mRu
//zE87sGwgFoRA/MvvfC6QIgF21vodTsGsfjf3792mJ4oZHjp0Qg48VP1biqazJK
SIo=
-----END CERTIFICATE-----";
const LEAF: &str = "-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUe54f/klLXSxzDAMnZzmbFtPpRGgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJdGVzdCByb290MCAXDTI2MTEyMjExMDIxMFoYDzIxMjYxMDI5
MTEwMjEwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAR09EA/TwfSzoRgDLRWIVWyxt8e56wbT3iWJSPmcpnlX3VASaEG96KW
wt4XUuU5Svh/2MwSF0WTj6k13REK6LQ5o2kwZzAaBgNVHREEEzARgglsb2NhbGhv
c3SHBH8AAAEwCQYDVR0TBAIwADAdBgNVHQ4EFgQUgO8SZOgwbJObTgN3zhx6A2NH
BwYwHwYDVR0jBBgwFoAUiFO7jAKr1xAXyOcDagEhVYRSV3kwCgYIKoZIzj0EAwID
SAAwRQIhAL0+BxDHhEVfMWX62OMtnLyhrwPIXxTTbJYxry7JBctTAiBJ0qQy/VnJ
BuzF1maLo/AnOefuweVLYRhn/FqUO/6Hlg==
-----END CERTIFICATE-----";
const LEAF_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg8crHFE8okNgo2hjQ
/SMtDhyzS9F+tKp9PAKUDeCI++WhRANCAAR09EA/TwfSzoRgDLRWIVWyxt8e56wb
T3iWJSPmcpnlX3VASaEG96KWwt4XUuU5Svh/2MwSF0WTj6k13REK6LQ5
-----END PRIVATE KEY-----";

fn config(service: Service, timeout: Duration) -> ChannelConfig {
    ChannelConfig {
        name: "c".into(),
        service,
        min_level: Level::Info,
        labels: [].into(),
        per_minute: 20,
        quiet: None,
        quiet_critical: false,
        escalate_after: None,
        recoveries: true,
        approvals: true,
        buttons: false,
        title: None,
        body: None,
        timeout,
    }
}

fn notice() -> Notice {
    Notice {
        dedup: "alert:7".into(),
        level: Level::Critical,
        body: "92 % used".into(),
        machine: "nas".into(),
        check: "disk::space_usage".into(),
        target: "/data".into(),
        time: 1_767_323_045_678,
        ..Notice::default()
    }
}

fn try_send(channel: &mut dyn Channel, cancel: &Cancel) -> Result<(), SendError> {
    let notice = notice();
    let (title, body) = (notice.shown_title(), notice.body.clone());
    channel.send(
        &Message { notice: &notice, title, body, link: "http://hub/#/alerts".into(), buttons: Vec::new() },
        cancel,
    )
}

fn deliver(channel: &mut dyn Channel) -> Result<(), SendError> {
    try_send(channel, &Cancel::new())
}

#[track_caller]
fn assert_later(result: Result<(), SendError>, part: &str) {
    match result {
        Err(SendError::Later { cause, .. }) => assert!(cause.contains(part), "{cause}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(result: Result<(), SendError>, part: &str) {
    match result {
        Err(SendError::Refused(cause)) => assert!(cause.contains(part) && !cause.contains("hunter2"), "{cause}"),
        other => panic!("{other:?}"),
    }
}

// --- HTTP ---

fn ntfy(server: String, timeout: Duration) -> web::Web {
    let ntfy = NtfyConfig {
        server,
        topic: "home".into(),
        token: Some("hunter2".into()),
        user: None,
        priorities: [5, 4, 3, 3],
        tags: vec!["site".into()],
    };
    web::ntfy(&config(Service::Ntfy(ntfy.clone()), timeout), &ntfy).unwrap()
}

#[test]
fn ntfy_and_gotify_get_what_they_show() {
    let peer = test_peer::Peer::one(vec![whole("200 OK", "", "{}"), Http::Cut]);
    assert_eq!(deliver(&mut ntfy(peer.url(), LONG)), Ok(()));
    let (head, body) = peer.requests.recv().unwrap();
    assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nauthorization: bearer hunter2\r\n"), "{head}");
    let expected = json!({
        "topic": "home", "title": "Critical: disk::space_usage /data on nas", "message": "92 % used", "priority": 5,
        "tags": ["rotating_light", "site"], "click": "http://hub/#/alerts",
        "actions": [{"action": "view", "label": "Open", "url": "http://hub/#/alerts"}],
    });
    assert_eq!(body, expected);

    let peer = test_peer::Peer::one(vec![whole("200 OK", "", "{}"), Http::Cut]);
    let gotify = GotifyConfig { server: peer.url(), token: "hunter2".into(), priorities: [9, 6, 3, 3] };
    let mut channel = web::gotify(&config(Service::Gotify(gotify.clone()), LONG), &gotify).unwrap();
    assert_eq!(deliver(&mut channel), Ok(()));
    let (head, body) = peer.requests.recv().unwrap();
    assert!(head.starts_with("POST /message HTTP/1.1\r\n") && !head.lines().next().unwrap().contains("hunter2"));
    assert!(head.to_ascii_lowercase().contains("\r\nx-gotify-key: hunter2\r\n"), "{head}");
    assert_eq!((&body["priority"], &body["message"]), (&json!(9), &json!("92 % used")));
}

#[test]
fn web_hooks_are_signed_over_time_and_body() {
    let peer = test_peer::Peer::one(vec![whole("204 No Content", "", ""), Http::Cut]);
    let hook = WebhookConfig {
        url: format!("{}/hook?k=1", peer.url()),
        headers: [("X-Own".to_owned(), "yes".to_owned())].into(),
        secret: Some("hunter2".into()),
    };
    let mut channel = web::webhook(&config(Service::Webhook(hook.clone()), LONG), &hook).unwrap();
    assert_eq!(deliver(&mut channel), Ok(()));
    let (head, body) = peer.requests.recv().unwrap();
    let line = |name: &str| {
        let found = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        found.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned()).unwrap()
    };
    assert_eq!(line("x-own"), "yes");
    let signature = line("x-holt-signature");
    let (at, tag) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"hunter2");
    let expected = ring::hmac::sign(&key, format!("{at}.{body}").as_bytes());
    assert_eq!(tag, crate::rt::text::hex(expected.as_ref()));
    assert!((at.parse::<i64>().unwrap() - clock::unix_s()).abs() < 60);
    assert_eq!((&body["id"], &body["kind"], &body["level"]), (&json!("alert:7"), &json!("firing"), &json!("Critical")));
    let bad = |name: &str, url: &str| {
        let headers = [(name.to_owned(), "x".to_owned())].into();
        let hook = WebhookConfig { url: url.into(), headers, secret: None };
        web::webhook(&config(Service::Webhook(hook.clone()), LONG), &hook).err()
    };
    assert!(bad("Host", "http://h/").unwrap().contains("Host"));
    assert!(bad("X", "http://169.254.169.254/").unwrap().contains("always refused"));
}

#[test]
fn answers_over_http_are_told_apart() {
    let answered = |steps: Vec<Http>, timeout: Duration| {
        let peer = test_peer::Peer::one(steps);
        deliver(&mut ntfy(peer.url(), timeout))
    };
    let status = |line: &str, extra: &str, body: &str| answered(vec![whole(line, extra, body), Http::Cut], LONG);
    assert_refused(status("400 Bad", "", r#"{"error":"topic hunter2 reserved"}"#), "answered 400");
    assert_refused(status("400 Bad", "", r#"{"error":"a\u0007b"}"#), "answered 400: ab");
    assert_refused(status("400 Bad", "", r#"{"error":"topic reserved"}"#), "topic reserved");
    assert_refused(status("403 No", "", r#"{"error":"hunter2"}"#), "does not accept the credential");
    assert_refused(status("301 Moved", "Location: http://evil/\r\n", ""), "redirects");
    assert!(matches!(status("500 Oops", "", ""), Err(SendError::Broken(_))));
    match status("429 Slow", "Retry-After: 77\r\n", "") {
        Err(SendError::Later { after, .. }) => assert_eq!(after, Some(Duration::from_secs(77))),
        other => panic!("{other:?}"),
    }
    assert_later(status("503 Busy", "", ""), "503");
    assert_later(answered(vec![send("SSH-2.0-x\r\n"), Http::Cut], LONG), "");
    assert_later(answered(vec![send("HTTP/1.1 2"), Http::Cut], LONG), "");
    assert_later(answered(vec![Http::Stall], SHORT), "time-out");
    // A body that never ends does not hold the channel.
    let head = "HTTP/1.1 404 None\r\nContent-Length: 1000000\r\n\r\n";
    assert_refused(answered(vec![send(head), send("x".repeat(5000)), Http::Cut], LONG), "404");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_later(deliver(&mut ntfy(format!("http://{closed}"), LONG)), "connect");
    let (signal_tx, signal_rx) = bounded(1);
    let peer = test_peer::Peer::one(vec![Http::Signal(signal_tx), Http::Stall]);
    let (cancel, mut channel, threads) = (Cancel::new(), ntfy(peer.url(), LONG), Threads::new());
    let other = cancel.clone();
    let stopping = move || {
        signal_rx.recv().unwrap();
        other.cancel();
    };
    threads.spawn("stops", STACK_BYTES, stopping).unwrap();
    assert_eq!(try_send(&mut channel, &cancel), Err(SendError::Cancelled));
    threads.join_all(LONG);
}

// --- SMTP ---

enum Step {
    Say(&'static str),
    /// Hears a line.
    Hear,
    /// Hears a mail to its dot.
    Mail,
    Tls,
    /// Waits until the client hangs up.
    Stall,
}

use Step::{Hear, Mail, Say, Stall, Tls};

trait Talk: Read + Write + Send {}
impl<T: Read + Write + Send> Talk for T {}

struct Server {
    port: u16,
    heard: Receiver<String>,
    threads: Threads,
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.threads.join_all(LONG), Vec::<String>::new());
        }
    }
}

impl Server {
    fn start(play: impl FnOnce(TcpStream, &Sender<String>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tx, heard) = bounded(256);
        let threads = Threads::new();
        threads.spawn("server", STACK_BYTES, move || play(listener.accept().unwrap().0, &tx)).unwrap();
        Self { port, heard, threads }
    }

    fn smtp(script: Vec<Step>) -> Self {
        Self::start(move |stream, tx| {
            let mut raw = Some(stream.try_clone().unwrap());
            let mut stream: Box<dyn Talk> = Box::new(stream);
            for step in script {
                match step {
                    // A client that has hung up is the test's business.
                    Say(text) => drop(stream.write_all(text.as_bytes())),
                    Hear => tx.send(hear(&mut *stream, "\r\n")).unwrap(),
                    Mail => tx.send(hear(&mut *stream, "\r\n.\r\n")).unwrap(),
                    Tls => stream = Box::new(tls(raw.take().unwrap())),
                    Stall => drop(stream.read(&mut [0; 16])),
                }
            }
        })
    }

    fn all_heard(&self) -> Vec<String> {
        self.threads.join_all(LONG);
        self.heard.try_iter().map(|line| line.trim_end().to_owned()).collect()
    }
}

fn hear(stream: &mut dyn Talk, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) && matches!(stream.read(&mut byte), Ok(1)) {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

fn tls(stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(LEAF.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(LEAF_KEY.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}

fn ca_file(dir: &tempfile::TempDir) -> Option<String> {
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, ROOT).unwrap();
    Some(path.to_str().unwrap().to_owned())
}

fn email(port: u16, encryption: Encryption, change: impl FnOnce(&mut EmailConfig), timeout: Duration) -> Smtp {
    let mut email = EmailConfig {
        host: "127.0.0.1".into(),
        port,
        encryption,
        ca_file: None,
        user: None,
        allow_plain_auth: false,
        from: "Holt <holt@e.net>".into(),
        to: vec!["a@e.net".into(), "B <b@e.net>".into()],
    };
    change(&mut email);
    Smtp::new(&config(Service::Email(email.clone()), timeout), &email, jiff::tz::TimeZone::UTC).unwrap()
}

/// From `MAIL FROM` to the goodbye.
fn transaction() -> Vec<Step> {
    let ok = "250 ok\r\n";
    vec![Hear, Say(ok), Hear, Say(ok), Hear, Say(ok), Hear, Say("354 go\r\n"), Mail, Say("250 2.0.0 queued\r\n"), Hear]
}

fn script(begin: Vec<Step>) -> Vec<Step> {
    begin.into_iter().chain(transaction()).collect()
}

#[test]
fn mail_goes_out_over_all_three_kinds_of_connections() {
    let dir = tempfile::tempdir().unwrap();
    let login = |email: &mut EmailConfig| {
        email.ca_file = ca_file(&dir);
        email.user = Some(("u".into(), "hunter2".into()));
    };
    let plain = || vec![Say("220-hello\r\n220 there\r\n"), Hear, Say("250-me\r\n250 SIZE 1000\r\n")];
    let server = Server::smtp(script(plain()));
    assert_eq!(deliver(&mut email(server.port, Encryption::None, |_| {}, LONG)), Ok(()));
    let heard = server.all_heard();
    assert!(heard[0].starts_with("EHLO "), "{heard:?}");
    assert_eq!(heard[1..5], ["MAIL FROM:<holt@e.net>", "RCPT TO:<a@e.net>", "RCPT TO:<b@e.net>", "DATA"]);
    assert!(heard[5].contains("\r\nSubject: Critical: disk::space_usage") && heard[5].ends_with("\r\n."), "{heard:?}");
    assert!(!heard[5].trim_end_matches("\r\n.").contains("\r\n."));
    assert_eq!(heard[6], "QUIT");

    let implicit =
        vec![Tls, Say("220 hi\r\n"), Hear, Say("250-me\r\n250 AUTH LOGIN PLAIN\r\n"), Hear, Say("235 ok\r\n")];
    let server = Server::smtp(script(implicit));
    assert_eq!(deliver(&mut email(server.port, Encryption::Tls, login, LONG)), Ok(()));
    assert_eq!(server.all_heard()[1], "AUTH PLAIN AHUAaHVudGVyMg==");

    let begun = vec![
        Say("220 hi\r\n"),
        Hear,
        Say("250-me\r\n250-AUTH PLAIN\r\n250 starttls\r\n"),
        Hear,
        Say("220 go\r\n"),
        Tls,
        Hear,
        Say("250-me\r\n250 AUTH LOGIN\r\n"),
        Hear,
        Say("334 VXNlcm5hbWU6\r\n"),
        Hear,
        Say("334 UGFzc3dvcmQ6\r\n"),
        Hear,
        Say("235 ok\r\n"),
    ];
    let server = Server::smtp(script(begun));
    assert_eq!(deliver(&mut email(server.port, Encryption::StartTls, login, LONG)), Ok(()));
    let heard = server.all_heard();
    assert_eq!(heard[1], "STARTTLS");
    assert_eq!(heard[3..6], ["AUTH LOGIN", "dQ==", "aHVudGVyMg=="]);
}

#[test]
fn a_password_travels_under_tls_only_and_only_to_the_right_server() {
    let dir = tempfile::tempdir().unwrap();
    let user = Some(("u".to_owned(), "hunter2".to_owned()));
    let login = |email: &mut EmailConfig| {
        email.user.clone_from(&user);
        email.ca_file = ca_file(&dir);
    };
    let greeted = |more: Vec<Step>| {
        let mut script = vec![Say("220 hi\r\n"), Hear];
        script.extend(more);
        Server::smtp(script)
    };
    // The settings refuse this already.
    let server = greeted(vec![Say("250-me\r\n250 AUTH PLAIN\r\n"), Stall]);
    assert_refused(deliver(&mut email(server.port, Encryption::None, login, LONG)), "without TLS");
    // STARTTLS was cut out of the offer on the way.
    let server = greeted(vec![Say("250-me\r\n250 AUTH PLAIN\r\n"), Stall]);
    assert_refused(deliver(&mut email(server.port, Encryption::StartTls, login, LONG)), "no STARTTLS");
    // Somebody talks into the dialogue before it is protected.
    let server = greeted(vec![Say("250-me\r\n250 STARTTLS\r\n"), Hear, Say("220 go\r\n250 AUTH PLAIN\r\n"), Stall]);
    assert_later(deliver(&mut email(server.port, Encryption::StartTls, login, LONG)), "before TLS");
    // A certificate of a root that we do not know.
    let server = Server::smtp(vec![Tls, Say("220 hi\r\n"), Stall]);
    let unknown = |email: &mut EmailConfig| email.user.clone_from(&user);
    assert_later(deliver(&mut email(server.port, Encryption::Tls, unknown, LONG)), "TLS");
    // Refused logins do not quote what was sent.
    let server = Server::smtp(vec![
        Tls,
        Say("220 hi\r\n"),
        Hear,
        Say("250-me\r\n250 AUTH PLAIN\r\n"),
        Hear,
        Say("535 hunter2 is wrong\r\n"),
        Stall,
    ]);
    assert_refused(deliver(&mut email(server.port, Encryption::Tls, login, LONG)), "user or password (535)");
    let server = Server::smtp(vec![Tls, Say("220 hi\r\n"), Hear, Say("250-me\r\n250 AUTH CRAM-MD5\r\n"), Stall]);
    assert_refused(deliver(&mut email(server.port, Encryption::Tls, login, LONG)), "neither");
    let allowed = |email: &mut EmailConfig| {
        login(email);
        email.allow_plain_auth = true;
    };
    let server = Server::smtp(script(vec![
        Say("220 hi\r\n"),
        Hear,
        Say("250-me\r\n250 AUTH PLAIN\r\n"),
        Hear,
        Say("235 ok\r\n"),
    ]));
    assert_eq!(deliver(&mut email(server.port, Encryption::None, allowed, LONG)), Ok(()));
    server.all_heard();
}

#[test]
fn hostile_and_dying_mail_servers_are_survived() {
    let answered = |script: Vec<Step>, timeout: Duration| {
        let server = Server::smtp(script);
        deliver(&mut email(server.port, Encryption::None, |_| {}, timeout))
    };
    let ok = "250 ok\r\n";
    assert_later(answered(vec![Say("HTTP/1.1 400 Bad Request\r\n"), Stall], LONG), "not speak SMTP");
    assert_later(answered(vec![Say("220\r\n"), Hear, Say("2500 ok\r\n"), Stall], LONG), "not speak SMTP");
    assert_later(answered(vec![Say("220 hi\r\n"), Hear], LONG), "hung up");
    assert_later(answered(vec![Say("421 too busy\r\n"), Stall], LONG), "421 too busy");
    assert_refused(answered(vec![Say("554 go\u{7} away\r\n"), Stall], LONG), "554 go away");
    assert_later(answered(vec![Stall], SHORT), "too long");
    assert_later(answered(vec![Say("220 hi\r\n"), Hear, Say("250 half"), Stall], SHORT), "too long");
    // Lines and replies without an end.
    let long: &'static str = Box::leak("220 x".repeat(1000).into_boxed_str());
    assert_later(answered(vec![Say(long), Stall], LONG), "not speak SMTP");
    let many: &'static str = Box::leak("220-x\r\n".repeat(200).into_boxed_str());
    assert_later(answered(vec![Say(many), Stall], LONG), "not speak SMTP");
    // One address of two is refused: the other one gets the mail. Both: nobody.
    let hi = || vec![Say("220 hi\r\n"), Hear, Say(ok), Hear, Say(ok)];
    let mut one = hi();
    one.extend([Hear, Say("550 unknown\r\n"), Hear, Say(ok), Hear, Say("354 go\r\n"), Mail, Say(ok), Hear]);
    assert_eq!(answered(one, LONG), Ok(()));
    let mut none = hi();
    none.extend([Hear, Say("550 unknown\r\n"), Hear, Say("550 unknown\r\n"), Stall]);
    assert_refused(answered(none, LONG), "550 unknown");
    // It dies after the mail, before it says that it has it.
    let mut dies = hi();
    dies.extend([Hear, Say(ok), Hear, Say(ok), Hear, Say("354 go\r\n"), Mail]);
    assert_later(answered(dies, LONG), "hung up");
    // A server of long ago.
    let mut old = vec![Say("220 hi\r\n"), Hear, Say("502 what?\r\n"), Hear, Say(ok)];
    old.extend(transaction());
    assert_eq!(answered(old, LONG), Ok(()));
}

// --- MQTT ---

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Kind,
    /// Refuses the connection with that code.
    Refuses(u8),
    Garbage,
    Silent,
    /// Hangs up after so many publications.
    Dies(usize),
    /// Acknowledges what was not sent.
    Liar,
}

/// A broker for one connection after another, a mood each.
fn broker(moods: Vec<Mood>, with_tls: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tx, heard) = bounded(256);
    let threads = Threads::new();
    let serving = move || {
        for mood in moods {
            let stream = listener.accept().unwrap().0;
            let mut stream: Box<dyn Talk> = if with_tls { Box::new(tls(stream)) } else { Box::new(stream) };
            serve_mqtt(&mut *stream, mood, &tx);
            tx.send("end".into()).unwrap();
        }
    };
    threads.spawn("broker", STACK_BYTES, serving).unwrap();
    Server { port, heard, threads }
}

fn serve_mqtt(stream: &mut dyn Talk, mood: Mood, tx: &Sender<String>) {
    let mut published = 0;
    while let Some((kind, body)) = read_packet(stream) {
        let text = |at: usize| {
            let len = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
            (String::from_utf8(body[at + 2..at + 2 + len].to_vec()).unwrap(), at + 2 + len)
        };
        let answer = match kind & 0xf0 {
            0x10 => {
                assert_eq!(body[..7], *b"\x00\x04MQTT\x04");
                let (_, at) = text(10);
                let (topic, at) = text(at);
                let (will, _) = text(at);
                tx.send(format!("connect flags={:08b} will={topic}={will}", body[7])).unwrap();
                match mood {
                    Mood::Refuses(code) => vec![0x20, 2, 0, code],
                    Mood::Garbage => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
                    Mood::Silent => Vec::new(),
                    Mood::Kind | Mood::Dies(_) | Mood::Liar => vec![0x20, 2, 0, 0],
                }
            }
            0x30 => {
                let (topic, at) = text(0);
                let payload = String::from_utf8(body[at + 2..].to_vec()).unwrap();
                let retained = if kind & 1 == 1 { "keep" } else { "pass" };
                tx.send(format!("{retained} {topic} {payload}")).unwrap();
                published += 1;
                if mood == Mood::Dies(published) {
                    return;
                }
                if mood == Mood::Liar { vec![0x40, 2, 0xff, 0xff] } else { vec![0x40, 2, body[at], body[at + 1]] }
            }
            0xc0 => {
                tx.send("ping".into()).unwrap();
                vec![0xd0, 0]
            }
            0xe0 => {
                tx.send("disconnect".into()).unwrap();
                return;
            }
            other => panic!("packet {other:#x}"),
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn read_packet(stream: &mut dyn Talk) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    let kind = byte[0];
    let (mut len, mut shift) = (0_usize, 0);
    loop {
        stream.read_exact(&mut byte).ok()?;
        len |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    Some((kind, body))
}

#[derive(Default)]
struct Machines(Mutex<Vec<MachineState>>);

impl Situation for Machines {
    fn machines(&self) -> Option<Vec<MachineState>> {
        Some(lock(&self.0).clone())
    }

    fn is_unattended(&self, _notice: &Notice) -> bool {
        true
    }
}

fn machine(level: Level) -> MachineState {
    MachineState { id: "m1".into(), name: "nas".into(), level, open: 1, is_online: true }
}

fn mqtt(port: u16, machines: &Arc<Machines>, change: impl FnOnce(&mut MqttConfig), timeout: Duration) -> Mqtt {
    let mut mqtt = MqttConfig {
        host: "127.0.0.1".into(),
        port,
        tls: false,
        ca_file: None,
        user: None,
        client_id: None,
        prefix: None,
        discovery: None,
        keep_alive_s: 30,
    };
    change(&mut mqtt);
    let situation: Arc<dyn Situation> = Arc::<Machines>::clone(machines);
    Mqtt::new(&config(Service::Mqtt(mqtt.clone()), timeout), &mqtt, HUB_TOPIC, &situation).unwrap()
}

#[test]
fn a_broker_learns_of_machines_notices_and_the_end() {
    let machines = Arc::new(Machines::default());
    lock(&machines.0).push(machine(Level::Warning));
    let dir = tempfile::tempdir().unwrap();
    let server = broker(vec![Mood::Kind], true);
    let secure = |mqtt: &mut MqttConfig| {
        mqtt.tls = true;
        mqtt.ca_file = ca_file(&dir);
        mqtt.discovery = Some("ha".into());
        mqtt.user = Some(("u".into(), "hunter2".into()));
    };
    let mut channel = mqtt(server.port, &machines, secure, LONG);
    let (cancel, now) = (Cancel::new(), clock::unix_ms());
    let next = channel.tend(now, &cancel).unwrap();
    let heard = |count: usize| (0..count).map(|_| server.heard.recv_timeout(LONG).unwrap()).collect::<Vec<_>>();
    let first = heard(6);
    assert_eq!(first[..2], ["connect flags=11101110 will=holt/status=offline", "keep holt/status online"]);
    assert!(first[2].starts_with("keep ha/binary_sensor/holt_m1/problem/config {"), "{first:?}");
    let state: Value = serde_json::from_str(first[5].strip_prefix("keep holt/machines/m1 ").unwrap()).unwrap();
    assert_eq!(state["problem"], "ON");
    // Nothing has changed, but for a burst that is looked at once.
    assert_eq!(next, now + 1000);
    lock(&machines.0)[0] = machine(Level::Ok);
    assert_eq!(channel.tend(now + 500, &cancel), Some(now + 1000));
    let next = channel.tend(now + 1000, &cancel).unwrap();
    assert!(heard(1)[0].contains(r#""problem":"OFF""#));
    assert_eq!(next, now + 2000);
    let next = channel.tend(next, &cancel).unwrap();
    assert_eq!(try_send(&mut channel, &cancel), Ok(()));
    assert!(heard(1)[0].starts_with("pass holt/notices {"));
    // Kept alive, then the machine is gone, then we are.
    assert!(next > now + 2000);
    channel.tend(now + 60_000, &cancel).unwrap();
    assert_eq!(heard(1), ["ping"]);
    lock(&machines.0).clear();
    channel.tend(now + 62_000, &cancel).unwrap();
    assert_eq!(heard(4)[3], "keep holt/machines/m1 ");
    channel.close();
    assert_eq!(heard(3), ["keep holt/status offline", "disconnect", "end"]);
}

#[test]
fn hostile_and_dying_brokers_are_survived() {
    let machines = Arc::new(Machines::default());
    let answered = |mood: Mood, timeout: Duration| {
        let server = broker(vec![mood], false);
        let sent = deliver(&mut mqtt(server.port, &machines, |_| {}, timeout));
        server.all_heard();
        sent
    };
    assert_eq!(answered(Mood::Kind, LONG), Ok(()));
    assert_refused(answered(Mood::Refuses(5), LONG), "user or password (5)");
    assert_later(answered(Mood::Refuses(3), LONG), "not ready (3)");
    assert_later(answered(Mood::Garbage, LONG), "not speak MQTT");
    assert_later(answered(Mood::Liar, LONG), "not asked");
    assert_later(answered(Mood::Silent, SHORT), "too long");
    assert_later(answered(Mood::Dies(2), LONG), "");
}

#[test]
fn a_lost_session_is_made_anew_and_told_everything_again() {
    let machines = Arc::new(Machines::default());
    lock(&machines.0).push(machine(Level::Critical));
    let server = broker(vec![Mood::Dies(1), Mood::Kind], false);
    let mut channel = mqtt(server.port, &machines, |_| {}, LONG);
    let (cancel, now) = (Cancel::new(), clock::unix_ms());
    let retry_at = channel.tend(now, &cancel).unwrap();
    assert_eq!(retry_at, now + 2000);
    // Not before its time.
    assert_eq!(channel.tend(now + 1000, &cancel), Some(retry_at));
    channel.tend(retry_at, &cancel).unwrap();
    channel.close();
    let heard = server.all_heard();
    let kept: Vec<_> =
        heard.iter().filter(|line| line.starts_with("keep")).map(|line| line.split(' ').nth(1)).collect();
    let (status, state) = (Some("holt/status"), Some("holt/machines/m1"));
    assert_eq!(kept, [status, status, state, status]);
}

#[test]
fn tests_and_approvals_say_what_they_are() {
    let peer = test_peer::Peer::one(vec![whole("200 OK", "", "{}"), Http::Cut]);
    let notice = Notice { kind: Kind::Approval, title: "Approval: default wants to use kv_set".into(), ..notice() };
    let message = Message {
        notice: &notice,
        title: notice.title.clone(),
        body: String::new(),
        link: String::new(),
        buttons: Vec::new(),
    };
    assert_eq!(ntfy(peer.url(), LONG).send(&message, &Cancel::new()), Ok(()));
    let (_, body) = peer.requests.recv().unwrap();
    assert_eq!((&body["tags"][0], &body["message"]), (&json!("raised_hand"), &json!(notice.title)));
    assert!(body.get("click").is_none() && body.get("actions").is_none());
}
