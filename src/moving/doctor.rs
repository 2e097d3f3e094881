//! `holt doctor`: whether this hub is set up so that it can run for years. Looks, and changes nothing.

use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::{Config, ProviderKind};
use crate::llm::local::LocalProvider;
use crate::llm::{Provider, Providers};
use crate::rt::order::Order;
use crate::rt::{Cancel, clock};
use crate::store::{Db, KeyStore, StoreError, meta, snapshot, whereabouts};
use crate::{limits, sys};

/// Earlier than this software: the clock of a board without a battery.
const CLOCK_MIN_MS: i64 = 1_735_689_600_000; // 2025-01-01
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Below, the databases are in danger soon.
const DISK_BYTES_MIN: u64 = 100 * 1024 * 1024;
const DISK_BYTES_LOW: u64 = 500 * 1024 * 1024;
/// A write-ahead log of this size is not being emptied.
const WAL_BYTES_HIGH: u64 = 64 * 1024 * 1024;
/// Larger files are read through only when somebody can wait for it.
const QUICK_BYTES_MAX: u64 = 32 * 1024 * 1024;
const BACKUP_DAYS_MAX: i64 = 30;
/// A hub without a backup is no trouble in its first week.
const FIRST_BACKUP_DAYS: i64 = 7;
/// Other sockets, files and pipes than connections of clients.
const DESCRIPTORS_BESIDE: u64 = 128;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Good to know.
    Note,
    /// Works, and should be put right.
    Warning,
    /// Does not work, or is dangerous.
    Error,
}

impl Level {
    /// `note`, `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was found.
#[derive(Debug)]
pub struct Finding {
    pub level: Level,
    /// Stable, snake case.
    pub id: &'static str,
    pub what: String,
    /// How to put it right; empty where there is nothing to do.
    pub fix: String,
}

/// How thorough to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Depth {
    /// Ask model providers whether they answer.
    pub online: bool,
    /// Read large databases through as well.
    pub thorough: bool,
    /// The hub itself asks: what is true of this process is true of it.
    pub is_hub: bool,
}

/// The worst of all; None: all is well.
pub fn worst(findings: &[Finding]) -> Option<Level> {
    findings.iter().map(|finding| finding.level).max()
}

/// For programs.
pub fn to_json(findings: &[Finding]) -> Value {
    let shapes: Vec<Value> = findings
        .iter()
        .map(|found| json!({"level": found.level.as_str(), "id": found.id, "what": found.what, "fix": found.fix}))
        .collect();
    json!({"status": worst(findings).map_or("ok", Level::as_str), "findings": shapes})
}

/// Everything that can be found, the worst first. Blocks on the disk; with `online` on networks, for their time-outs.
pub fn examine(config: &Config, depth: Depth) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    exposure(config, &mut found);
    permissions(config, &mut found);
    machine(config, depth, &mut found);
    databases(config, depth, &mut found);
    providers(config, depth, &mut found);
    for warning in &config.warnings {
        found.add(Level::Note, "config_warning", warning.clone(), "");
    }
    let mut found = found.0;
    found.order_by_key(|found| std::cmp::Reverse(found.level)); // stable: in the order of the checks
    found
}

/// A configuration that cannot be used at all.
pub fn unusable(reason: String) -> Finding {
    let fix = "put it right; see: holt config check".to_owned();
    Finding { level: Level::Error, id: "config", what: reason, fix }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, id: &'static str, what: impl Into<String>, fix: &str) {
        self.0.push(Finding { level, id, what: what.into(), fix: fix.to_owned() });
    }

    fn warn(&mut self, id: &'static str, what: impl Into<String>, fix: &str) {
        self.add(Level::Warning, id, what, fix);
    }

    fn error(&mut self, id: &'static str, what: impl Into<String>, fix: &str) {
        self.add(Level::Error, id, what, fix);
    }
}

/// Whether others can reach a listen address.
fn is_reachable(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host).trim_matches(['[', ']']);
    let is_loopback =
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    !is_loopback
}

fn exposure(config: &Config, found: &mut Findings) {
    let api = &config.api;
    for (address, bits) in &api.trusted_proxies {
        let all = if address.is_ipv4() { 32 } else { 128 };
        if all - u32::from(*bits) > 16 {
            found.warn(
                "trusted_proxies",
                format!("api.trusted_proxies trusts all of {address}/{bits} to tell who a client is"),
                "name the addresses of your proxies only",
            );
        }
    }
    if config.fleet.shared_token.is_some() {
        found.warn(
            "shared_token",
            "fleet.shared_token lets every machine that knows it in, and cannot be revoked for one of them",
            "let machines join with codes (holt machines join), then remove fleet.shared_token or set fleet.allow_shared = false",
        );
    }
    for key in config.auth.keys.iter().filter(|key| key.key.len() < 20) {
        found.warn(
            "short_key",
            format!("the key {:?} of the configuration is short enough to be guessed", key.name),
            "make one with: holt keys create NAME",
        );
    }
    if !is_reachable(&api.listen) {
        return;
    }
    let behind_tls = api.external_url.as_deref().is_some_and(|url| url.starts_with("https://"));
    if api.tls.is_some() {
        // It speaks TLS itself.
    } else if !behind_tls {
        found.warn(
            "no_tls",
            format!(
                "listens on {} without TLS: keys, passwords and conversations can be read on the network",
                api.listen
            ),
            "set api.tls with a certificate, put a TLS proxy in front and set api.external_url, or listen on 127.0.0.1",
        );
    } else if api.trusted_proxies.is_empty() {
        found.add(
            Level::Note,
            "no_trusted_proxy",
            "api.external_url names a proxy, but none is trusted: all clients look like one address",
            "set api.trusted_proxies to the proxy's address",
        );
    }
    if api.login_rate_limit == 0 && config.auth.password_hash.is_some() {
        found.warn(
            "login_rate_limit",
            "api.login_rate_limit is 0: passwords can be tried as fast as the network is",
            "remove it from the configuration; the default is 5 in 15 minutes",
        );
    }
}

fn permissions(config: &Config, found: &mut Findings) {
    let dir = &config.data_dir;
    let files = ["secret", "hub-key", "holt.db", "events.db"].map(|name| dir.join(name));
    let own = rustix::process::geteuid().as_raw();
    for path in files.iter().chain([dir, &config.config_path, &config.db_path]) {
        let Ok(data) = std::fs::metadata(path) else { continue };
        let shown = path.display();
        let others = data.mode() & 0o077;
        if others & 0o022 != 0 && (data.is_dir() || others & 0o002 != 0) {
            let fix = format!("run: chmod go-w {shown}");
            found.error("permissions", format!("others can write to {shown} (mode {:o})", data.mode() & 0o777), &fix);
        } else if others & 0o044 != 0 && data.is_file() {
            let fix = format!("run: chmod 600 {shown}");
            found.warn("permissions", format!("others can read {shown} (mode {:o})", data.mode() & 0o777), &fix);
        }
        if own != 0 && data.uid() != own {
            let what = format!("{shown} belongs to user {}, not to the one that asks ({own})", data.uid());
            found.warn("owner", what, "run Holt and its commands as one user");
        }
    }
}

fn machine(config: &Config, depth: Depth, found: &mut Findings) {
    let now = clock::unix_ms();
    if now < CLOCK_MIN_MS {
        found.error(
            "clock",
            format!("the clock says {}: logins, schedules and certificates do not work", clock::rfc3339_s(now)),
            "set it, and start a time service such as systemd-timesyncd or chrony",
        );
    } else if sys::clock_is_synchronised() == Some(false) {
        found.warn(
            "clock_not_synchronised",
            "the clock is not synchronised",
            "start a time service such as systemd-timesyncd or chrony; the first minutes after a start are normal",
        );
    }
    let is_root = if depth.is_hub {
        rustix::process::geteuid().is_root()
    } else {
        whereabouts::runs_as(&config.db_path) == Some(0)
    };
    if is_root {
        found.warn(
            "root",
            "the hub runs as root: a mistake in it, or in a tool that it starts, is one in the whole machine",
            "stop it and run: sudo holt service install (it makes a user without rights), or start it as another user \
             after chown of its data directory",
        );
    }
    if let Ok(space) = rustix::fs::statvfs(&config.data_dir) {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let what = format!("{} MB are free for {}", free / (1024 * 1024), config.data_dir.display());
        let fix = "free some space; streams.log_bytes_max and audit.retention bound what Holt keeps";
        if free < DISK_BYTES_MIN {
            found.error("disk_full", what, fix);
        } else if free < DISK_BYTES_LOW {
            found.warn("disk_low", what, fix);
        }
        if space.f_files > 0 && space.f_favail < 100 {
            found.error("inodes", format!("no more files can be made in {}", config.data_dir.display()), "delete some");
        }
    }
    let sockets = match config.api.websocket_connections_max {
        0 => limits::WS_CONNECTIONS_MAX,
        max => max,
    };
    let wanted = (config.api.http_connections_max + sockets) as u64 + DESCRIPTORS_BESIDE;
    let limit = sys::raise_descriptor_limit();
    if limit < wanted {
        let what = format!("{limit} files may be open, {wanted} are needed when all connections are in use");
        found.warn("descriptors", what, "raise the limit (LimitNOFILE= of the service, or ulimit -Hn)");
    }
}

fn databases(config: &Config, depth: Depth, found: &mut Findings) {
    for (name, known) in ["holt.db", "events.db"].into_iter().zip(snapshot::SCHEMAS) {
        let path = if name == "holt.db" { config.db_path.clone() } else { config.db_path.with_file_name(name) };
        let Ok(data) = std::fs::metadata(&path) else {
            if name == "holt.db" {
                let what = format!("there is no database at {} yet", path.display());
                found.add(Level::Note, "no_database", what, "start the hub: holt serve; or give its --data-dir");
            }
            continue;
        };
        database(&path, data.len(), known, depth, found);
    }
    if config.db_path.exists()
        && let Ok(db) = Db::open(&config.db_path)
        && let Err(error) = contents(config, &db, found)
    {
        found.error("database", format!("holt.db cannot be read: {error}"), "restore a backup: holt restore FILE");
    }
}

fn database(path: &Path, bytes: u64, known: u64, depth: Depth, found: &mut Findings) {
    let shown = path.display();
    let damaged = "stop the hub and bring a backup back: holt restore FILE --force";
    if depth.thorough || bytes <= QUICK_BYTES_MAX {
        match snapshot::verify(path, true) {
            Ok(schema) if schema > known => found.error(
                "newer_schema",
                format!("{shown} was written by a newer holt (schema {schema}, this one knows {known})"),
                "install that version again, or restore a backup that was made before it",
            ),
            Ok(_) => {}
            Err(StoreError::Busy) => found.warn("database_busy", format!("{shown} is busy"), "ask again"),
            Err(error) => found.error("database", format!("{shown} is damaged: {error}"), damaged),
        }
    }
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let wal = std::fs::metadata(Path::new(&wal)).map_or(0, |data| data.len());
    if wal > WAL_BYTES_HIGH {
        let what = format!("the write-ahead log of {shown} has {} MB", wal / (1024 * 1024));
        found.warn("wal", what, "end programs that keep the database open, then restart the hub");
    }
}

/// What the rows tell.
fn contents(config: &Config, db: &Db, found: &mut Findings) -> Result<(), StoreError> {
    let stored = |key: &str| db.read(|conn| meta::get(conn, key));
    if stored(meta::PANIC)?.is_some() {
        found.warn("panic", "everything is stopped (holt panic)", "let it run again with: holt resume");
    }
    let keys = KeyStore::new(std::sync::Arc::new(Db::open(&config.db_path)?));
    let credential = config.auth.password_hash.is_some() || !config.auth.keys.is_empty() || keys.has_active_key()?;
    if !credential && stored(meta::SETUP_DONE)?.is_none() {
        let level = if is_reachable(&config.api.listen) { Level::Warning } else { Level::Note };
        found.add(level, "not_set_up", "nobody has set this hub up yet", "open its page, or run: holt setup-pin");
    }
    let now = clock::unix_ms();
    let made = stored(meta::LAST_BACKUP)?.and_then(|text| text.parse::<i64>().ok());
    let fix = "make one with: holt backup FILE; regularly, to another disk";
    match made.map(|made| now.saturating_sub(made) / DAY_MS) {
        Some(days) if days > BACKUP_DAYS_MAX => {
            found.warn("old_backup", format!("the last backup was made {days} days ago"), fix);
        }
        Some(_) => {}
        None => {
            let began = std::fs::metadata(config.data_dir.join("secret")).map_or(now, |data| data.mtime() * 1000);
            let level = if now - began > FIRST_BACKUP_DAYS * DAY_MS { Level::Warning } else { Level::Note };
            found.add(level, "no_backup", "no backup of this hub was ever made", fix);
        }
    }
    Ok(())
}

fn providers(config: &Config, depth: Depth, found: &mut Findings) {
    for provider in &config.llm.providers {
        let needs_key = match provider.kind {
            ProviderKind::Anthropic | ProviderKind::OpenRouter => true,
            ProviderKind::OpenAi => provider.base_url.is_none(),
            ProviderKind::Local | ProviderKind::Ollama => false,
        };
        let used = config.llm.default_provider == provider.name
            || config.agents.iter().any(|agent| agent.provider == provider.name);
        if needs_key && provider.api_key.is_none() && used {
            found.error(
                "no_api_key",
                format!("the provider {} has no API key", provider.name),
                "set api_key in its section; `holt config seal` keeps it out of the file",
            );
        }
    }
    let providers = match Providers::build(&config.llm, std::sync::Arc::new(LocalProvider)) {
        Ok(providers) => providers,
        Err(error) => return found.error("provider", format!("providers cannot be set up: {error}"), "see [llm]"),
    };
    if depth.online {
        for provider in providers.iter() {
            ask(provider.as_ref(), found);
        }
        let host = config.api.external_url.as_deref().and_then(host_of);
        if let Some(host) = host.filter(|host| (host.as_str(), 443_u16).to_socket_addrs().is_err()) {
            found.warn("external_url", format!("the name {host} of api.external_url is unknown"), "see your DNS");
        }
    }
}

fn ask(provider: &dyn Provider, found: &mut Findings) {
    if let Err(error) = provider.models(&Cancel::new()) {
        found.error(
            "provider_unreachable",
            format!("the provider {} does not answer: {error}", provider.name()),
            "check its base_url and api_key in [llm], and the network",
        );
    }
}

fn host_of(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let host = rest.split(['/', ':', '?']).next()?;
    (!host.is_empty() && !rest.starts_with('[')).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts_and_hosts_are_found() {
        let note = |level| Finding { level, id: "x", what: String::new(), fix: String::new() };
        assert_eq!(worst(&[]), None);
        assert_eq!(worst(&[note(Level::Note), note(Level::Error), note(Level::Warning)]), Some(Level::Error));
        assert_eq!(to_json(&[])["status"], "ok");
        for (url, host) in
            [("https://a.example:8443/x", Some("a.example")), ("https://[::1]/", None), ("nothing", None)]
        {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
        assert!(is_reachable(":8080") && is_reachable("0.0.0.0:1") && !is_reachable("[::1]:1"));
    }
}
