//! `netif`: links that are down, and packets that are lost on them (contract agent-link 7.5, runner-up semantics).
//!
//! `[checks.netif]`: `interfaces` (globs, needed), `link_up` (`enabled`, `severity` Critical), `errors` and `drops`
//! since the round before (10 / 100, and off: home networks drop all the time). An interface that is named without
//! wildcards must be there.

use std::collections::{BTreeSet, HashMap};

use crate::alert::Level;
use crate::checks::glob;
use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::registry::{DEFAULTS, Defaults, seconds};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::finding::float;
use crate::diag::report::clean_name;
use crate::diag::root::names_in;
use crate::rt::order::gather;

pub(super) const ALERTING: Defaults = Defaults { recover_after: seconds(300), ..DEFAULTS };

const LINK: &str = "netif::link_up";

struct NetIf {
    interfaces: Vec<String>,
    /// None: not looked at.
    link: Option<Level>,
    errors: Limits,
    drops: Limits,
    /// Errors and drops of each interface.
    before: HashMap<String, [u64; 2]>,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let interfaces = settings.some_texts("interfaces", "names of network interfaces, like [\"eth0\", \"wlan*\"]")?;
    let on = !settings.switched_off("link_up");
    let mut link = settings.section("link_up")?;
    let on = link.flag("enabled", true)? && on;
    let severity = link.level("severity", Level::Critical)?;
    link.finish()?;
    Ok(vec![Box::new(NetIf {
        interfaces,
        link: on.then_some(severity),
        errors: settings.limits("errors", Limits::above(Unit::Count, 10.0, 100.0))?,
        drops: settings.limits("drops", Limits::above(Unit::Count, 0.0, 0.0))?,
        before: HashMap::new(),
    })])
}

impl Check for NetIf {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let there = names_in(&context.root.sys("class/net"));
        let named = self.interfaces.iter().filter(|name| glob::is_exact(name) && is_name(name));
        let found = there.iter().filter(|name| glob::any(&self.interfaces, name));
        let names: BTreeSet<String> = gather(named.chain(found).cloned());
        let mut readings = Vec::new();
        let mut now = HashMap::new();
        for name in names {
            let target = clean_name(&name);
            if !there.contains(&name) {
                readings.push(Reading::failed(LINK, &target, format!("there is no interface {target}")));
                continue;
            }
            readings.extend(self.link.map(|severity| link_of(&name, &target, severity, context)));
            let counts = counts_of(&name, context);
            if let Some(before) = self.before.get(&name) {
                let new = |index: usize| float(counts[index].saturating_sub(before[index]));
                readings.extend(self.errors.reading("netif::errors", &target, "new errors", new(0)));
                readings.extend(self.drops.reading("netif::drops", &target, "new drops", new(1)));
            }
            now.insert(name, counts);
        }
        self.before = now;
        readings
    }

    fn needs_two_rounds(&self) -> bool {
        true
    }
}

/// Also what is configured goes into a path.
fn is_name(name: &str) -> bool {
    !name.contains('/') && !name.starts_with('.')
}

/// Interfaces that cannot tell (tunnels, loopback) say `unknown`: that is up.
fn link_of(name: &str, target: &str, severity: Level, context: &Gather<'_>) -> Reading {
    let state = context.root.sys_line(&format!("class/net/{name}/operstate")).unwrap_or_else(|| "unknown".to_owned());
    let state = clean_name(&state);
    let up = ["up", "unknown"].contains(&state.as_str());
    let level = if up { Level::Ok } else { severity };
    Reading::new(LINK, target, level, format!("the link of {target} is {state}")).attr("current_value", state)
}

/// Errors and drops of both directions since the boot.
fn counts_of(name: &str, context: &Gather<'_>) -> [u64; 2] {
    let read = |what: &str| {
        let line = context.root.sys_line(&format!("class/net/{name}/statistics/{what}"));
        line.and_then(|line| line.parse::<u64>().ok()).unwrap_or(0)
    };
    [read("rx_errors").saturating_add(read("tx_errors")), read("rx_dropped").saturating_add(read("tx_dropped"))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Bench, level_of};
    use serde_json::json;

    fn interface(bench: &Bench, name: &str, state: &str, counts: [&str; 4]) {
        bench.write(&format!("sys/class/net/{name}/operstate"), &format!("{state}\n"));
        for (what, count) in ["rx_errors", "tx_errors", "rx_dropped", "tx_dropped"].iter().zip(counts) {
            bench.write(&format!("sys/class/net/{name}/statistics/{what}"), &format!("{count}\n"));
        }
    }

    #[test]
    fn links_are_judged_by_their_state() {
        let bench = Bench::new();
        for (name, state) in [("eth0", "up"), ("eth1", "down"), ("wg0", "unknown"), ("lo", "unknown")] {
            interface(&bench, name, state, ["0"; 4]);
        }
        let found = bench.gather(&mut bench.build(build, &json!({"interfaces": ["eth*", "wg0", "usb0", "ppp*"]})));
        let rows: Vec<(&str, Level)> = found.iter().map(|r| (r.target.as_str(), r.level)).collect();
        assert_eq!(
            rows,
            [("eth0", Level::Ok), ("eth1", Level::Critical), ("usb0", Level::Critical), ("wg0", Level::Ok)]
        );
        assert_eq!(found[1].description, "the link of eth1 is down");
        let off = json!({"interfaces": ["eth1"], "link_up": false});
        assert_eq!(bench.gather(&mut bench.build(build, &off)), []);
        assert_eq!(bench.refused(build, &json!({})), "checks.x.interfaces");
        let odd = bench.gather(&mut bench.build(build, &json!({"interfaces": ["../../x"]})));
        assert_eq!(odd, []);
    }

    #[test]
    fn only_new_errors_count() {
        let bench = Bench::new();
        interface(&bench, "eth0", "up", ["1000", "0", "5000", "0"]);
        let mut checks = bench.build(build, &json!({"interfaces": "eth0", "drops": {"warn": 100, "crit": 1000}}));
        assert_eq!(bench.gather(&mut checks).len(), 1);
        let mut check = |counts: [&str; 4], errors: Level, drops: Level| {
            interface(&bench, "eth0", "up", counts);
            let found = bench.gather(&mut checks);
            let levels = (level_of(&found, "netif::errors"), level_of(&found, "netif::drops"));
            assert_eq!(levels, (errors, drops), "{counts:?}");
        };
        check(["1000", "0", "5000", "0"], Level::Ok, Level::Ok);
        check(["1005", "5", "5050", "49"], Level::Warning, Level::Ok);
        check(["1105", "5", "5100", "100"], Level::Critical, Level::Warning);
        check(["0", "0", "0", "0"], Level::Ok, Level::Ok);
        check(["18446744073709551615", "18446744073709551615", "garbage", "-1"], Level::Critical, Level::Ok);
    }
}
