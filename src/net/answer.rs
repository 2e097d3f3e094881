//! The head of an answer, its body as it comes, and what a failure means.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Body, Error, Timeout};

use super::client::{HttpClient, Slot};
use super::transport::{RefusedAddress, Stage};
use super::{NetError, Phase, Timeouts};
use crate::rt::{Cancel, clock};

/// How long the end of a complete answer may take, so that its connection can be kept.
const END_WAIT: Duration = Duration::from_millis(20);
/// Longest wait that a server may ask for; more is a mistake.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The head of an answer, and its body to read. Dropping it ends the call; the connection is kept only when the body
/// was read to its end.
pub struct Answer<'a> {
    client: &'a HttpClient,
    cancel: &'a Cancel,
    slot: Option<Slot>,
    body: Option<ureq::BodyReader<'static>>,
    status: u16,
    headers: HeaderMap,
    ended: bool,
}

impl<'a> Answer<'a> {
    pub(super) fn new(client: &'a HttpClient, cancel: &'a Cancel, slot: Slot, response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            client,
            cancel,
            slot: Some(slot),
            body: Some(body.into_reader()),
            status: head.status.as_u16(),
            headers: head.headers,
            ended: false,
        }
    }

    /// The status, also of errors and redirects.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header of this name, in any case; None also when it is not readable ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers that are readable ASCII, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }

    /// How long the server asks to wait, at most a day.
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(self.header("retry-after")?, clock::unix_s())
    }

    /// Reads what is there, waiting for it if need be; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, NetError> {
        // A shut socket still gives what had arrived before: a flood would hide the cancel.
        if self.cancel.is_set() {
            return Err(NetError::Cancelled);
        }
        let Some(body) = &mut self.body else { return Ok(0) };
        match body.read(buffer) {
            // Without a length, an end that we made ourselves looks like the end of the answer.
            Ok(0) if self.cancel.is_set() => Err(NetError::Cancelled),
            Ok(0) => {
                self.ended = true;
                Ok(0)
            }
            Ok(n) => {
                if let Some(slot) = &self.slot
                    && matches!(slot.pace.stage(), Stage::Waiting { .. })
                {
                    slot.pace.set_stage(Stage::Answering);
                }
                Ok(n)
            }
            Err(_) if self.cancel.is_set() => Err(NetError::Cancelled),
            Err(error) => {
                let (phase, timeouts) =
                    self.slot.as_ref().map_or((Phase::Idle, None), |slot| (slot.pace.phase(), Some(slot.timeouts)));
                Err(match timeouts {
                    Some(timeouts) => failure(Error::from(error), phase, timeouts),
                    None => NetError::Cut { cause: error.to_string() },
                })
            }
        }
    }

    /// The whole body; [`NetError::TooLarge`] beyond `bytes_max`.
    pub fn body(&mut self, bytes_max: usize) -> Result<Vec<u8>, NetError> {
        match self.body_start(bytes_max)? {
            (body, true) => Ok(body),
            (_, false) => Err(NetError::TooLarge { bytes_max }),
        }
    }

    /// At most the first `bytes_max` bytes of the body, and whether that is all of it.
    pub fn body_start(&mut self, bytes_max: usize) -> Result<(Vec<u8>, bool), NetError> {
        let mut body = Vec::new();
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        loop {
            let n = self.read(&mut buffer)?;
            if n == 0 {
                return Ok((body, true));
            }
            let room = bytes_max - body.len();
            body.extend_from_slice(&buffer[..n.min(room)]);
            if n > room {
                return Ok((body, false));
            }
        }
    }

    /// From here on a read waits at most `wait`: the answer is complete but for its last words.
    pub fn expect_end(&mut self, wait: Duration) {
        if let Some(slot) = &self.slot {
            slot.pace.set_stage(Stage::Tail { wait });
        }
    }

    /// Reads the end of a complete answer if it is there, so that the connection can be kept.
    pub fn finish(mut self) {
        self.expect_end(END_WAIT);
        // Nothing more is wanted, so it does not matter how this fails; `ended` says whether it worked.
        let _ = self.read(&mut [0; 64]);
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // First the body: it hands the connection back to the agent.
        self.body = None;
        self.cancel.clear_hook();
        // The flag is set before a hook is taken, so a hook that still runs is seen here and its slot not kept.
        if self.ended
            && !self.cancel.is_set()
            && let Some(slot) = self.slot.take()
        {
            self.client.keep(slot);
        }
    }
}

/// What an error of ureq means in this phase of a call.
pub(super) fn failure(error: Error, phase: Phase, timeouts: Timeouts) -> NetError {
    match error {
        Error::Timeout(reason) => {
            let phase = match reason {
                Timeout::Resolve | Timeout::Connect => Phase::Connect,
                Timeout::Global | Timeout::PerCall => Phase::Total,
                _ => phase,
            };
            let after = match phase {
                Phase::Connect => timeouts.connect,
                Phase::FirstByte => timeouts.first_byte,
                Phase::Idle => timeouts.idle,
                Phase::Total => timeouts.total.unwrap_or_default(),
            };
            NetError::Timeout { phase, after }
        }
        Error::HostNotFound => NetError::Connect { cause: "unknown host name".to_owned() },
        // The address was parsed before, so what http refuses is a header; its text is not quoted, it may be secret.
        Error::Http(_) => NetError::BadUrl { cause: "a header has a strange character".to_owned() },
        Error::BadUri(_) => NetError::BadUrl { cause: "not an absolute http or https address".to_owned() },
        Error::Other(other) => match other.downcast_ref::<RefusedAddress>() {
            Some(refused) => NetError::Refused { address: refused.0 },
            None => NetError::Decode { cause: other.to_string() },
        },
        Error::Io(_) | Error::Rustls(_) | Error::Tls(_) | Error::ConnectionFailed if phase == Phase::Connect => {
            NetError::Connect { cause: error.to_string() }
        }
        Error::Io(_) => NetError::Cut { cause: error.to_string() },
        other => NetError::Decode { cause: other.to_string() },
    }
}

/// `Retry-After` (RFC 9110 10.2.3): seconds, or a date compared with the clock; at most a day.
pub fn retry_after(value: &str, now_s: i64) -> Option<Duration> {
    let value = value.trim();
    let wait = if let Ok(seconds) = value.parse::<f64>() {
        Duration::try_from_secs_f64(seconds).ok()?
    } else {
        let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_second();
        Duration::from_secs(u64::try_from(at - now_s).unwrap_or(0))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let check = |value: &str, expected: Option<u64>| {
            assert_eq!(retry_after(value, 1_445_412_470), expected.map(Duration::from_secs), "{value}");
        };
        check("7", Some(7));
        check(" 0 ", Some(0));
        check("Wed, 21 Oct 2015 07:28:00 GMT", Some(10));
        check("Wed, 21 Oct 2015 07:00:00 GMT", Some(0));
        check("99999999", Some(24 * 3600));
        check("-5", None);
        check("soon", None);
    }
}
