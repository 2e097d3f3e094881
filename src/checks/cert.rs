//! `cert`: how long certificates last, those of servers and those in files (contract agent-link 7.5, 11). Whom they are
//! trusted by is no question: a self-signed one that ends tomorrow is a problem tomorrow.
//!
//! `[checks.cert]`: `targets` (`host:port`, 443 by default; `host:port@name` asks for another name), `starttls` (`none`,
//! `smtp`), `timeout` (10s), `files` (paths or globs; PEM or DER); `remote_expiry`, `file_expiry` (within 720h / 168h).

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::alert::Level;
use crate::checks::each::{Look, Seen, TARGETS_MAX, each, timeout};
use crate::checks::glob;
use crate::checks::limits::Limits;
use crate::checks::paths;
use crate::checks::peek::{Before, Endpoint, chain};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::settings::{SettingError, Settings};
use crate::checks::x509::{Certificate, NO_CERTIFICATE, of_file};
use crate::diag::finding::float;
use crate::rt::clock;

const REMOTE: &str = "cert::remote_expiry";
const FILE: &str = "cert::file_expiry";

/// A bundle of all the world's roots is a fifth of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

const WARN: Duration = Duration::from_secs(720 * 3600);
const CRITICAL: Duration = Duration::from_secs(168 * 3600);

/// 2025-01-01: Holt is younger. Boards without a clock of their own begin in 1970, when no certificate is valid yet.
const CLOCK_MIN_S: i64 = 1_735_689_600;

struct Remote {
    targets: Arc<[(String, Endpoint)]>,
    before: Before,
    timeout: Duration,
    limits: Limits,
}

struct Files {
    globs: Vec<String>,
    limits: Limits,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let remote = settings.texts("targets", &[])?;
    let globs = settings.texts("files", &[])?;
    if remote.is_empty() && globs.is_empty() {
        return Err(settings.error("targets", "is needed: servers as host:port; or files, or both"));
    }
    if remote.len() > TARGETS_MAX {
        return Err(settings.error("targets", format!("holds more than {TARGETS_MAX}; use a second table")));
    }
    let before = match settings.word("starttls", &["none", "smtp"], "none")? {
        "smtp" => Before::Smtp,
        _ => Before::Nothing,
    };
    let port = if before == Before::Smtp { 25 } else { 443 };
    let mut targets = Vec::new();
    for target in remote {
        let endpoint = Endpoint::parse(target.trim(), port)
            .ok_or_else(|| settings.error("targets", format!("{target:?} is not host, host:port or host:port@name")))?;
        targets.push((target.trim().to_owned(), endpoint));
    }
    let timeout = timeout(settings, "timeout", Duration::from_secs(10))?;
    let default = Limits::within(WARN, CRITICAL);
    let (remote_limits, file_limits) =
        (settings.limits("remote_expiry", default)?, settings.limits("file_expiry", default)?);
    for glob in &globs {
        paths::check(glob).map_err(|reason| settings.error("files", format!("{glob:?}: {reason}")))?;
    }
    let mut checks: Vec<Box<dyn Check>> = Vec::new();
    if !targets.is_empty() {
        checks.push(Box::new(Remote { targets: targets.into(), before, timeout, limits: remote_limits }));
    }
    if !globs.is_empty() {
        checks.push(Box::new(Files { globs, limits: file_limits }));
    }
    Ok(checks)
}

impl Check for Remote {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        if !clock_is_set(context) {
            return Vec::new();
        }
        let (before, limits) = (self.before, self.limits);
        let look = move |(target, endpoint): &(String, Endpoint), look: &Look<'_>| {
            let seen = chain(endpoint, before, look.deadline, look.cancel);
            if look.cancel.is_set() {
                return Seen::Nothing;
            }
            Seen::Readings(vec![match seen {
                Ok(chain) => judge(REMOTE, target, &limits, &chain, look.now_s),
                Err(error) => Reading::failed(REMOTE, target, format!("no certificate to see: {error}")),
            }])
        };
        each(&self.targets, self.timeout, context, look)
    }
}

impl Check for Files {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        if !clock_is_set(context) {
            return Vec::new();
        }
        let mut readings = Vec::new();
        for glob in &self.globs {
            let (found, is_exact) = (paths::expand(glob, TARGETS_MAX), glob::is_exact(glob));
            if found.is_empty() {
                readings.push(Reading::new(FILE, glob, Level::Critical, "no such file, or no right to see it"));
            }
            for path in found {
                let target = path.to_string_lossy();
                let found = read(&path).and_then(|bytes| of_file(&bytes).map_err(str::to_owned));
                // A directory of certificates holds their keys, too.
                if !is_exact && found.as_ref().is_err_and(|error| error == NO_CERTIFICATE) {
                    continue;
                }
                readings.push(match found {
                    Ok(found) => judge(FILE, &target, &self.limits, &found, context.now_s()),
                    Err(error) => Reading::failed(FILE, &target, error),
                });
            }
        }
        readings
    }
}

fn clock_is_set(context: &Gather<'_>) -> bool {
    let is_set = context.now_s() >= CLOCK_MIN_S;
    if !is_set {
        context.unavailable("the clock of this machine is not set: no certificate can be judged");
        context.incomplete();
    }
    is_set
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    // A pipe or a device would block, or never end.
    if !path.is_file() {
        return Err("not a file, or not readable".to_owned());
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) => {
            Err("too large for certificates: more than 1 MiB".to_owned())
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// Judges the certificate that ends first; one that is not valid yet is as bad as one that has ended.
pub(super) fn judge(check: &'static str, target: &str, limits: &Limits, chain: &[Certificate], now_s: i64) -> Reading {
    let Some(first) = chain.iter().min_by_key(|one| one.not_after) else {
        return Reading::failed(check, target, "no certificate");
    };
    let whose = if first.subject.is_empty() { String::new() } else { format!(" of {}", first.subject) };
    let bad = |text: String| Reading::new(check, target, Level::Critical, text);
    let reading = if let Some(early) = chain.iter().find(|one| one.not_before > now_s) {
        bad(format!("certificate{whose} is not valid before {}", time(early.not_before)))
    } else if first.not_after <= now_s {
        bad(format!("certificate{whose} has ended on {}", time(first.not_after)))
    } else {
        let left = float(u64::try_from(first.not_after.saturating_sub(now_s)).unwrap_or(0));
        let what = format!("certificate{whose} ends on {}, time left", time(first.not_after));
        limits
            .reading(check, target, &what, left)
            .unwrap_or_else(|| Reading::new(check, target, Level::Ok, format!("certificate{whose} is valid")))
    };
    reading
        .attr("cert_subject", first.subject.clone())
        .attr("cert_issuer", first.issuer.clone())
        .attr("cert_expires_at", time(first.not_after))
        .attr("cert_valid_from", time(first.not_before))
}

/// `2026-01-02T03:04:05Z`; "never" is shown as the last day that our calendar knows.
fn time(unix_s: i64) -> String {
    clock::rfc3339_s(unix_s.min(253_370_764_800).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::each::tests::{built, lines, round};
    use crate::checks::peek::tests::tls_server;
    use crate::checks::plugin::Moment;
    use crate::checks::x509::tests::{LASTING, NEVER_ENDING};
    use crate::diag::HostRoot;
    use crate::net::test_peer::LONG;
    use crate::rt::Cancel;
    use serde_json::json;
    use std::time::Instant;

    const ENDED: &str = include_str!("fixtures/ended.pem");

    fn certificate(not_before: i64, not_after: i64) -> Certificate {
        Certificate { not_before, not_after, subject: "a".to_owned(), issuer: "b".to_owned() }
    }

    #[test]
    fn the_certificate_that_ends_first_decides() {
        const DAY: i64 = 86_400;
        let now = 1_800_000_000;
        let check = |chain: &[Certificate], level: Level, part: &str| {
            let reading = judge(FILE, "t", &Limits::within(WARN, CRITICAL), chain, now);
            assert_eq!(reading.level, level, "{}", reading.description);
            assert!(reading.description.contains(part), "{}", reading.description);
        };
        check(&[certificate(0, now + 90 * DAY)], Level::Ok, "time left 90d0h");
        check(&[certificate(0, now + 90 * DAY), certificate(0, now + 20 * DAY)], Level::Warning, "<= warning");
        check(&[certificate(0, now + 7 * DAY), certificate(0, now + 90 * DAY)], Level::Critical, "<= critical");
        check(&[certificate(0, now + 7 * DAY + 1)], Level::Warning, "of a ends on");
        check(&[certificate(0, now)], Level::Critical, "has ended on 2027-01-15T08:00:00Z");
        check(&[certificate(now + 1, now + 900 * DAY)], Level::Critical, "not valid before");
        check(&[certificate(i64::MIN, i64::MAX)], Level::Ok, "ends on 9999-01-01");
        check(&[], Level::Critical, "no certificate");
    }

    #[test]
    fn servers_are_looked_at() {
        let (port, threads) = tls_server(&[LASTING], 1, &[], b"");
        let (ended_port, ended_threads) = tls_server(&[LASTING, ENDED], 1, &[], b"");
        let targets =
            [format!("127.0.0.1:{port}@holt.test"), format!("localhost:{ended_port}"), "127.0.0.1:1".to_owned()];
        let mut check = built(build, &json!({"targets": targets})).unwrap();
        let (readings, _, incomplete) = round(&mut *check, &HostRoot::system());
        let levels: Vec<_> = readings.iter().map(|reading| (reading.level, reading.measured)).collect();
        assert_eq!(levels, [(Level::Ok, true), (Level::Critical, true), (Level::Critical, false)]);
        assert!(readings[1].description.contains("of old.test has ended"), "{}", readings[1].description);
        assert!(readings[2].description.contains("refused"), "{}", readings[2].description);
        assert_eq!((readings[0].target.as_str(), incomplete), (targets[0].as_str(), false));
        assert!(threads.join_all(LONG).is_empty() && ended_threads.join_all(LONG).is_empty());
    }

    #[test]
    fn files_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
        write("a.pem", &format!("{LASTING}{ENDED}"));
        write("b.pem", NEVER_ENDING);
        write("c.pem", "-----BEGIN PRIVATE KEY-----");
        write("c.crt", "nothing");
        write("d.txt", LASTING);
        std::fs::create_dir(dir.path().join("e.pem")).unwrap();
        let files = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let mut check = built(build, &json!({"files": [files("*.pem"), files("c.crt"), files("gone.pem")]})).unwrap();
        let (readings, ..) = round(&mut *check, &HostRoot::system());
        let expected = [
            ("a.pem", "Critical: certificate of old.test has ended on 2021-01-01T00:00:00Z"),
            ("b.pem", "Ok: certificate of Fixtures Ltd ends on"),
            ("e.pem", "Critical: not a file"),
            ("c.crt", "Critical: no certificate in this file"),
            ("gone.pem", "Critical: no such file, or no right to see it"),
        ];
        assert_eq!(readings.len(), expected.len());
        for (line, (name, text)) in lines(&readings).iter().zip(expected) {
            assert!(line.starts_with(&format!("{FILE} {} {text}", files(name))), "{line}");
        }
    }

    #[test]
    fn a_clock_that_is_not_set_raises_nothing() {
        let mut check = built(build, &json!({"files": "/etc/passwd"})).unwrap();
        let (root, cancel) = (HostRoot::system(), Cancel::new());
        let context = Gather::new(&root, Moment::default(), Instant::now() + LONG, &cancel);
        assert!(check.gather(&context).is_empty());
        let (unavailable, incomplete) = context.into_notes();
        assert!(incomplete && unavailable[0].contains("clock"));
    }

    #[test]
    fn settings_are_checked() {
        for (table, part) in [
            (json!({}), "servers as host:port"),
            (json!({"targets": "https://x"}), "is not host"),
            (json!({"targets": "a", "starttls": "imap"}), "one of none, smtp"),
            (json!({"targets": "a", "timeout": "10m"}), "at most 30s"),
            (json!({"files": "relative.pem"}), "absolute"),
        ] {
            let reason = built(build, &table).err().unwrap().reason;
            assert!(reason.contains(part), "{reason}");
        }
    }
}
