//! Requests and replies as handlers see them: plain data, no socket.

use std::cell::Cell;
use std::io::Cursor;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tiny_http::{Header, Method, StatusCode};

use crate::auth::Credential;
use crate::chat::access::Caller;
use crate::chat::engine::Session;
use crate::fleet::hub::Admission;
use crate::rt::{Headers, Slot};

/// The value a handler builds.
pub type Response = tiny_http::Response<Cursor<Vec<u8>>>;

/// A complete request.
pub struct Req {
    pub method: Method,
    /// The encoded path, without the query.
    pub path: String,
    /// The encoded query, without the question mark.
    pub query: Option<String>,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub peer: SocketAddr,
    /// The connection is TLS.
    pub secure: bool,
    /// The client speaks HTTP/1.0: no chunks.
    pub http10: bool,
    /// Set by the guard: connections that proved who they are are not shed while they send.
    pub authenticated: Cell<bool>,
    /// Set by a handler that answers later and wants to know when the client leaves.
    pub watched: Cell<bool>,
    /// Its body in the count of all that is buffered before anybody is authenticated.
    pub held: Option<Slot>,
}

impl Req {
    /// A request that never was on a wire, from this machine.
    pub fn local(method: Method, target: &str, headers: Headers, body: Vec<u8>) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target.to_owned(), None),
        };
        let peer = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            method,
            path,
            query,
            headers,
            body,
            peer,
            secure: false,
            http10: false,
            authenticated: Cell::new(false),
            watched: Cell::new(false),
            held: None,
        }
    }

    /// The first value of a query parameter, decoded.
    pub fn query_param(&self, name: &str) -> Option<String> {
        let query = self.query.as_deref()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key, true).as_deref() == Some(name)).then(|| percent_decode(value, true)).flatten()
        })
    }

    /// Whether the method only reads.
    pub fn is_read(&self) -> bool {
        matches!(self.method, Method::Get | Method::Head | Method::Options)
    }
}

/// Decodes `%xx` (and `+` in queries); None when the result is not UTF-8 or an escape is broken.
pub fn percent_decode(text: &str, plus_is_blank: bool) -> Option<String> {
    let escaped = text.contains('%') || (plus_is_blank && text.contains('+'));
    if !escaped {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'%' => {
                let digits =
                    text.get(index + 1..index + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                index += 3;
            }
            b'+' if plus_is_blank => {
                out.push(b' ');
                index += 1;
            }
            byte => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// What a handler decides.
pub enum Reply {
    /// The answer.
    Full(Response),
    /// The answer, too large for memory: it is read from the file as the client takes it.
    File(Box<FileAnswer>),
    /// Another thread answers, through the [`Responder`] it is given; the connection waits without a worker.
    Later(Later),
    /// The socket becomes a stream of server-sent events.
    Stream(Box<SseStart>),
    /// The socket becomes a WebSocket.
    Upgrade(Box<Upgrade>),
}

/// See [`Reply::File`].
pub struct FileAnswer {
    /// Status and header lines, no body.
    pub head: Response,
    /// Open at the first byte of the body, which has so many.
    pub file: std::fs::File,
    pub bytes: u64,
}

/// Called with the way to answer.
pub type Later = Box<dyn FnOnce(Responder) + Send>;

/// The way to answer later. Dropping it answers 500.
pub struct Responder {
    send: Option<Box<dyn FnOnce(Response) + Send>>,
    watch: Option<Watch>,
}

/// Tells whether the client that waits for an answer is still there.
pub struct Watch(TcpStream);

impl Watch {
    /// Watches a socket that does not block.
    pub fn new(socket: TcpStream) -> Self {
        Self(socket)
    }

    /// Whether the client has closed its side. Never waits.
    #[cfg(target_os = "linux")]
    pub fn is_gone(&self) -> bool {
        // Also behind what it said last: a client that speaks TLS says goodbye before it hangs up.
        let mut asked = [PollFd::new(&self.0, PollFlags::RDHUP)];
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
    }

    /// Whether the client has closed its side. Never waits.
    #[cfg(not(target_os = "linux"))]
    pub fn is_gone(&self) -> bool {
        use std::io::ErrorKind;
        match self.0.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

impl Responder {
    /// A responder that calls `send` once.
    pub fn new(send: impl FnOnce(Response) + Send + 'static) -> Self {
        Self { send: Some(Box::new(send)), watch: None }
    }

    /// The same with a way to see whether the client is still there.
    #[must_use]
    pub fn watching(mut self, watch: Option<Watch>) -> Self {
        self.watch = watch;
        self
    }

    /// The client's presence, if the handler asked for it ([`Req::watched`]); once.
    pub fn take_watch(&mut self) -> Option<Watch> {
        self.watch.take()
    }

    /// Answers.
    pub fn respond(mut self, response: Response) {
        if let Some(send) = self.send.take() {
            send(response);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            log::error!("a request was dropped without an answer");
            send(json_response(500, br#"{"error":"internal server error","code":"internal"}"#.to_vec()));
        }
    }
}

/// What an SSE stream sends and when it ends.
pub struct SseStart {
    /// Its place among all event streams.
    pub slot: Slot,
    pub session: Arc<Session>,
    /// Tells where the turn starts and that it ended; None for a resume.
    pub progress: Arc<SseProgress>,
    /// Resume: send what is kept after this number first, headed by `resumed`.
    pub resume: Option<SseResume>,
    /// `id:` lines, only for those who ask.
    pub ids: bool,
    /// False for HTTP/1.0: the end of the connection is the end of the stream.
    pub chunked: bool,
    pub credential: Credential,
    /// Header lines beside the common ones, ready for the wire: those of CORS.
    pub extra_headers: Vec<u8>,
    /// Tells the events in other words; None: as they are.
    pub shape: Option<SseShape>,
}

/// Called with each event of a stream, encoded, and with nothing when there are no more for now.
pub type SseShape = Box<dyn FnMut(&[u8]) -> Shaped + Send>;

/// What is sent in the place of an event.
pub enum Shaped {
    Nothing,
    Event(Vec<u8>),
    /// Nothing comes behind it.
    Last(Vec<u8>),
}

/// Where a resumed stream starts.
pub struct SseResume {
    pub after_seq: u64,
    /// The epoch the client knows, if it says.
    pub epoch: Option<String>,
}

/// What a turn's ticket tells its SSE stream.
#[derive(Default)]
pub struct SseProgress {
    /// First number of the turn minus one, plus one; 0 while it waits.
    started: std::sync::atomic::AtomicU64,
    ended: std::sync::atomic::AtomicBool,
    position: std::sync::atomic::AtomicUsize,
    wake: std::sync::OnceLock<crossbeam_channel::Sender<()>>,
}

impl SseProgress {
    /// Number after which the turn's frames begin, once it has started.
    pub fn started_after(&self) -> Option<u64> {
        self.started.load(std::sync::atomic::Ordering::Acquire).checked_sub(1)
    }

    /// Whether the turn is over, its terminal frame logged.
    pub fn has_ended(&self) -> bool {
        self.ended.load(std::sync::atomic::Ordering::Acquire)
    }

    /// The place in the queue when the message was accepted; 0 when it ran at once.
    pub fn position(&self) -> usize {
        self.position.load(std::sync::atomic::Ordering::Acquire)
    }

    /// See [`SseProgress::position`].
    pub fn set_position(&self, position: usize) {
        self.position.store(position, std::sync::atomic::Ordering::Release);
    }

    /// The turn's first frame is the one after that number.
    pub fn set_started(&self, after_seq: u64) {
        self.started.store(after_seq + 1, std::sync::atomic::Ordering::Release);
        self.notify();
    }

    /// The turn is over.
    pub fn set_ended(&self) {
        self.ended.store(true, std::sync::atomic::Ordering::Release);
        self.notify();
    }

    /// Whom to wake; a token that is already waiting is enough.
    pub fn set_wake(&self, wake: crossbeam_channel::Sender<()>) {
        // Set once, by the one stream that follows this turn.
        let _ = self.wake.set(wake);
    }

    fn notify(&self) {
        if let Some(wake) = self.wake.get() {
            let _ = wake.try_send(()); // full: a wake-up is already on its way
        }
    }
}

/// Who is at the other end of a WebSocket.
pub enum Upgrade {
    Client(WsStart),
    Agent(AgentStart),
}

/// A checked upgrade of a machine.
pub struct AgentStart {
    /// `Sec-WebSocket-Key`.
    pub key: String,
    pub admission: Admission,
}

/// A checked WebSocket upgrade.
pub struct WsStart {
    /// `Sec-WebSocket-Key`.
    pub key: String,
    pub caller: Caller,
    /// Holds `approvals:write` (W-1).
    pub approves: bool,
    /// Holds `machines:read`: hears of alerts.
    pub sees_machines: bool,
    /// The client's address, as far as proxies are trusted to tell it.
    pub address: String,
    pub credential: Credential,
    /// The client asked for `hello`.
    pub hello: bool,
}

/// A JSON answer. The body is sent as it is.
pub fn json_response(status: u16, body: Vec<u8>) -> Response {
    response(status, "application/json", body)
}

/// An answer with a body.
pub fn response(status: u16, content_type: &str, body: Vec<u8>) -> Response {
    let length = body.len();
    let headers = header("Content-Type", content_type).into_iter().collect();
    tiny_http::Response::new(StatusCode(status), headers, Cursor::new(body), Some(length), None)
}

/// 204.
pub fn no_content() -> Response {
    tiny_http::Response::new(StatusCode(204), Vec::new(), Cursor::new(Vec::new()), Some(0), None)
}

/// A header line; None when the value may not stand in one (CR, LF, NUL, not ASCII).
pub fn header(name: &str, value: &str) -> Option<Header> {
    if value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return None;
    }
    Header::from_bytes(name.as_bytes(), value.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_cookies_and_escapes_are_decoded() {
        let headers = Headers::from_pairs(&[("Cookie", "a=1; dk_session=x=="), ("COOKIE", "b=2")]);
        let req = Req::local(Method::Get, "/p?status=a%20b+c&ids=1&broken=%zz&flag", headers, Vec::new());
        assert_eq!(req.query_param("status").as_deref(), Some("a b c"));
        assert_eq!(req.query_param("ids").as_deref(), Some("1"));
        assert_eq!(req.query_param("flag").as_deref(), Some(""));
        assert_eq!(req.query_param("broken"), None);
        assert_eq!(
            (req.headers.cookie("dk_session"), req.headers.cookie("b"), req.headers.cookie("c")),
            (Some("x=="), Some("2"), None)
        );
        assert_eq!(percent_decode("a%2Fb+c", false).as_deref(), Some("a/b+c"));
        assert_eq!(percent_decode("%ff", false), None);
        assert_eq!(percent_decode("%2", false), None);
    }

    #[test]
    fn header_values_cannot_split_a_response() {
        assert!(header("X", "a\r\nb").is_none());
        assert!(header("X", "a\0").is_none());
        assert!(header("X", "plain").is_some());
    }
}
