//! `[notify.NAME]`: where people are told of alerts and approvals. One parser for the hub's file and the agent's.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::env::Env;
use super::table::{BadKey, Table};
use crate::alert::Level;

const TYPES: [&str; 6] = ["ntfy", "gotify", "webhook", "email", "mqtt", "console"];
const LEVELS: [&str; 3] = ["Critical", "Warning", "Info"];
/// More channels than anybody reads.
const CHANNELS_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 32;
/// Most services refuse or mute what comes faster.
const PER_MINUTE: u32 = 20;
const TIMEOUT: Duration = Duration::from_secs(15);
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Where ntfy is when nothing else is said.
pub const NTFY_SERVER: &str = "https://ntfy.sh";
/// Home Assistant's own default.
const DISCOVERY_PREFIX: &str = "homeassistant";
const KEEP_ALIVE_S: u32 = 30;

/// One channel. `Debug` hides the secrets.
#[derive(Clone, PartialEq)]
pub struct ChannelConfig {
    pub name: String,
    pub service: Service,
    /// Alerts below it are not told here.
    pub min_level: Level,
    /// Labels that an alert must have; `*` at the end of a value means prefix. `machine`, `check` and `target` count
    /// as labels.
    pub labels: BTreeMap<String, String>,
    /// Messages a minute; what is beyond becomes one summary.
    pub per_minute: u32,
    pub quiet: Option<QuietHours>,
    /// Critical alerts wait for the end of quiet hours too.
    pub quiet_critical: bool,
    /// Alerts are told here only when nobody attended to them for so long.
    pub escalate_after: Option<Duration>,
    /// Whether recoveries are told.
    pub recoveries: bool,
    /// Whether requests for approval are told.
    pub approvals: bool,
    /// Whether a request for approval can be decided from the notification: by whoever reads the channel.
    pub buttons: bool,
    /// Templates; None is the default.
    pub title: Option<String>,
    pub body: Option<String>,
    /// One attempt, from the name lookup to the last word of the answer.
    pub timeout: Duration,
}

impl fmt::Debug for ChannelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelConfig")
            .field("name", &self.name)
            .field("type", &self.service.name())
            .finish_non_exhaustive()
    }
}

/// Local times of the day, in minutes since midnight; `from` is later than `to` when midnight lies between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    pub from: u16,
    pub to: u16,
}

/// What a channel is.
#[derive(Clone, PartialEq)]
pub enum Service {
    Ntfy(NtfyConfig),
    Gotify(GotifyConfig),
    Webhook(WebhookConfig),
    Email(EmailConfig),
    Mqtt(MqttConfig),
    Console,
}

impl Service {
    /// Its `type` in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ntfy(_) => TYPES[0],
            Self::Gotify(_) => TYPES[1],
            Self::Webhook(_) => TYPES[2],
            Self::Email(_) => TYPES[3],
            Self::Mqtt(_) => TYPES[4],
            Self::Console => TYPES[5],
        }
    }
}

/// A number for each level: critical, warning, info, recovered.
pub type Priorities = [u32; 4];

/// `type = "ntfy"`.
#[derive(Clone, PartialEq)]
pub struct NtfyConfig {
    /// Without a slash at the end.
    pub server: String,
    pub topic: String,
    pub token: Option<String>,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// 1 to 5.
    pub priorities: Priorities,
    /// Emoji short codes and words, besides the one of the level.
    pub tags: Vec<String>,
}

/// `type = "gotify"`.
#[derive(Clone, PartialEq)]
pub struct GotifyConfig {
    /// Without a slash at the end.
    pub server: String,
    pub token: String,
    /// 0 to 10.
    pub priorities: Priorities,
}

/// `type = "webhook"`.
#[derive(Clone, PartialEq)]
pub struct WebhookConfig {
    /// May hold credentials.
    pub url: String,
    pub headers: BTreeMap<String, String>,
    /// Signs the body.
    pub secret: Option<String>,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// TLS from the first byte.
    Tls,
    /// Begun by a command; refused where the server cannot.
    StartTls,
    None,
}

/// `type = "email"`.
#[derive(Clone, PartialEq)]
pub struct EmailConfig {
    pub host: String,
    pub port: u16,
    pub encryption: Encryption,
    /// PEM file with the roots to trust instead of the public ones.
    pub ca_file: Option<String>,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// The password may travel without TLS.
    pub allow_plain_auth: bool,
    /// An address, or `Name <address>`.
    pub from: String,
    pub to: Vec<String>,
}

/// `type = "mqtt"`.
#[derive(Clone, PartialEq)]
pub struct MqttConfig {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub ca_file: Option<String>,
    /// Name and password; the password may be empty.
    pub user: Option<(String, String)>,
    /// None: made from the name of the host.
    pub client_id: Option<String>,
    /// What all topics begin with; None: `holt`, and below it for agents.
    pub prefix: Option<String>,
    /// Where Home Assistant looks for devices; None: nowhere.
    pub discovery: Option<String>,
    /// Seconds.
    pub keep_alive_s: u16,
}

/// Whether a channel can have this name; the reason otherwise.
pub fn check_channel_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(format!("a channel's name must be 1 to {NAME_BYTES_MAX} of A-Z, a-z, 0-9, _ and -"));
    }
    Ok(())
}

/// Reads all tables of `[notify]`. The error is a key and why it is refused.
pub fn notify_channels(tables: &Map<String, Value>, env: &Env, data_dir: &Path) -> Result<Vec<ChannelConfig>, BadKey> {
    if tables.len() > CHANNELS_MAX {
        return Err(("notify".to_owned(), format!("holds more than {CHANNELS_MAX} channels")));
    }
    let mut channels = Vec::with_capacity(tables.len());
    for (name, value) in tables {
        let path = format!("notify.{name}");
        check_channel_name(name).map_err(|reason| (path.clone(), reason))?;
        let table = Table::new(path, value, env, data_dir)?;
        // Switched off without losing its settings; what else stands there is not looked at.
        if table.flag("enabled", true)? {
            channels.push(channel(name, table)?);
        }
    }
    Ok(channels)
}

fn channel(name: &str, table: Table<'_>) -> Result<ChannelConfig, BadKey> {
    let kind = match (table.word("type", &TYPES)?, TYPES.iter().find(|known| **known == name)) {
        (Some(kind), _) => kind,
        (None, Some(kind)) => kind,
        (None, None) => return Err(table.bad("type", format!("must be one of {}", TYPES.join(", ")))),
    };
    let service = match kind {
        "ntfy" => ntfy(&table)?,
        "gotify" => gotify(&table)?,
        "webhook" => webhook(&table)?,
        "email" => email(&table)?,
        "mqtt" => mqtt(&table)?,
        _ => Service::Console,
    };
    let buttons = table.flag("approve_buttons", false)?;
    if buttons && !matches!(service, Service::Ntfy(_) | Service::Webhook(_)) {
        return Err(table.bad("approve_buttons", "works with channels of type ntfy and webhook only"));
    }
    let quiet = table.text("quiet")?;
    let config = ChannelConfig {
        name: name.to_owned(),
        service,
        min_level: table.word("min_level", &LEVELS)?.and_then(Level::from_name).unwrap_or(Level::Info),
        labels: table.map("match")?,
        per_minute: table.number("rate", 1, 600)?.unwrap_or(PER_MINUTE),
        quiet: match quiet {
            None => None,
            Some(text) => {
                let wrong = || table.bad("quiet", "must be two times of the day such as \"22:00-07:00\"");
                Some(quiet_hours(text).ok_or_else(wrong)?)
            }
        },
        quiet_critical: table.flag("quiet_critical", false)?,
        escalate_after: table.time("escalate_after", DAY)?,
        recoveries: table.flag("recoveries", true)?,
        approvals: table.flag("approvals", true)?,
        buttons,
        title: table.text("title")?.map(str::to_owned),
        body: table.text("body")?.map(str::to_owned),
        timeout: table.time("timeout", TIMEOUT_MAX)?.unwrap_or(TIMEOUT),
    };
    table.finish()?;
    Ok(config)
}

fn ntfy(table: &Table<'_>) -> Result<Service, BadKey> {
    let topic = table.needed("topic")?;
    if !topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) || topic.len() > 64 {
        return Err(table.bad("topic", "must be 1 to 64 of A-Z, a-z, 0-9, _ and -"));
    }
    let token = table.secret("token")?;
    let user = user(table)?;
    if token.is_some() && user.is_some() {
        return Err(table.bad("token", "works only without user and password"));
    }
    Ok(Service::Ntfy(NtfyConfig {
        server: web_address(table, "server", Some(NTFY_SERVER))?,
        topic,
        token,
        user,
        priorities: priorities(table, [5, 4, 3, 3], 1, 5)?,
        tags: table.texts("tags")?,
    }))
}

fn gotify(table: &Table<'_>) -> Result<Service, BadKey> {
    Ok(Service::Gotify(GotifyConfig {
        server: web_address(table, "server", None)?,
        token: table.secret("token")?.ok_or_else(|| table.bad("token", "must be given"))?,
        priorities: priorities(table, [9, 6, 3, 3], 0, 10)?,
    }))
}

fn webhook(table: &Table<'_>) -> Result<Service, BadKey> {
    // Some services put their credential into the address.
    let url = table.secret("url")?.ok_or_else(|| table.bad("url", "must be given"))?;
    if !is_web(&url) {
        return Err(table.bad("url", "must begin with http:// or https:// and name a host"));
    }
    Ok(Service::Webhook(WebhookConfig { url, headers: table.map("headers")?, secret: table.secret("secret")? }))
}

fn email(table: &Table<'_>) -> Result<Service, BadKey> {
    let encryption = match table.word("tls", &["tls", "starttls", "none"])? {
        Some("tls") => Encryption::Tls,
        Some("none") => Encryption::None,
        _ => Encryption::StartTls,
    };
    let port = match encryption {
        Encryption::Tls => 465,
        Encryption::StartTls => 587,
        Encryption::None => 25,
    };
    let (user, allow_plain_auth) = (user(table)?, table.flag("allow_plain_auth", false)?);
    if encryption == Encryption::None && user.is_some() && !allow_plain_auth {
        let reason = "must not travel without TLS; set tls, or allow_plain_auth = true if the network is trusted";
        return Err(table.bad("password", reason));
    }
    let to = table.texts("to")?;
    if to.is_empty() {
        return Err(table.bad("to", "must name at least one address"));
    }
    let from = table.needed("from")?;
    for (key, address) in std::iter::once(("from", &from)).chain(to.iter().map(|to| ("to", to))) {
        if !is_mail_address(address) {
            return Err(
                table.bad(key, "must be an address such as \"holt@example.net\" or \"Holt <holt@example.net>\"")
            );
        }
    }
    Ok(Service::Email(EmailConfig {
        host: host(table)?,
        port: number_port(table)?.unwrap_or(port),
        encryption,
        ca_file: table.text("ca_file")?.map(str::to_owned),
        user,
        allow_plain_auth,
        from,
        to,
    }))
}

fn mqtt(table: &Table<'_>) -> Result<Service, BadKey> {
    let tls = table.flag("tls", false)?;
    let prefix = table.text("prefix")?.map(|prefix| prefix.trim_end_matches('/').to_owned());
    let discovery = match table.text("discovery")? {
        Some("off") => None,
        given => Some(given.unwrap_or(DISCOVERY_PREFIX).trim_end_matches('/').to_owned()),
    };
    for (key, topic) in [("prefix", prefix.as_ref()), ("discovery", discovery.as_ref())] {
        if topic.is_some_and(|topic| topic.is_empty() || topic.len() > 200 || topic.contains(['#', '+', '\0'])) {
            return Err(table.bad(key, "must be a topic without # and +"));
        }
    }
    let keep_alive = table.number("keep_alive", 5, 3600)?.unwrap_or(KEEP_ALIVE_S);
    Ok(Service::Mqtt(MqttConfig {
        host: host(table)?,
        port: number_port(table)?.unwrap_or(if tls { 8883 } else { 1883 }),
        tls,
        ca_file: table.text("ca_file")?.map(str::to_owned),
        user: user(table)?,
        client_id: table.text("client_id")?.map(str::to_owned),
        prefix,
        discovery,
        keep_alive_s: u16::try_from(keep_alive).unwrap_or(u16::MAX),
    }))
}

fn user(table: &Table<'_>) -> Result<Option<(String, String)>, BadKey> {
    match (table.text("user")?, table.secret("password")?) {
        (Some(user), password) => Ok(Some((user.to_owned(), password.unwrap_or_default()))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(table.bad("user", "must be given with a password")),
    }
}

fn host(table: &Table<'_>) -> Result<String, BadKey> {
    let host = table.needed("server")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if host.len() > 253 || !host.bytes().all(plain) {
        return Err(table.bad("server", "must be a host name or an address, without port or scheme"));
    }
    Ok(host)
}

fn number_port(table: &Table<'_>) -> Result<Option<u16>, BadKey> {
    Ok(table.number("port", 1, 65_535)?.and_then(|port| u16::try_from(port).ok()))
}

fn web_address(table: &Table<'_>, key: &'static str, default: Option<&str>) -> Result<String, BadKey> {
    let text = table.text(key)?.or(default).ok_or_else(|| table.bad(key, "must be given"))?;
    let text = text.trim_end_matches('/');
    if !is_web(text) || text.contains(['@', '?', '#']) {
        let reason = "must begin with http:// or https:// and name a host, without user name and query";
        return Err(table.bad(key, reason));
    }
    Ok(text.to_owned())
}

fn is_web(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']))
}

fn priorities(table: &Table<'_>, defaults: Priorities, min: u32, max: u32) -> Result<Priorities, BadKey> {
    let Some(below) = table.below("priority")? else { return Ok(defaults) };
    let mut found = defaults;
    for (slot, key) in found.iter_mut().zip(["critical", "warning", "info", "recovered"]) {
        *slot = below.number(key, min, max)?.unwrap_or(*slot);
    }
    below.finish()?;
    Ok(found)
}

/// `22:00-07:00`.
fn quiet_hours(text: &str) -> Option<QuietHours> {
    let (from, to) = text.split_once('-')?;
    let minutes = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let (from, to) = (minutes(from)?, minutes(to)?);
    (from != to).then_some(QuietHours { from, to })
}

/// Whether a text is one mailbox that can stand in a header and in a command without harm.
fn is_mail_address(text: &str) -> bool {
    if text.chars().any(char::is_control) {
        return false;
    }
    let address = match text.split_once('<') {
        Some((name, rest)) if !name.contains(['"', ',', '>']) => rest.strip_suffix('>').unwrap_or(""),
        Some(_) => "",
        None => text,
    };
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"<>()[]\\,;:\"@".contains(&byte);
    address.len() <= 254
        && address.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && local.bytes().all(plain) && domain.bytes().all(plain)
        })
}
