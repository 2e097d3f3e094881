//! The channel `email`: a small SMTP client (RFC 5321, 3207, 4954). One connection per message.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use super::channel::{Channel, Message, SendError};
use super::mail::{Mail, bare_address};
use super::socket::{Connection, Endpoint};
use crate::alert::Level;
use crate::config::{ChannelConfig, EmailConfig, Encryption};
use crate::rt::text::{cut, hex};
use crate::rt::{Cancel, clock};
use crate::sys;

/// Servers may send 512 bytes (RFC 5321 4.5.3.1.5); some send more.
const LINE_BYTES_MAX: usize = 2048;
/// Lines of one reply.
const LINES_MAX: usize = 100;
/// What is quoted of a server's refusal.
const CAUSE_BYTES_MAX: usize = 200;

/// Mail through one server.
pub(super) struct Smtp {
    config: EmailConfig,
    endpoint: Endpoint,
    timeout: std::time::Duration,
    zone: TimeZone,
}

/// A dialogue with a server.
struct Dialogue {
    connection: Connection,
    /// Read, but not used yet.
    buffer: Vec<u8>,
}

/// A reply: its code and its lines.
struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Smtp {
    /// A channel; the error is what cannot be used.
    pub(super) fn new(config: &ChannelConfig, email: &EmailConfig, zone: TimeZone) -> Result<Self, String> {
        let uses_tls = email.encryption != Encryption::None;
        let endpoint = Endpoint::new(&email.host, email.port, uses_tls, email.ca_file.as_deref())?;
        Ok(Self { config: email.clone(), endpoint, timeout: config.timeout, zone })
    }

    fn deliver(&self, message: &Message<'_>, cancel: &Cancel) -> Result<(), SendError> {
        let deadline = Instant::now() + self.timeout;
        let implicit = self.config.encryption == Encryption::Tls;
        let connection = self.endpoint.connect(implicit, deadline, cancel)?;
        let mut dialogue = Dialogue { connection, buffer: Vec::new() };
        dialogue.expect(None, 220)?;
        let mut offers = dialogue.hello()?;
        if self.config.encryption == Encryption::StartTls {
            if !offers.iter().any(|offer| offer.eq_ignore_ascii_case("STARTTLS")) {
                let cause =
                    "the server offers no STARTTLS; set tls to \"tls\", or to \"none\" if the network is trusted";
                return Err(SendError::Refused(cause.to_owned()));
            }
            dialogue.expect(Some("STARTTLS"), 220)?;
            // What came before TLS could be anybody's (CVE-2011-0411).
            if !dialogue.buffer.is_empty() {
                return Err(SendError::later("the server talks before TLS has begun"));
            }
            dialogue.connection.secure(&self.endpoint)?;
            offers = dialogue.hello()?;
        }
        if let Some((user, password)) = &self.config.user {
            // Checked where the settings are read, and once more where it matters.
            if !dialogue.connection.is_secure() && !self.config.allow_plain_auth {
                return Err(SendError::Refused("the password must not travel without TLS".to_owned()));
            }
            dialogue.log_in(&offers, user, password)?;
        }
        dialogue.expect(Some(&format!("MAIL FROM:<{}>", bare_address(&self.config.from))), 250)?;
        let mut refused = None;
        let mut taken = 0;
        for to in &self.config.to {
            match dialogue.expect(Some(&format!("RCPT TO:<{}>", bare_address(to))), 250) {
                Ok(_) => taken += 1,
                Err(error @ SendError::Refused(_)) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if taken == 0 => return Err(error),
            Some(error) => log::warn!("notify: an address is refused: {}", error.text()),
            None => {}
        }
        dialogue.expect(Some("DATA"), 354)?;
        dialogue.write(&stuffed(&self.mail(message)))?;
        dialogue.expect(Some("."), 250)?;
        // It has taken the message; how it says goodbye does not matter.
        let _ = dialogue.write("QUIT\r\n");
        Ok(())
    }

    fn mail(&self, message: &Message<'_>) -> String {
        let Message { notice, title, body, link, .. } = message;
        let text = if link.is_empty() { body.clone() } else { format!("{body}\n\n{link}\n") };
        let id = hex(&Sha256::digest(notice.to_value().to_string().as_bytes())[..12]);
        let mail = Mail {
            from: &self.config.from,
            to: &self.config.to,
            subject: title,
            text: &text,
            now_ms: clock::unix_ms(),
            id: &id,
            zone: &self.zone,
            is_urgent: notice.level == Level::Critical,
        };
        mail.text()
    }
}

impl Channel for Smtp {
    fn send(&mut self, message: &Message<'_>, cancel: &Cancel) -> Result<(), SendError> {
        let sent = self.deliver(message, cancel);
        cancel.clear_hook();
        if sent.is_err() && cancel.is_set() { Err(SendError::Cancelled) } else { sent }
    }
}

impl Dialogue {
    /// Who we are; what the server offers, one extension a line.
    fn hello(&mut self) -> Result<Vec<String>, SendError> {
        let name =
            sys::host_name().filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b)));
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned());
        let mut reply = self.ask(Some(&format!("EHLO {name}")))?;
        if reply.code >= 500 {
            // A server of long ago: no TLS and no login.
            reply = self.expect(Some(&format!("HELO {name}")), 250)?;
            reply.lines.clear();
        }
        check(&reply, 250)?;
        Ok(reply.lines.into_iter().skip(1).collect())
    }

    fn log_in(&mut self, offers: &[String], user: &str, password: &str) -> Result<(), SendError> {
        let methods: Vec<String> = offers
            .iter()
            .filter_map(|offer| offer.get(..5).filter(|name| name.eq_ignore_ascii_case("AUTH ")).map(|_| &offer[5..]))
            .flat_map(|methods| methods.split_ascii_whitespace().map(str::to_ascii_uppercase))
            .collect();
        let has = |method: &str| methods.iter().any(|known| known == method);
        let logged_in = if has("PLAIN") {
            let secret = STANDARD.encode(format!("\0{user}\0{password}"));
            self.ask(Some(&format!("AUTH PLAIN {secret}")))?
        } else if has("LOGIN") {
            self.expect(Some("AUTH LOGIN"), 334)?;
            self.expect(Some(&STANDARD.encode(user)), 334)?;
            self.ask(Some(&STANDARD.encode(password)))?
        } else {
            let cause =
                "the server offers neither AUTH PLAIN nor AUTH LOGIN; leave user and password out if it needs none";
            return Err(SendError::Refused(cause.to_owned()));
        };
        match logged_in.code {
            235 => Ok(()),
            // Its words may hold what we sent.
            500.. => Err(SendError::Refused(format!("the server refused user or password ({})", logged_in.code))),
            code => Err(SendError::later(format!("the server answered the login with {code}"))),
        }
    }

    fn expect(&mut self, command: Option<&str>, code: u16) -> Result<Reply, SendError> {
        let reply = self.ask(command)?;
        check(&reply, code)?;
        Ok(reply)
    }

    fn ask(&mut self, command: Option<&str>) -> Result<Reply, SendError> {
        if let Some(command) = command {
            self.write(&format!("{command}\r\n"))?;
        }
        let mut lines = Vec::new();
        loop {
            let line = self.read_line()?;
            let (code, rest) = line.split_at_checked(3).unwrap_or((&line, ""));
            let code = code.parse().ok().filter(|code| (200..600).contains(code)).ok_or_else(garbage)?;
            let is_last = !rest.starts_with('-');
            if is_last && !rest.is_empty() && !rest.starts_with(' ') {
                return Err(garbage());
            }
            lines.push(rest.get(1..).unwrap_or_default().to_owned());
            if is_last {
                return Ok(Reply { code, lines });
            }
            if lines.len() >= LINES_MAX {
                return Err(garbage());
            }
        }
    }

    fn write(&mut self, text: &str) -> Result<(), SendError> {
        let written = self.connection.write_all(text.as_bytes()).and_then(|()| self.connection.flush());
        written.map_err(|error| io_error(&error))
    }

    fn read_line(&mut self) -> Result<String, SendError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(garbage());
            }
            let mut chunk = [0; 512];
            match self.connection.read(&mut chunk) {
                Ok(0) => return Err(SendError::later("the server hung up")),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(&error)),
            }
        }
    }
}

fn garbage() -> SendError {
    SendError::later("the server does not speak SMTP")
}

fn io_error(error: &std::io::Error) -> SendError {
    SendError::later(match error.kind() {
        ErrorKind::TimedOut => "the server took too long".to_owned(),
        _ => format!("the connection broke: {error}"),
    })
}

/// 4xx comes back later, 5xx does not (RFC 5321 4.2.1).
fn check(reply: &Reply, code: u16) -> Result<(), SendError> {
    if reply.code == code || (code == 250 && reply.code == 251) {
        return Ok(());
    }
    let said = reply.lines.first().map_or("", |line| cut(line, CAUSE_BYTES_MAX));
    let said: String = said.chars().filter(|c| !c.is_control()).collect();
    let cause = format!("the server answered {} {said}", reply.code);
    Err(if reply.code >= 500 { SendError::Refused(cause) } else { SendError::later(cause) })
}

/// A line that begins with a dot gets another one (RFC 5321 4.5.2). Ends with a line end.
fn stuffed(mail: &str) -> String {
    let mut out = String::with_capacity(mail.len() + 16);
    for line in mail.split_inclusive("\r\n") {
        if line.starts_with('.') {
            out.push('.');
        }
        out.push_str(line);
    }
    if !out.ends_with("\r\n") {
        out.push_str("\r\n");
    }
    out
}
