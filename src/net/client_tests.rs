//! The client against a scripted peer on a real socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::guard::{Guard, Origin};
use super::test_peer::{LONG, Peer, Step, TIMEOUTS, chunk, end, send, stream_head, whole};
use super::*;
use crate::rt::{Cancel, lock};

fn client() -> HttpClient {
    HttpClient::new(TIMEOUTS)
}

#[test]
fn every_method_is_sent_with_its_headers_and_body() {
    let check = |method: Method, body: Option<&str>, line: &str| {
        let peer = Peer::one(vec![whole("200 OK", "X-One: 1\r\nX-One: 2\r\nMcp-Session-Id: s\r\n", "")]);
        let (client, cancel) = (client(), Cancel::new());
        let url = peer.url() + "/p?q=1";
        let mut call = Call::new(method, &url).header("accept", "text/html").header("x-two", "2");
        if let Some(body) = body {
            call = call.body(body.as_bytes()).header("Content-Type", "application/problem+json");
        }
        let mut answer = client.send(&call, &cancel).unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("MCP-Session-ID"), Some("s"));
        assert_eq!(answer.headers().filter(|(name, _)| *name == "x-one").count(), 2);
        if method != Method::Head {
            assert_eq!(answer.body(10).unwrap(), b"");
        }
        let (head, sent) = peer.requests.recv_timeout(LONG).unwrap();
        assert!(head.starts_with(line), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\naccept: text/html\r\n") && head.contains("\r\nx-two: 2\r\n"), "{head}");
        assert_eq!(head.matches("accept:").count(), 1, "{head}");
        assert_eq!(head.contains("content-type: application/problem+json\r\n"), body.is_some(), "{head}");
        assert_eq!(sent, body.map_or(json!(null), |body| serde_json::from_str(body).unwrap()));
    };
    check(Method::Get, None, "GET /p?q=1 HTTP/1.1\r\n");
    check(Method::Head, None, "HEAD /p?q=1 HTTP/1.1\r\n");
    check(Method::Delete, None, "DELETE /p?q=1 HTTP/1.1\r\n");
    check(Method::Post, None, "POST /p?q=1 HTTP/1.1\r\n");
    check(Method::Post, Some("{\"a\":1}"), "POST /p?q=1 HTTP/1.1\r\n");
    check(Method::Put, Some("[]"), "PUT /p?q=1 HTTP/1.1\r\n");
    check(Method::Patch, Some("[]"), "PATCH /p?q=1 HTTP/1.1\r\n");
}

#[test]
fn redirects_are_given_to_the_caller() {
    let peer = Peer::one(vec![whole("302 Found", "Location: http://127.0.0.1:1/\r\n", "")]);
    let (client, cancel, url) = (client(), Cancel::new(), peer.url());
    let answer = client.send(&Call::get(&url), &cancel).unwrap();
    assert_eq!((answer.status(), answer.header("location")), (302, Some("http://127.0.0.1:1/")));
}

#[test]
fn addresses_are_checked_before_anything_is_connected() {
    let check = |url: &str, allowed: &[IpAddr], expected_asked: &[IpAddr]| {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, allowed) = (Arc::clone(&asked), allowed.to_vec());
        let filter: AddressFilter = Arc::new(move |ip| {
            lock(&heard).push(ip);
            allowed.contains(&ip)
        });
        let client = client().with_filter(filter);
        let result = client.send(&Call::get(url), &Cancel::new()).map(|answer| answer.status());
        assert_eq!(*lock(&asked), expected_asked, "{url}");
        result
    };
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let refused = Err(NetError::Refused { address: loopback });
    // Nobody accepts: a connection would hang the test in its peer.
    let peer = Peer::new(vec![]);
    let port = peer.addr.port();
    assert_eq!(check(&format!("http://127.0.0.1:{port}/"), &[], &[loopback]), refused);
    assert_eq!(check(&format!("http://[::ffff:127.0.0.1]:{port}/"), &[], &[loopback]), refused);
    assert_eq!(check(&format!("http://2130706433:{port}/"), &[], &[loopback]), refused);
    assert_eq!(check(&format!("http://0x7f.1:{port}/"), &[], &[loopback]), refused);
    let peer = Peer::one(vec![whole("204 No Content", "", "")]);
    assert_eq!(check(&format!("{}/", peer.url()), &[loopback], &[loopback]), Ok(204));
}

#[test]
fn what_is_no_address_is_refused_without_naming_it() {
    for url in ["", "/path", "ftp://host/", "http://", "localhost:8080", "http://user:secret@/x", "http://a b/"] {
        let error = client().send(&Call::get(url), &Cancel::new()).map(|_| ()).unwrap_err();
        assert!(matches!(error, NetError::BadUrl { .. }), "{url}: {error}");
        assert!(!error.to_string().contains("secret"));
    }
    let (client, cancel) = (client(), Cancel::new());
    let call = Call::get("http://127.0.0.1:1/").header("x", "sec\nret");
    let error = client.send(&call, &cancel).map(|_| ()).unwrap_err();
    assert!(matches!(error, NetError::BadUrl { .. }) && !error.to_string().contains("ret"), "{error}");
}

#[test]
fn a_request_with_effects_is_not_sent_twice() {
    let ok = || vec![whole("200 OK", "", "{}")];
    // The peer reads the second request and hangs up without a word.
    let check = |repeatable: bool| {
        let scripts = if repeatable { vec![ok(), vec![Step::Cut], ok()] } else { vec![ok(), vec![Step::Cut]] };
        let peer = Peer::new(scripts);
        let (client, cancel, url) = (client(), Cancel::new(), peer.url());
        let call = || if repeatable { Call::post(&url, b"{}").repeatable() } else { Call::post(&url, b"{}") };
        client.send(&call(), &cancel).unwrap().body(10).unwrap();
        let result = client.send(&call(), &cancel).map(|answer| answer.status());
        if repeatable {
            assert_eq!(result, Ok(200));
        } else {
            assert!(matches!(result, Err(NetError::Cut { .. })), "{result:?}");
        }
    };
    check(true);
    check(false);
}

#[test]
fn one_shot_clients_keep_nothing() {
    // A kept connection would wait for the peer's second script on the first socket; the peer hangs up instead.
    let cut = || vec![whole("200 OK", "", "{}"), Step::Cut];
    let peer = Peer::new(vec![cut(), cut()]);
    let (client, cancel, url) = (client().without_reuse(), Cancel::new(), peer.url());
    for _ in 0..2 {
        assert_eq!(client.send(&Call::post(&url, b"{}"), &cancel).unwrap().body(10).unwrap(), b"{}");
    }
}

#[test]
fn bodies_are_bounded() {
    let body = "x".repeat(100);
    let get = |bytes_max: usize| {
        let peer = Peer::one(vec![whole("200 OK", "Connection: close\r\n", &body), Step::Cut]);
        let (client, cancel, url) = (client(), Cancel::new(), peer.url());
        let mut answer = client.send(&Call::get(&url), &cancel).unwrap();
        let start = answer.body_start(bytes_max).unwrap();
        drop(answer);
        start
    };
    assert_eq!(get(100), (body.clone().into_bytes(), true));
    assert_eq!(get(99), (vec![b'x'; 99], false));
    let peer = Peer::one(vec![whole("200 OK", "Connection: close\r\n", &body), Step::Cut]);
    let (client, cancel, url) = (client(), Cancel::new(), peer.url());
    let mut answer = client.send(&Call::get(&url), &cancel).unwrap();
    assert_eq!(answer.body(99), Err(NetError::TooLarge { bytes_max: 99 }));
}

#[test]
fn a_call_has_its_own_time_outs() {
    let short = std::time::Duration::from_millis(40);
    let peer = Peer::new(vec![vec![whole("200 OK", "", "{}")], vec![send("HTTP/1.1 200"), Step::Stall]]);
    let (client, cancel, url) = (client(), Cancel::new(), peer.url());
    client.send(&Call::get(&url), &cancel).unwrap().body(10).unwrap();
    drop(client);
    let client = HttpClient::new(TIMEOUTS);
    let call = Call::get(&url).timeouts(Timeouts { first_byte: short, total: None, ..TIMEOUTS });
    let result = client.send(&call, &cancel).map(|answer| answer.status());
    assert_eq!(result, Err(NetError::Timeout { phase: Phase::FirstByte, after: short }));
}

#[test]
fn a_stream_of_events_is_read_as_it_comes() {
    let peer = Peer::one(vec![stream_head(), chunk("id: 1\nda"), chunk("ta: a\n\nid: 2\ndata: b\n\n"), end()]);
    let (client, cancel, url) = (client(), Cancel::new(), peer.url());
    let mut answer = client.send(&Call::get(&url).header("accept", "text/event-stream"), &cancel).unwrap();
    let mut parser = sse::Parser::new(1024);
    let mut events = Vec::new();
    let mut buffer = [0; 7];
    loop {
        let n = answer.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        parser.push(&buffer[..n]);
        while let Some(event) = parser.next_event().unwrap() {
            events.push((event.id.to_owned(), event.data.to_owned()));
        }
    }
    assert_eq!(events, [("1".to_owned(), "a".to_owned()), ("2".to_owned(), "b".to_owned())]);
}

/// A client that asks as somebody untrusted, with names of our own.
fn untrusted(url: &str, lookup: impl Fn(&str) -> Vec<SocketAddr> + Send + Sync + 'static) -> HttpClient {
    let checked = Guard::new(Origin::Untrusted).check_url(url).unwrap();
    let mut client = client().with_filter(checked.filter());
    client.lookup = Some(Arc::new(lookup));
    client
}

#[test]
fn a_name_is_judged_by_the_addresses_it_leads_to() {
    let url = "http://friendly.example/";
    for inside in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "ff02::1",
    ] {
        let ip: IpAddr = inside.parse().unwrap();
        let client = untrusted(url, move |_| vec![SocketAddr::new(ip, 80)]);
        let result = client.send(&Call::get(url), &Cancel::new()).map(|answer| answer.status());
        assert!(matches!(result, Err(NetError::Refused { .. })), "{inside}: {result:?}");
    }
}

#[test]
fn a_name_that_changes_its_address_gets_no_second_answer_to_use() {
    // Only the address that was checked is connected to: the name is asked once per connection, and each answer is
    // checked by itself.
    let peer = Peer::new(vec![vec![whole("204 No Content", "", "")]]);
    let (port, asked) = (peer.addr.port(), Arc::new(Mutex::new(0)));
    let counted = Arc::clone(&asked);
    let good = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut client = client().without_reuse().with_filter(Arc::new(move |ip| ip == good));
    client.lookup = Some(Arc::new(move |_| {
        let mut asked = lock(&counted);
        *asked += 1;
        let ip = if *asked == 1 { good } else { IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)) };
        vec![SocketAddr::new(ip, port)]
    }));
    let url = format!("http://rebinding.example:{port}/");
    let send = || client.send(&Call::get(&url), &Cancel::new()).map(|answer| answer.status());
    assert_eq!(send(), Ok(204));
    assert_eq!(*lock(&asked), 1, "asked once for one connection");
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    assert_eq!(send(), Err(NetError::Refused { address: other }));
}
