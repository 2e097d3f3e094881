//! `ping`: does a host answer, how many packets are lost, how long is the way (contract agent-link 7.5, 10).
//!
//! `[checks.ping]`: `targets` (names or addresses), `count` (5), `packet_interval` (200ms), `packet_timeout` (2s), `ip`
//! (`any`, `v4`, `v6`), `severity` (Critical); `packet_loss` (30 / 60 percent), `rtt` (off, milliseconds). Where this
//! process may not ping, that is said once and nothing is raised.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::alert::Level;
use crate::checks::each::{Look, Seen, each, targets, timeout};
use crate::checks::icmp::{Echoes, PingError, Plan, ping};
use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::thresholds::PING_LOSS_PERCENT;
use crate::net::{NetError, look_up};

const CONNECTIVITY: &str = "ping::connectivity";
const PACKET_LOSS: &str = "ping::packet_loss";
const RTT: &str = "ping::rtt";

/// Kinder to small devices than a burst; also what others allow without privileges.
const GAP_MIN: Duration = Duration::from_millis(200);

/// For the lookup of the name, beside the packets.
const LOOKUP: Duration = Duration::from_secs(5);

const NOT_PERMITTED: &str = "this process may not ping: let the group of its user in with \
                             `sysctl net.ipv4.ping_group_range=\"0 2147483647\"`, or give it CAP_NET_RAW";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

struct Ping {
    targets: Arc<[String]>,
    dims: Arc<Dims>,
    per_target: Duration,
}

struct Dims {
    plan: Plan,
    family: Family,
    level: Level,
    loss: Limits,
    rtt: Limits,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let targets = targets(settings, "host names or addresses")?;
    let packets = u16::try_from(settings.whole("count", 5, 1, 20)?).unwrap_or(5);
    let gap = settings.duration_from("packet_interval", GAP_MIN, GAP_MIN)?.min(Duration::from_secs(1));
    let wait = timeout(settings, "packet_timeout", Duration::from_secs(2))?;
    let family = match settings.word("ip", &["any", "v4", "v6"], "any")? {
        "v4" => Family::V4,
        "v6" => Family::V6,
        _ => Family::Any,
    };
    let level = settings.level("severity", Level::Critical)?;
    // One lost packet in five is a Wi-Fi, two are a problem.
    let loss = settings.limits("packet_loss", Limits::like(Unit::Percent, &PING_LOSS_PERCENT))?;
    let rtt = settings.limits("rtt", Limits::above(Unit::Millis, 0.0, 0.0))?;
    let per_target = LOOKUP + gap * u32::from(packets) + wait;
    let dims = Dims { plan: Plan { packets, gap, wait }, family, level, loss, rtt };
    Ok(vec![Box::new(Ping { targets: targets.into(), dims: Arc::new(dims), per_target })])
}

impl Check for Ping {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let dims = Arc::clone(&self.dims);
        each(&self.targets, self.per_target, context, move |target: &String, look| dims.look(target, look))
    }
}

impl Dims {
    fn look(&self, target: &str, look: &Look<'_>) -> Seen {
        let found = look_up(target, 0, look.deadline.min(Instant::now() + LOOKUP), look.cancel);
        let down = |why: String| Seen::Readings(vec![Reading::failed_at(CONNECTIVITY, target, self.level, why)]);
        let addr = match found {
            Ok(found) => match found.into_iter().find(|addr| self.family.takes(*addr)) {
                Some(addr) => addr,
                None => return down(format!("{target} has no address of the wanted kind")),
            },
            Err(NetError::Cancelled) => return Seen::Nothing,
            Err(error) => return down(format!("cannot look up {target}: {error}")),
        };
        match ping(addr, self.plan, look.deadline, look.cancel) {
            Ok(echoes) => Seen::Readings(self.readings(target, addr, &echoes)),
            Err(PingError::Cancelled) => Seen::Nothing,
            Err(PingError::NotPermitted) => Seen::Unavailable(NOT_PERMITTED.to_owned()),
            Err(PingError::System(error)) => down(format!("cannot ping {target}: {error}")),
        }
    }

    fn readings(&self, target: &str, addr: SocketAddr, echoes: &Echoes) -> Vec<Reading> {
        let received = echoes.round_trips.len();
        let millis: Vec<f64> = echoes.round_trips.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        let average = millis.iter().sum::<f64>() / f64::from(u16::try_from(received).unwrap_or(u16::MAX));
        let lost = echoes.sent.saturating_sub(u16::try_from(received).unwrap_or(u16::MAX));
        let loss = 100.0 * f64::from(lost) / f64::from(echoes.sent.max(1));
        let dress = |reading: Reading| {
            let mut reading = reading
                .attr("ip", addr.ip().to_string())
                .attr("packets_sent", echoes.sent.to_string())
                .attr("packets_received", received.to_string())
                .attr("packet_loss", format!("{loss:.1}%"));
            if received > 0 {
                let (least, most) = millis.iter().fold((f64::MAX, 0.0_f64), |(l, m), t| (l.min(*t), m.max(*t)));
                for (name, time) in [("rtt_min", least), ("rtt_avg", average), ("rtt_max", most)] {
                    reading = reading.attr(name, format!("{time:.1}ms"));
                }
            }
            reading
        };
        if received == 0 {
            let why = match echoes.refused {
                Some(error) => format!("cannot send to {target}: {error}"),
                None => format!("{target} does not answer: {} packets, nothing came back", echoes.sent),
            };
            return vec![dress(Reading::failed_at(CONNECTIVITY, target, self.level, why))];
        }
        let fine = Reading::new(CONNECTIVITY, target, Level::Ok, format!("{target} answers in {average:.1}ms"));
        let loss = self.loss.reading(PACKET_LOSS, target, "packet loss", loss);
        let rtt = self.rtt.reading(RTT, target, "average round trip", average);
        [Some(fine), loss, rtt].into_iter().flatten().map(dress).collect()
    }
}

impl Family {
    fn takes(self, addr: SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => addr.is_ipv4(),
            Self::V6 => addr.is_ipv6(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::each::tests::{built, lines, round};
    use crate::checks::icmp::permitted;
    use crate::diag::HostRoot;
    use rustix::io::Errno;
    use serde_json::json;

    fn dims() -> Dims {
        let plan = Plan { packets: 5, gap: GAP_MIN, wait: GAP_MIN };
        let loss = Limits::above(Unit::Percent, 30.0, 60.0);
        Dims { plan, family: Family::Any, level: Level::Critical, loss, rtt: Limits::above(Unit::Millis, 20.0, 0.0) }
    }

    fn readings(times_ms: &[u64], refused: Option<Errno>) -> Vec<Reading> {
        let round_trips = times_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        dims().readings("nas", "10.0.0.9:0".parse().unwrap(), &Echoes { sent: 5, round_trips, refused })
    }

    #[test]
    fn echoes_become_readings() {
        let check = |times_ms: &[u64], refused: Option<Errno>, expected: &[&str]| {
            assert_eq!(lines(&readings(times_ms, refused)), expected);
        };
        check(
            &[10, 20, 30, 10, 20],
            None,
            &[
                "ping::connectivity nas Ok: nas answers in 18.0ms",
                "ping::packet_loss nas Ok: packet loss 0.0%",
                "ping::rtt nas Ok: average round trip 18.0ms",
            ],
        );
        check(
            &[30, 30],
            None,
            &[
                "ping::connectivity nas Ok: nas answers in 30.0ms",
                "ping::packet_loss nas Critical: packet loss 60.0% >= critical threshold 60.0%",
                "ping::rtt nas Warning: average round trip 30.0ms >= warning threshold 20.0ms",
            ],
        );
        check(&[], None, &["ping::connectivity nas Critical: nas does not answer: 5 packets, nothing came back"]);
        let unreachable = &readings(&[], Some(Errno::NETUNREACH))[0];
        assert!(unreachable.description.starts_with("cannot send to nas: "), "{}", unreachable.description);
        let first = &readings(&[10, 30], None)[0];
        let shown = ["ip", "packets_sent", "packets_received", "packet_loss", "rtt_min", "rtt_avg", "rtt_max"]
            .map(|name| first.attr_of(name).to_owned());
        assert_eq!(shown, ["10.0.0.9", "5", "2", "60.0%", "10.0ms", "20.0ms", "30.0ms"]);
    }

    #[test]
    fn a_round_says_what_it_saw_or_that_it_may_not_look() {
        let table = json!({"targets": ["127.0.0.1", "no.such.name.invalid"], "count": 1, "packet_timeout": "1s"});
        let mut check = built(build, &table).unwrap();
        let (readings, unavailable, incomplete) = round(&mut *check, &HostRoot::system());
        let lost = |target: &str| readings.iter().find(|r| r.target == target && r.check == CONNECTIVITY);
        assert_eq!(lost("no.such.name.invalid").unwrap().level, Level::Critical);
        if permitted("127.0.0.1".parse().unwrap()) {
            assert_eq!(lost("127.0.0.1").unwrap().level, Level::Ok);
        } else {
            assert!(lost("127.0.0.1").is_none() && incomplete && unavailable[0].contains("ping_group_range"));
        }
        assert!(built(build, &json!({"targets": []})).is_err());
        assert!(built(build, &json!({"targets": "a", "packet_interval": 0.01})).is_err());
        let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
        assert!(built(build, &json!({"targets": many})).err().unwrap().reason.contains("more than 100"));
    }
}
