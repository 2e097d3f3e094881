//! `net`: does a TCP or UDP port answer, how soon, and with what (contract agent-link 7.5, runner-up).
//!
//! `[checks.net]`: `targets` (`host:port`), `protocol` (`tcp`, `udp`), `send` (needed with UDP), `expect` (part of the
//! answer), `timeout` (1s), `severity` (Critical); `response_time` (off, milliseconds).

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::alert::Level;
use crate::checks::each::{Look, Seen, each, targets, timeout};
use crate::checks::limits::{Limits, Unit};
use crate::checks::peek::host_and_port;
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::settings::{SettingError, Settings};
use crate::net::{Wire, look_up};

const CONNECTIVITY: &str = "net::connectivity";
const RESPONSE_TIME: &str = "net::response_time";

/// Of an answer; what is expected stands at its begin.
const ANSWER_BYTES_MAX: usize = 4096;

struct Ports {
    targets: Arc<[(String, String, u16)]>,
    talk: Arc<Talk>,
    timeout: Duration,
}

struct Talk {
    udp: bool,
    send: Vec<u8>,
    expect: Vec<u8>,
    level: Level,
    response_time: Limits,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let mut ports = Vec::new();
    for target in targets(settings, "host:port, one or more")? {
        let (host, port) = host_and_port(&target, None)
            .ok_or_else(|| settings.error("targets", format!("{target:?} is not host:port")))?;
        ports.push((target, host, port));
    }
    let udp = settings.word("protocol", &["tcp", "udp"], "tcp")? == "udp";
    let send = settings.text("send", "")?.into_bytes();
    let expect = settings.text("expect", "")?.into_bytes();
    if udp && send.is_empty() {
        let reason = "is needed with udp: what a service of this kind answers to; nothing else tells that it is there";
        return Err(settings.error("send", reason));
    }
    let timeout = timeout(settings, "timeout", Duration::from_secs(1))?;
    let level = settings.level("severity", Level::Critical)?;
    let response_time = settings.limits("response_time", Limits::above(Unit::Millis, 0.0, 0.0))?;
    let talk = Talk { udp, send, expect, level, response_time };
    Ok(vec![Box::new(Ports { targets: ports.into(), talk: Arc::new(talk), timeout })])
}

impl Check for Ports {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let talk = Arc::clone(&self.talk);
        let look = move |(target, host, port): &(String, String, u16), look: &Look<'_>| {
            let started = Instant::now();
            let answer = if talk.udp { talk.udp(host, *port, look) } else { talk.tcp(host, *port, look) };
            if look.cancel.is_set() {
                return Seen::Nothing;
            }
            Seen::Readings(talk.readings(target, answer, started.elapsed()))
        };
        each(&self.targets, self.timeout, context, look)
    }
}

impl Talk {
    fn tcp(&self, host: &str, port: u16, look: &Look<'_>) -> Result<(), String> {
        let mut wire = Wire::connect(host, port, look.deadline, look.cancel).map_err(|error| error.to_string())?;
        wire.write_all(&self.send).map_err(|error| format!("cannot send: {}", wire.failure(&error)))?;
        let mut answer = Vec::new();
        let mut buffer = [0; 512];
        while !self.is_answer(&answer) {
            match wire.read(&mut buffer) {
                Ok(0) => return Err("the peer hung up before the expected answer".to_owned()),
                Ok(n) if answer.len() + n <= ANSWER_BYTES_MAX => answer.extend_from_slice(&buffer[..n]),
                Ok(_) => return Err(format!("the expected answer is not in the first {ANSWER_BYTES_MAX} bytes")),
                Err(error) => return Err(format!("no expected answer: {}", wire.failure(&error))),
            }
        }
        Ok(())
    }

    fn udp(&self, host: &str, port: u16, look: &Look<'_>) -> Result<(), String> {
        let found = look_up(host, port, look.deadline, look.cancel).map_err(|error| error.to_string())?;
        let Some(addr) = found.first() else { return Err("unknown host name".to_owned()) };
        let any = SocketAddr::new(if addr.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
        let io = |error: std::io::Error| error.to_string();
        let socket = UdpSocket::bind(any).map_err(io)?;
        socket.connect(addr).map_err(io)?;
        let ends = socket.try_clone().map_err(io)?;
        look.cancel.set_hook(move || {
            // Wakes a blocked read; fails only when there is none.
            let _ = rustix::net::shutdown(&ends, rustix::net::Shutdown::Both);
        });
        let answer = self.datagrams(&socket, look);
        look.cancel.clear_hook();
        answer
    }

    fn datagrams(&self, socket: &UdpSocket, look: &Look<'_>) -> Result<(), String> {
        socket.send(&self.send).map_err(|error| format!("cannot send: {error}"))?;
        let mut buffer = [0; ANSWER_BYTES_MAX];
        let mut strange = false;
        while !look.cancel.is_set() {
            let left = look.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match socket.set_read_timeout(Some(left)).and_then(|()| socket.recv(&mut buffer)) {
                Ok(n) if self.expect.is_empty() || self.is_answer(&buffer[..n]) => return Ok(()),
                Ok(_) => strange = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(if strange { "answers, but not as expected" } else { "no answer in time" }.to_owned())
    }

    fn is_answer(&self, answer: &[u8]) -> bool {
        self.expect.is_empty() || answer.windows(self.expect.len()).any(|part| part == self.expect)
    }

    fn readings(&self, target: &str, answer: Result<(), String>, time: Duration) -> Vec<Reading> {
        let protocol = if self.udp { "udp" } else { "tcp" };
        let millis = time.as_secs_f64() * 1000.0;
        let mut readings = match answer {
            Ok(()) => vec![Reading::new(CONNECTIVITY, target, Level::Ok, format!("answers in {millis:.1}ms"))],
            Err(error) => vec![Reading::failed_at(CONNECTIVITY, target, self.level, error)],
        };
        if readings[0].level == Level::Ok {
            readings.extend(self.response_time.reading(RESPONSE_TIME, target, "response time", millis));
        }
        let dress =
            |reading: Reading| reading.label("protocol", protocol).attr("response_time", format!("{millis:.1}ms"));
        readings.into_iter().map(dress).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::each::tests::{built, lines, round};
    use crate::diag::HostRoot;
    use crate::net::test_peer::{LONG, STACK_BYTES};
    use crate::rt::Threads;
    use serde_json::{Value, json};
    use std::net::TcpListener;

    /// One TCP peer that says `says` and waits for the end.
    fn tcp_peer(says: &'static [u8]) -> (u16, Threads) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let threads = Threads::new();
        threads
            .spawn("peer", STACK_BYTES, move || {
                let (mut socket, _) = listener.accept().unwrap();
                // The check may have what it wanted and be gone.
                let _ = socket.write_all(says);
                let _ = socket.read_to_end(&mut Vec::new());
            })
            .unwrap();
        (port, threads)
    }

    /// One UDP peer that answers each of two requests with `says`; an empty one answers nothing.
    fn udp_peer(says: &'static [&'static [u8]]) -> (u16, Threads) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let threads = Threads::new();
        threads
            .spawn("peer", STACK_BYTES, move || {
                let mut buffer = [0; 64];
                let (_, from) = socket.recv_from(&mut buffer).unwrap();
                for answer in says {
                    socket.send_to(answer, from).unwrap();
                }
            })
            .unwrap();
        (port, threads)
    }

    fn check((port, threads): (u16, Threads), mut table: Value, expected: &str) {
        table["targets"] = json!(format!("127.0.0.1:{port}"));
        let (readings, ..) = round(&mut *built(build, &table).unwrap(), &HostRoot::system());
        let line = &lines(&readings)[0];
        assert!(line.starts_with(&format!("net::connectivity 127.0.0.1:{port} {expected}")), "{line}");
        assert!(threads.join_all(LONG).is_empty());
    }

    #[test]
    fn tcp_ports_answer_or_not() {
        check(tcp_peer(b""), json!({}), "Ok: answers in ");
        check(tcp_peer(b"220 hi\r\n"), json!({"send": "x", "expect": "220"}), "Ok: answers in ");
        check(tcp_peer(b"no"), json!({"expect": "220", "timeout": "60ms"}), "Critical: no expected answer: time-out");
        check(
            tcp_peer(&[0; 9000]),
            json!({"expect": "220", "severity": "Warning"}),
            "Warning: the expected answer is not in",
        );
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        check((port, Threads::new()), json!({}), "Critical: connect: ");
    }

    #[test]
    fn udp_ports_answer_or_not() {
        let ask = json!({"protocol": "udp", "send": "hi", "timeout": "2s"});
        check(udp_peer(&[b"x"]), ask.clone(), "Ok: answers in ");
        let quick = json!({"protocol": "udp", "send": "hi", "expect": "ho", "timeout": "60ms"});
        check(udp_peer(&[b"x", b"ho!"]), json!({"protocol": "udp", "send": "hi", "expect": "ho"}), "Ok");
        check(udp_peer(&[b"x"]), quick.clone(), "Critical: answers, but not as expected");
        check(udp_peer(&[]), quick, "Critical: ");
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        check((port, Threads::new()), ask, "Critical: ");
    }

    #[test]
    fn a_slow_answer_is_judged_and_settings_are_checked() {
        let (port, threads) = tcp_peer(b"");
        let table = json!({"targets": [format!("127.0.0.1:{port}")], "response_time": {"warn_ge": 0.0001}});
        let (readings, ..) = round(&mut *built(build, &table).unwrap(), &HostRoot::system());
        assert_eq!((readings[1].check, readings[1].level), (RESPONSE_TIME, Level::Warning));
        assert_eq!(readings[1].labels, [("protocol", "tcp".to_owned())]);
        assert!(threads.join_all(LONG).is_empty());
        for (table, key) in [
            (json!({}), "targets"),
            (json!({"targets": "host"}), "targets"),
            (json!({"targets": "host:1", "protocol": "icmp"}), "protocol"),
            (json!({"targets": "host:1", "protocol": "udp"}), "send"),
            (json!({"targets": "host:1", "timeout": 0}), "timeout"),
        ] {
            assert_eq!(built(build, &table).err().unwrap().key, format!("checks.x.{key}"));
        }
    }
}
