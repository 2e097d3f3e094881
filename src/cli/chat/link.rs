//! The line to the hub: connects, and connects again, with pauses that grow and differ between clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never};
use rustls::ClientConfig;

use super::socket::{self, Closed, FromSocket, Writer};
use crate::cli::CliError;
use crate::cli::hub_url::HubUrl;
use crate::rt::Threads;

/// Seconds before each further try; the last one for all that follow.
const PAUSES_S: [u64; 5] = [1, 2, 4, 8, 15];
/// RFC 6455 section 7.4.1: the hub's policy forbids; for us, the key was revoked.
const POLICY: u16 = 1008;
/// A message was larger than the hub takes: trying again would not help.
const TOO_BIG: u16 = 1009;

/// Where to connect, and with what.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) url: HubUrl,
    pub(super) key: String,
    /// Whom to believe; None without TLS.
    pub(super) trust: Option<Arc<ClientConfig>>,
}

/// What the line has to say.
#[derive(Debug)]
pub(super) enum Heard {
    /// Up, for the first time or again.
    Up,
    Frame(String),
    /// Down, and tried again from now on; said once until it is up.
    Down,
    /// Down, and trying again is of no use.
    Failed(CliError),
}

/// The line.
pub(super) struct Link {
    target: Target,
    threads: Threads,
    events_rx: Receiver<FromSocket>,
    writer: Option<Box<Writer>>,
    /// How often it was up.
    ups: u64,
    tries: usize,
    retry_at: Option<Instant>,
    down_since: Option<Instant>,
}

impl Link {
    /// Begins to connect.
    pub(super) fn start(target: Target, threads: Threads) -> Result<Self, CliError> {
        let events_rx = socket::start(&threads, &target).map_err(CliError::failed)?;
        Ok(Self { target, threads, events_rx, writer: None, ups: 0, tries: 0, retry_at: None, down_since: None })
    }

    /// For `select!`; what comes goes to [`Link::on`].
    pub(super) fn events(&self) -> &Receiver<FromSocket> {
        &self.events_rx
    }

    /// When [`Link::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// How long the line has been down.
    pub(super) fn down_for(&self) -> Duration {
        self.down_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether it was up before, and lost.
    pub(super) fn is_back(&self) -> bool {
        self.ups > 1
    }

    pub(super) fn is_up(&self) -> bool {
        self.writer.is_some()
    }

    /// Sends frames. What fails is sent again by whoever keeps them, once the line is up.
    pub(super) fn send(&mut self, frames: &[String]) {
        if let Some(writer) = &mut self.writer
            && frames.iter().try_for_each(|frame| writer.send(frame)).is_err()
        {
            // Frees the reading half, which then reports the end.
            self.writer = None;
        }
    }

    /// Takes in what the socket reports; None from the channel is an end as well.
    pub(super) fn on(&mut self, event: Option<FromSocket>) -> Option<Heard> {
        match event {
            Some(FromSocket::Open(writer)) => {
                self.writer = Some(writer);
                self.ups += 1;
                self.tries = 0;
                self.down_since = None;
                Some(Heard::Up)
            }
            Some(FromSocket::Frame(text)) => Some(Heard::Frame(text)),
            Some(FromSocket::Reply(bytes)) => {
                if let Some(writer) = &mut self.writer
                    && writer.reply(&bytes).is_err()
                {
                    self.writer = None;
                }
                None
            }
            Some(FromSocket::Closed(closed)) => self.closed(&closed),
            None => self.closed(&Closed::Lost(String::new())),
        }
    }

    /// Connects again when its time has come.
    pub(super) fn tick(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.retry_at = None;
            match socket::start(&self.threads, &self.target) {
                Ok(events_rx) => self.events_rx = events_rx,
                Err(_) => self.plan_retry(),
            }
        }
    }

    /// Closes properly.
    pub(super) fn close(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.close();
        }
        self.writer = None;
    }

    fn closed(&mut self, closed: &Closed) -> Option<Heard> {
        self.writer = None;
        self.events_rx = never();
        if let Some(text) = final_text(closed, self.ups > 0, &self.target.url) {
            return Some(Heard::Failed(CliError::Failed(text)));
        }
        self.plan_retry();
        if self.down_since.is_some() {
            return None;
        }
        self.down_since = Some(Instant::now());
        Some(Heard::Down)
    }

    fn plan_retry(&mut self) {
        self.retry_at = Some(Instant::now() + pause(self.tries, random_byte()));
        self.tries += 1;
    }
}

/// Why trying again is of no use; None when it may be.
fn final_text(closed: &Closed, seasoned: bool, url: &HubUrl) -> Option<String> {
    let with = |said: &str| if said.is_empty() { String::new() } else { format!(": {said}") };
    match closed {
        Closed::Refused(401, _) if seasoned => Some(revoked()),
        Closed::Refused(401, _) => {
            Some(format!("the hub at {url} does not know this key; make one on its machine: holt keys create <name>"))
        }
        Closed::Refused(403, said) => Some(format!("this key may not chat{}; it needs the scope chat", with(said))),
        Closed::Refused(404, said) => Some(format!("the hub at {url} offers no websocket{}", with(said))),
        Closed::Refused(status @ 300..=499, said) if !matches!(status, 408 | 425 | 429) => {
            Some(format!("the hub at {url} refused with status {status}{}", with(said)))
        }
        Closed::Code(POLICY, _) => Some(revoked()),
        Closed::Code(TOO_BIG, _) => Some("the hub takes no message of this size; send a shorter one".to_owned()),
        Closed::Untrusted(reason) => Some(format!("the hub at {url}: {reason}")),
        Closed::Unreachable(_) if !seasoned => Some(nobody_answers(url)),
        Closed::Refused(status, said) if !seasoned => {
            Some(format!("the hub at {url} answered with status {status}{}; try again in a moment", with(said)))
        }
        Closed::Refused(..) | Closed::Unreachable(_) | Closed::Code(..) | Closed::Lost(_) => None,
    }
}

/// The line for a hub that is not there.
pub(super) fn nobody_answers(url: &HubUrl) -> String {
    format!("no hub answers at {url}: start one with: holt serve")
}

fn revoked() -> String {
    "the hub no longer accepts this key: it was revoked; make one on its machine: holt keys create <name>".to_owned()
}

/// The pause before a try, moved by up to a quarter, so that the clients of a hub that comes back do not come at once.
fn pause(tries: usize, random: u8) -> Duration {
    let ms = PAUSES_S[tries.min(PAUSES_S.len() - 1)] * 1000;
    Duration::from_millis(ms - ms / 4 + ms / 2 * u64::from(random) / 255)
}

fn random_byte() -> u8 {
    let mut byte = [0];
    // Without randomness all clients wait alike: no harm worth failing for.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for (tries, low, high) in
            [(0, 750, 1250), (1, 1500, 2500), (2, 3000, 5000), (4, 11_250, 18_750), (99, 11_250, 18_750)]
        {
            assert_eq!(pause(tries, 0).as_millis(), low);
            assert_eq!(pause(tries, 255).as_millis(), high);
        }
    }

    #[test]
    fn some_ends_are_final() {
        let url = HubUrl::parse("http://127.0.0.1:1").unwrap();
        let check = |closed: Closed, first: Option<&str>, later: Option<&str>| {
            for (seasoned, expected) in [(false, first), (true, later)] {
                let text = final_text(&closed, seasoned, &url);
                let fits = match (&text, expected) {
                    (Some(text), Some(part)) => text.contains(part),
                    (None, None) => true,
                    _ => false,
                };
                assert!(fits, "{closed:?} {seasoned}: {text:?}");
            }
        };
        check(
            Closed::Unreachable("refused".into()),
            Some("no hub answers at http://127.0.0.1:1: start one with: holt serve"),
            None,
        );
        check(Closed::Refused(401, String::new()), Some("does not know this key"), Some("revoked"));
        check(Closed::Refused(403, "insufficient scope".into()), Some("insufficient scope"), Some("may not chat"));
        check(Closed::Untrusted("expired".into()), Some("1: expired"), Some("1: expired"));
        check(Closed::Refused(421, "host".into()), Some("status 421: host"), Some("status 421"));
        check(Closed::Refused(503, String::new()), Some("status 503"), None);
        check(Closed::Refused(429, String::new()), Some("status 429"), None);
        check(Closed::Code(1008, String::new()), Some("revoked"), Some("revoked"));
        check(Closed::Code(1009, String::new()), Some("shorter"), Some("shorter"));
        check(Closed::Code(1001, "bye".into()), None, None);
        check(Closed::Code(1013, "full".into()), None, None);
        check(Closed::Lost("reset".into()), None, None);
    }
}
