//! ICMP echo (RFC 792, RFC 4443 4.1) over a datagram socket, which needs no privilege where the system's
//! `net.ipv4.ping_group_range` allows it, else over a raw socket, which needs `CAP_NET_RAW`.

#[cfg(test)]
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};

use crate::rt::Cancel;

/// What other pings send: with the headers of ICMP and IPv4, 84 bytes.
const PAYLOAD_BYTES: usize = 56;
const HEADER_BYTES: usize = 8;

/// Larger than any answer to it, with the longest IPv4 header.
const BUFFER_BYTES: usize = 256;

/// Strange packets that are read between two looks at the clock.
const BURST_MAX: usize = 64;

/// How many, how far apart, how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) packets: u16,
    pub(crate) gap: Duration,
    /// For the answer to the last packet; all before have longer.
    pub(crate) wait: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Echoes {
    pub(crate) sent: u16,
    /// One round trip per answered packet.
    pub(crate) round_trips: Vec<Duration>,
    /// Why the system did not even send, if so: no route, no such network.
    pub(crate) refused: Option<Errno>,
}

/// Why there is nothing to say about the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingError {
    /// This process may not ping.
    NotPermitted,
    Cancelled,
    System(Errno),
}

/// A socket for echoes of one family.
struct Echo {
    socket: OwnedFd,
    v6: bool,
    /// Raw sockets see the answers to everybody, and on IPv4 the header too.
    raw: bool,
    id: u16,
    /// Begins every payload: answers to another process, or to an earlier ping, have another.
    token: [u8; 8],
}

impl Echo {
    fn open(v6: bool) -> Result<Self, PingError> {
        let (family, protocol) =
            if v6 { (AddressFamily::INET6, ipproto::ICMPV6) } else { (AddressFamily::INET, ipproto::ICMP) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|_| PingError::System(Errno::IO))?;
        let [a, b, token @ ..] = random;
        for kind in [SocketType::DGRAM, SocketType::RAW] {
            match socket_with(family, kind, flags, Some(protocol)) {
                Ok(socket) => {
                    return Ok(Self {
                        socket,
                        v6,
                        raw: kind == SocketType::RAW,
                        id: u16::from_be_bytes([a, b]),
                        token,
                    });
                }
                // Systems without ping sockets know no such protocol.
                Err(Errno::ACCESS | Errno::PERM | Errno::PROTONOSUPPORT) => {}
                Err(error) => return Err(PingError::System(error)),
            }
        }
        Err(PingError::NotPermitted)
    }

    fn request(&self, sequence: u16) -> Vec<u8> {
        let mut packet = vec![if self.v6 { 128 } else { 8 }, 0, 0, 0];
        packet.extend_from_slice(&self.id.to_be_bytes());
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&self.token);
        packet.resize(HEADER_BYTES + PAYLOAD_BYTES, b'.');
        // The kernel does it for ICMPv6, whose sum covers addresses that only it knows.
        if !self.v6 {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    /// The sequence number of an answer to one of ours.
    fn answer(&self, packet: &[u8]) -> Option<u16> {
        let packet = if self.raw && !self.v6 { packet.get(usize::from(packet.first()? & 0x0f) * 4..)? } else { packet };
        let [kind, 0, _, _, id_high, id_low, high, low, payload @ ..] = packet else { return None };
        let ours = *kind == if self.v6 { 129 } else { 0 }
            // The kernel gives a datagram socket an id of its own.
            && (!self.raw || u16::from_be_bytes([*id_high, *id_low]) == self.id)
            && payload.starts_with(&self.token);
        ours.then(|| u16::from_be_bytes([*high, *low]))
    }
}

/// The internet checksum (RFC 1071).
fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in packet.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Sends the packets and collects the answers. Ends when all are answered, at the plan's end, or at the deadline.
pub(crate) fn ping(to: SocketAddr, plan: Plan, deadline: Instant, cancel: &Cancel) -> Result<Echoes, PingError> {
    let echo = Echo::open(to.is_ipv6())?;
    let (woken, wakes) = rustix::pipe::pipe().map_err(PingError::System)?;
    cancel.set_hook(move || {
        // Full means that it was cancelled already.
        let _ = rustix::io::write(&wakes, &[1]);
    });
    let echoes = exchange(&echo, to, plan, deadline, &woken, cancel);
    cancel.clear_hook();
    echoes
}

fn exchange(
    echo: &Echo,
    to: SocketAddr,
    plan: Plan,
    deadline: Instant,
    woken: &OwnedFd,
    cancel: &Cancel,
) -> Result<Echoes, PingError> {
    let started = Instant::now();
    let mut echoes = Echoes::default();
    let mut sent_at: Vec<Instant> = Vec::new();
    let mut answered = vec![false; usize::from(plan.packets)];
    let end = deadline.min(started + plan.gap * u32::from(plan.packets.saturating_sub(1)) + plan.wait);
    loop {
        if cancel.is_set() {
            return Err(PingError::Cancelled);
        }
        let now = Instant::now();
        let next_send = started + plan.gap * u32::from(echoes.sent);
        if echoes.sent < plan.packets && now >= next_send && now < end {
            sent_at.push(now);
            match sendto(&echo.socket, &echo.request(echoes.sent), SendFlags::empty(), &to) {
                // A full queue of the device is a lost packet.
                Ok(_) | Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) => {}
                // No route, or a firewall of this machine.
                Err(error) => echoes.refused = Some(error),
            }
            echoes.sent += 1;
            continue;
        }
        if now >= end || echoes.round_trips.len() == answered.len() {
            return Ok(echoes);
        }
        let until = if echoes.sent < plan.packets { next_send.min(end) } else { end };
        wait(&echo.socket, woken, until.saturating_duration_since(now))?;
        for _ in 0..BURST_MAX {
            let mut buffer = [0; BUFFER_BYTES];
            let Ok((length, _, from)) = recvfrom(&echo.socket, &mut buffer[..], RecvFlags::DONTWAIT) else { break };
            let from = from.and_then(|from| SocketAddr::try_from(from).ok()).map(|from| from.ip());
            // An answer of another machine is none, unless "this machine" was asked by its odd name.
            if !to.ip().is_unspecified() && from != Some(to.ip()) {
                continue;
            }
            let Some(sequence) = echo.answer(&buffer[..length]) else { continue };
            let idx = usize::from(sequence);
            if let Some(sent) = sent_at.get(idx)
                && !std::mem::replace(&mut answered[idx], true)
            {
                echoes.round_trips.push(sent.elapsed());
            }
        }
    }
}

/// Waits for a packet, the cancel, or the time. Rounded up: waking a moment early would spin.
fn wait(socket: &OwnedFd, woken: &OwnedFd, time: Duration) -> Result<(), PingError> {
    let time =
        Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) };
    let mut both = [PollFd::new(socket, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
    match poll(&mut both, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(PingError::System(error)),
    }
}

/// Whether this process may ping hosts of that family at all.
#[cfg(test)]
pub(super) fn permitted(ip: IpAddr) -> bool {
    !matches!(Echo::open(ip.is_ipv6()), Err(PingError::NotPermitted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_peer::{LONG, STACK_BYTES};
    use crate::rt::Threads;

    const QUICK: Plan = Plan { packets: 3, gap: Duration::from_millis(1), wait: LONG };

    fn echo(v6: bool, raw: bool) -> Echo {
        let (socket, _) = rustix::pipe::pipe().unwrap();
        Echo { socket, v6, raw, id: 0x1234, token: *b"holtping" }
    }

    #[test]
    fn answers_are_matched_by_kind_id_and_token() {
        let check = |echo: &Echo, packet: &[u8], expected: Option<u16>| assert_eq!(echo.answer(packet), expected);
        let datagram = echo(false, false);
        let mut answer = datagram.request(7);
        assert_eq!((answer.len(), answer[0], checksum(&answer)), (64, 8, 0), "a valid sum sums up to nothing");
        check(&datagram, &answer, None);
        answer[0] = 0;
        answer[4] = 0x99;
        check(&datagram, &answer, Some(7));
        check(&echo(false, true), &[&[0x45; 20], answer.as_slice()].concat(), None);
        answer[4] = 0x12;
        check(&echo(false, true), &[&[0x45; 20], answer.as_slice()].concat(), Some(7));
        check(&echo(false, true), &[&[0x46; 24], answer.as_slice()].concat(), Some(7));
        check(&echo(false, true), &[0x4f, 1, 2], None);
        answer[8] = b'X';
        check(&datagram, &answer, None);
        check(&datagram, &answer[..7], None);
        check(&datagram, &[], None);
        let v6 = echo(true, true);
        let mut answer = v6.request(1);
        assert_eq!(answer[0], 128);
        answer[0] = 129;
        check(&v6, &answer, Some(1));
        // Unreachable, with our packet inside.
        answer[0] = 1;
        check(&v6, &answer, None);
    }

    #[test]
    fn this_machine_answers_where_pinging_is_permitted() {
        for ip in ["127.0.0.1", "::1"] {
            let to = SocketAddr::new(ip.parse().unwrap(), 0);
            match ping(to, QUICK, Instant::now() + LONG, &Cancel::new()) {
                Ok(echoes) if echoes.refused.is_none() => {
                    assert_eq!((echoes.sent, echoes.round_trips.len()), (3, 3), "{ip}");
                    assert!(permitted(to.ip()));
                }
                // A machine without IPv6.
                Ok(echoes) => assert!(to.is_ipv6(), "{echoes:?}"),
                Err(PingError::NotPermitted) => assert!(!permitted(to.ip())),
                Err(PingError::System(_)) => assert!(to.is_ipv6()),
                Err(PingError::Cancelled) => panic!("nobody cancelled"),
            }
        }
    }

    /// A peer on UDP that answers each packet with what `answers` makes of it: the exchange does not know the difference.
    fn peer(packets: usize, answers: fn(&[u8]) -> Vec<Vec<u8>>) -> (Echo, SocketAddr, Threads) {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = peer.local_addr().unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).unwrap();
        let threads = Threads::new();
        threads
            .spawn("peer", STACK_BYTES, move || {
                for _ in 0..packets {
                    let mut buffer = [0; 256];
                    let (length, from) = peer.recv_from(&mut buffer).unwrap();
                    for answer in answers(&buffer[..length]) {
                        peer.send_to(&answer, from).unwrap();
                    }
                }
            })
            .unwrap();
        (Echo { socket, ..echo(false, false) }, to, threads)
    }

    fn run(
        peer: &(Echo, SocketAddr, Threads),
        plan: Plan,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Echoes, PingError> {
        let (woken, wakes) = rustix::pipe::pipe().unwrap();
        cancel.set_hook(move || {
            rustix::io::write(&wakes, &[1]).unwrap();
        });
        let echoes = exchange(&peer.0, peer.1, plan, deadline, &woken, cancel);
        cancel.clear_hook();
        assert!(peer.2.join_all(LONG).is_empty());
        echoes
    }

    fn echoed(request: &[u8]) -> Vec<u8> {
        [&[0], &request[1..]].concat()
    }

    #[test]
    fn every_packet_is_answered_once_whatever_else_arrives() {
        let noisy = peer(3, |request| {
            let strange = [&echoed(request)[..8], b"whoisit?"].concat();
            let unsent = [&[0, 0, 0, 0, 0, 0, 0x7f, 0xff], &request[8..]].concat();
            vec![vec![], b"x".to_vec(), vec![0xff; 300], strange, unsent, echoed(request), echoed(request)]
        });
        let echoes = run(&noisy, QUICK, Instant::now() + LONG, &Cancel::new()).unwrap();
        assert_eq!((echoes.sent, echoes.round_trips.len()), (3, 3));
    }

    #[test]
    fn silence_ends_at_the_deadline_and_a_cancel_at_once() {
        let silent = peer(1, |_| Vec::new());
        let plan = Plan { packets: 2, gap: LONG, wait: LONG };
        let soon = Instant::now() + Duration::from_millis(30);
        let echoes = run(&silent, plan, soon, &Cancel::new()).unwrap();
        assert_eq!((echoes.sent, echoes.round_trips.len()), (1, 0));
        let silent = peer(1, |_| Vec::new());
        let cancel = Cancel::new();
        let (threads, ends) = (Threads::new(), cancel.clone());
        threads.spawn("ends", STACK_BYTES, move || ends.cancel()).unwrap();
        let ended = exchange_cancelled(&silent, plan, &cancel);
        assert_eq!(ended, Err(PingError::Cancelled));
        assert!(threads.join_all(LONG).is_empty());
    }

    /// The peer may wait for a packet that a fast cancel prevents: it gets one.
    fn exchange_cancelled(
        peer: &(Echo, SocketAddr, Threads),
        plan: Plan,
        cancel: &Cancel,
    ) -> Result<Echoes, PingError> {
        sendto(&peer.0.socket, b"first", SendFlags::empty(), &peer.1).unwrap();
        run(peer, plan, Instant::now() + LONG, cancel)
    }
}
