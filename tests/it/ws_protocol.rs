//! The WebSocket protocol: handshakes, frames good and bad, closing, limits (contract 8).

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Message};

use crate::support::http::{raw, read_answer, read_head, read_to_end};
use crate::support::hub::Builder;
use crate::support::ws::read;
use crate::support::{Answer, Client, Hub, Model, Socket, wait_until};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [1, 2, 3, 4];

/// An upgrade request; `lines` replaces the usual lines of the same names, an empty value leaves one out.
fn upgrade(client: &Client, method: &str, path: &str, version: &str, lines: &[(&str, &str)]) -> BufReader<TcpStream> {
    let mut all = vec![
        ("Host", client.address.as_str()),
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    for (name, value) in client.headers().iter().map(|(n, v)| (n.as_str(), v.as_str())).chain(lines.iter().copied()) {
        all.retain(|(known, _)| *known != name);
        all.push((name, value));
    }
    let lines: String = all.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let mut stream = raw(&client.address);
    stream.write_all(format!("{method} {path} {version}\r\n{lines}\r\n").as_bytes()).unwrap();
    BufReader::new(stream)
}

fn refusal(client: &Client, lines: &[(&str, &str)]) -> Answer {
    read_answer(&mut upgrade(client, "GET", "/api/v1/ws", "HTTP/1.1", lines), false)
}

/// An open socket without a library in between.
fn open(client: &Client) -> BufReader<TcpStream> {
    let mut stream = upgrade(client, "GET", "/api/v1/ws", "HTTP/1.1", &[]);
    assert_eq!(read_head(&mut stream).0, 101);
    stream
}

/// A masked frame; `first` is the byte of flags and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The next frame of the hub: first byte and payload. The hub never masks.
fn read_frame(stream: &mut BufReader<TcpStream>) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let length = match head[1] {
        126 => {
            let mut bytes = [0; 2];
            stream.read_exact(&mut bytes).unwrap();
            usize::from(u16::from_be_bytes(bytes))
        }
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

/// Sends bytes; the code and reason of the close frame that follows, behind which nothing comes.
fn close_after(client: &Client, bytes: &[u8]) -> (u16, String) {
    let mut stream = open(client);
    stream.get_mut().write_all(bytes).unwrap();
    let (first, payload) = read_frame(&mut stream);
    assert_eq!(first, 0x88, "{payload:?}");
    assert_eq!(read_to_end(&mut stream), "");
    let code = payload.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
    (code, String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap())
}

#[test]
fn handshakes_are_refused_with_their_statuses() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    for (lines, status) in [
        (&[("Connection", "keep-alive")][..], 400),
        (&[("Connection", "")], 400),
        (&[("Upgrade", "")], 426),
        (&[("Upgrade", "h2c")], 426),
        (&[("Sec-WebSocket-Version", "12")], 400),
        (&[("Sec-WebSocket-Version", "")], 400),
        (&[("Sec-WebSocket-Key", "")], 400),
        (&[("Sec-WebSocket-Key", "c2hvcnQ=")], 400),
        (&[("Sec-WebSocket-Key", "not base64 at all!!!!!!!")], 400),
    ] {
        let answer = refusal(&admin, lines);
        assert_eq!((answer.status, answer.header("sec-websocket-version")), (status, "13"), "{lines:?}");
        assert_eq!(answer.header("upgrade") == "websocket", status == 426, "{lines:?}");
        assert_eq!(answer.json()["code"], "bad_upgrade");
    }
    for (method, version) in [("HEAD", "HTTP/1.1"), ("GET", "HTTP/1.0")] {
        let (status, _) = read_head(&mut upgrade(&admin, method, "/api/v1/ws", version, &[]));
        assert_eq!(status, 400, "{method} {version}");
    }
    let post = read_answer(&mut upgrade(&admin, "POST", "/api/v1/ws", "HTTP/1.1", &[]), false);
    assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD"));
    let answer = refusal(&hub.client(), &[]);
    assert_eq!((answer.status, answer.header("x-auth-failure")), (401, "credential-missing"));
    assert_eq!(refusal(&hub.client().with_key("dk_x"), &[]).header("x-auth-failure"), "credential-invalid");
    let powerless = admin.new_key("powerless", &["sessions:read"]);
    let answer = refusal(&powerless, &[]);
    assert_eq!((answer.status, answer.json()["error"].as_str().unwrap()), (403, "insufficient scope"));
    let answer = refusal(&admin, &[("Origin", "http://evil.example")]);
    assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (403, "origin_not_allowed"));
    // A refused handshake leaves the connection as it was.
    let mut stream = upgrade(&admin, "GET", "/api/v1/ws", "HTTP/1.1", &[("Upgrade", "")]);
    assert_eq!(read_answer(&mut stream, false).status, 426);
    stream.get_mut().write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream, false).status, 200);
}

#[test]
fn accepted_handshakes_say_the_least_and_nothing_comes_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let offers = [("Sec-WebSocket-Protocol", "chat, other"), ("Sec-WebSocket-Extensions", "permessage-deflate")];
    let mut stream = upgrade(&admin, "GET", "/api/v1/ws", "HTTP/1.1", &offers);
    let (status, mut headers) = read_head(&mut stream);
    headers.sort();
    let expected =
        [("connection", "Upgrade"), ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), ("upgrade", "websocket")];
    assert_eq!(status, 101);
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // The first thing that comes is the answer to the first thing that was sent.
    stream.get_mut().write_all(&frame(0x81, br#"{"type":"ping"}"#)).unwrap();
    assert_eq!(read_frame(&mut stream), (0x81, br#"{"type":"pong"}"#.to_vec()));
    // The key in the query, decoded; it stands in for the header.
    let token = format!("/api/v1/ws?x=1&token={}", admin.key().replace('_', "%5F"));
    assert!(Socket::try_open_at(&hub.client(), &token).is_ok());
    assert!(Socket::try_open_at(&hub.client().with_key("dk_wrong"), &token).is_ok());
    assert!(Socket::try_open_at(&admin, "/api/v1/ws?token=dk_wrong").err().unwrap().contains("401"));
    assert!(Socket::try_open_at(&admin, "/api/v1/ws?token=").is_ok());
    let mut socket = Socket::try_open_at(&admin, "/api/v1/ws?hello=1").unwrap();
    let hello = socket.next();
    assert_eq!((&hello["type"], &hello["epoch_supported"]), (&json!("hello"), &json!(true)));
    assert_eq!(
        (&hello["limits"]["message_bytes_max"], &hello["limits"]["frame_bytes_max"]),
        (&json!(32_768), &json!(65_536))
    );
    // Frames in the same packet as the handshake are not lost.
    let mut stream = raw(&hub.address);
    let head = format!(
        "GET /api/v1/ws?token={} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        admin.key()
    );
    stream.write_all(&[head.as_bytes(), &frame(0x89, b"early"), &frame(0x81, br#"{"type":"ping"}"#)].concat()).unwrap();
    let mut stream = BufReader::new(stream);
    assert_eq!(read_head(&mut stream).0, 101);
    let mut found = [read_frame(&mut stream), read_frame(&mut stream)];
    found.sort();
    assert_eq!(found, [(0x81, br#"{"type":"pong"}"#.to_vec()), (0x8a, b"early".to_vec())]);
}

#[test]
fn faulty_frames_close_with_the_code_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let unmasked = [&[0x81, 2][..], b"{}"].concat();
    for (name, bytes) in [
        ("unmasked", unmasked),
        ("reserved bit 1", frame(0xc1, b"{}")),
        ("reserved bit 3", frame(0x91, b"{}")),
        ("opcode 3", frame(0x83, b"{}")),
        ("opcode 11", frame(0x8b, b"{}")),
        ("fragmented ping", frame(0x09, b"x")),
        ("long ping", frame(0x89, &[b'x'; 126])),
        ("continuation of nothing", frame(0x80, b"x")),
        ("a new message within another", [frame(0x01, b"{"), frame(0x81, b"{}")].concat()),
        ("close of one byte", frame(0x88, b"x")),
    ] {
        assert_eq!(close_after(&admin, &bytes).0, 1002, "{name}");
    }
    for (name, payload) in [
        ("a bare byte", &b"{\"type\":\"\xff\"}"[..]),
        ("a surrogate", b"\xed\xa0\x80"),
        ("half a character", b"\xe2\x82"),
    ] {
        assert_eq!(close_after(&admin, &frame(0x81, payload)).0, 1007, "{name}");
    }
    assert_eq!(close_after(&admin, &[frame(0x01, b"\xe2"), frame(0x80, b"\xff")].concat()).0, 1007);
    // One byte too much, in one frame, in fragments, and merely announced.
    let largest = vec![b' '; 65_536];
    assert_eq!(close_after(&admin, &frame(0x81, &[&largest[..], b" "].concat())), (1009, String::new()));
    assert_eq!(close_after(&admin, &[frame(0x01, &largest), frame(0x80, b" ")].concat()), (1009, String::new()));
    assert_eq!(close_after(&admin, &[&[0x81, 0xff][..], &u64::MAX.to_be_bytes(), &MASK].concat()).0 / 1000, 1);
    // The largest message is read; it is no JSON, and that is all that is wrong with it.
    let mut stream = open(&admin);
    stream.get_mut().write_all(&[frame(0x01, &largest[..40_000]), frame(0x80, &largest[40_000..])].concat()).unwrap();
    let (first, payload) = read_frame(&mut stream);
    assert_eq!(
        (first, serde_json::from_slice::<Value>(&payload).unwrap()["code"].clone()),
        (0x81, json!("invalid_frame"))
    );
}

#[test]
fn fragments_pings_and_binary_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let mut stream = open(&hub.admin());
    let text = br#"{"type":"ping"}"#;
    // Every way to cut a message in two, with a ping in between.
    for cut in 0..=text.len() {
        let payload = format!("p{cut}");
        let bytes = [frame(0x01, &text[..cut]), frame(0x89, payload.as_bytes()), frame(0x80, &text[cut..])].concat();
        stream.get_mut().write_all(&bytes).unwrap();
        let mut found = [read_frame(&mut stream), read_frame(&mut stream)];
        found.sort();
        assert_eq!(found, [(0x81, br#"{"type":"pong"}"#.to_vec()), (0x8a, payload.into_bytes())], "{cut}");
    }
    for byte in frame(0x82, text) {
        stream.get_mut().write_all(&[byte]).unwrap();
    }
    assert_eq!(read_frame(&mut stream), (0x81, br#"{"type":"pong"}"#.to_vec()));
    for payload in [&b""[..], b"\0\xff\xfe", &[b'x'; 125]] {
        stream.get_mut().write_all(&frame(0x89, payload)).unwrap();
        assert_eq!(read_frame(&mut stream), (0x8a, payload.to_vec()));
    }
    // Unasked pongs are fine, and so is `pong` as a message. Binary that is not UTF-8 is read with U+FFFD.
    let bytes =
        [frame(0x8a, b"unasked"), frame(0x81, br#"{"type":"pong"}"#), frame(0x82, b"{\"type\":\"\xff\"}")].concat();
    stream.get_mut().write_all(&bytes).unwrap();
    let (_, payload) = read_frame(&mut stream);
    let answer: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(answer["message"], "wsframes: unknown frame type \"\u{fffd}\"");
}

#[test]
fn closes_are_echoed_and_vanished_peers_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config("[api]\nwebsocket_max_connections = 3").start();
    let admin = hub.admin();
    for code in [1000_u16, 1001, 1003, 3000, 4999] {
        let payload = [&code.to_be_bytes()[..], b"bye"].concat();
        assert_eq!(close_after(&admin, &frame(0x88, &payload)).0, code);
    }
    assert_eq!(close_after(&admin, &frame(0x88, b"")), (0, String::new()));
    let mut socket = Socket::open(&admin);
    socket.ws.close(Some(CloseFrame { code: CloseCode::Away, reason: "later".into() })).unwrap();
    assert_eq!(socket.close_code().unwrap().0, 1001);
    // A half-closed peer is answered and let go; one that vanishes makes room.
    let mut stream = open(&admin);
    stream.get_mut().write_all(&frame(0x81, br#"{"type":"ping"}"#)).unwrap();
    stream.get_mut().shutdown(Shutdown::Write).unwrap();
    let rest = read_to_end(&mut stream);
    assert!(rest.ends_with("\u{fffd}\u{2}\u{3}\u{fffd}"), "close 1000: {rest:?}");
    for _ in 0..20 {
        drop(wait_until("there is room for a socket", || alive(&admin)));
    }
    // Beyond the limit the upgrade succeeds and the socket is closed.
    let held: Vec<Socket> = (0..3).map(|_| wait_until("there is room for a socket", || alive(&admin))).collect();
    let mut one_more = Socket::open(&admin);
    assert_eq!(one_more.close_code(), Some((1013, "max connections reached".to_owned())));
    drop(held);
    wait_until("there is room for a socket", || alive(&admin));
}

/// A socket that answers, or None when the hub is full.
fn alive(client: &Client) -> Option<Socket> {
    let mut socket = Socket::open(client);
    socket.ws.send(Message::Ping(Bytes::from_static(b"?"))).ok()?;
    matches!(read(&mut socket.ws), Ok(Message::Pong(_))).then_some(socket)
}

#[test]
fn a_stop_says_goodbye() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(dir.path());
    let admin = hub.admin();
    let mut sockets: Vec<Socket> = (0..10).map(|_| alive(&admin).unwrap()).collect();
    hub.signal("TERM");
    for socket in &mut sockets {
        assert_eq!(socket.close_code(), Some((1001, "server shutting down".to_owned())));
    }
    drop(sockets);
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn bad_requests_are_answered_and_a_flood_of_them_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let mut socket = Socket::open(&hub.admin());
    for (text, message) in [
        ("{", "wsframes: invalid JSON: not one JSON object"),
        ("", "wsframes: invalid JSON: not one JSON object"),
        ("{} {}", "wsframes: invalid JSON: not one JSON object"),
        ("[]", "wsframes: invalid JSON: not an object"),
        ("null", "wsframes: missing type field"),
        (r#"{"type":null}"#, "wsframes: missing type field"),
        (r#"{"type":"nope"}"#, "wsframes: unknown frame type \"nope\""),
        (r#"{"type":"chat_request"}"#, "wsframes: chat_request requires message or resume_after_seq"),
        (r#"{"type":"chat_request","message":1}"#, "wsframes: invalid chat_request: a field has the wrong type"),
        (r#"{"type":"approval_response","action":"deny"}"#, "wsframes: approval_response requires approval_id"),
        (r#"{"type":"approval_response","approval_id":"a"}"#, "wsframes: approval_response requires action"),
        (
            r#"{"type":"approval_response","approval_id":"a","action":"x\ny"}"#,
            "wsframes: invalid approval action \"x\\ny\"",
        ),
        (r#"{"type":"cancel"}"#, "wsframes: cancel requires session_id"),
    ] {
        socket.ws.send(Message::text(text)).unwrap();
        assert_eq!(socket.next(), json!({"type": "error", "code": "invalid_frame", "message": message}), "{text}");
    }
    let named = json!({"type": "chat_request", "session_id": "mine", "message": 7});
    socket.send(&named);
    assert_eq!(socket.next()["session_id"], "mine");
    let mut answers = 14;
    let ended = loop {
        if socket.ws.send(Message::text("{")).is_err() {
            break socket.close_code();
        }
        match read(&mut socket.ws) {
            Ok(Message::Text(_)) => answers += 1,
            Ok(Message::Close(close)) => break close.map(|close| (close.code.into(), close.reason.to_string())),
            other => panic!("{other:?}"),
        }
        assert!(answers < 1000);
    };
    assert_eq!((answers, ended), (100, Some((1002, "too many invalid frames".to_owned()))));
}

#[test]
fn refused_chats_name_their_session() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    let mut socket = Socket::open(&admin);
    socket.send(&json!({"type": "chat_request", "session_id": "s1", "message": "x".repeat(32_769)}));
    let expected = json!({
        "type": "error", "code": "invalid_frame", "session_id": "s1",
        "message": "message exceeds maximum length of 32768 bytes",
    });
    assert_eq!(socket.next(), expected);
    socket.send(&json!({"type": "chat_request", "agent": "no\"body", "message": "x"}));
    let answer = socket.next();
    assert_eq!(
        (&answer["code"], &answer["message"]),
        (&json!("agent_not_found"), &json!("agent \"no\\\"body\" not found"))
    );
    let session = answer["session_id"].as_str().unwrap();
    assert!(session.len() == 16 && session.bytes().all(|byte| byte.is_ascii_hexdigit()), "{session}");
    socket.send(&json!({"type": "chat_request", "session_id": "s\u{1}", "message": "x"}));
    assert_eq!(socket.next()["code"], "invalid_frame");
    socket.send(&json!({"type": "approval_response", "approval_id": "a", "action": "approve"}));
    assert_eq!(socket.next()["type"], "error");
    let mut chatter = Socket::open(&admin.new_key("chatter", &["chat"]));
    chatter.send(&json!({"type": "approval_response", "approval_id": "a", "action": "approve"}));
    assert_eq!(chatter.next()["code"], "permission_denied");
    // Ten turns at once, on as many sessions; the eleventh is refused by name, and there is room when they are over.
    for number in 0..10 {
        socket.chat(&format!("many{number}"), "gate 0 1");
    }
    wait_until("all turns have asked the model", || (model.requests().len() == 10).then_some(()));
    socket.chat("eleventh", "say no");
    let refused = loop {
        let frame = socket.next();
        if frame["type"] == "error" {
            break frame;
        }
    };
    assert_eq!((&refused["code"], &refused["session_id"]), (&json!("rate_limited"), &json!("eleventh")));
    assert_eq!(refused["message"], "too many concurrent chat requests");
    let mut other = Socket::open(&admin);
    other.chat("elsewhere", "say yes");
    assert_eq!(other.turn().last().unwrap()["type"], "done");
    model.open_gate();
    for _ in 0..10 {
        assert_eq!(socket.turn().last().unwrap()["type"], "done");
    }
    socket.chat("eleventh", "say yes");
    assert_eq!(socket.turn().last().unwrap()["type"], "done");
}
