//! One event of a check, its level and its key.

use std::collections::BTreeMap;
use std::fmt;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::rt::text::hex;

/// Names that identify an event; users may not give them to their labels (contract agent-link 6.1).
pub const RESERVED_LABELS: &[&str] =
    &["check", "target", "from_plugin", "from_hostip", "from_hostname", "from_agent", "protocol", "method"];

/// How bad it is, most severe first. `Ok` means fine, or recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    Critical,
    Warning,
    Info,
    Ok,
}

impl Level {
    /// The level's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "Critical",
            Self::Warning => "Warning",
            Self::Info => "Info",
            Self::Ok => "Ok",
        }
    }

    /// The level of that exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Critical, Self::Warning, Self::Info, Self::Ok].into_iter().find(|level| level.name() == name)
    }

    /// Whether it is worse than `other`.
    pub fn is_worse_than(self, other: Self) -> bool {
        self < other
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An item of `alert_events`. Labels are its identity, attributes are for the reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unix seconds.
    #[serde(rename = "event_time")]
    pub time: i64,
    #[serde(rename = "event_status")]
    pub level: Level,
    /// 32 lower-case hex digits: see [`key_of`].
    #[serde(rename = "alert_key")]
    pub key: String,
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
    /// One or more lines; may be empty.
    #[serde(default)]
    pub description: String,
    /// Empty for plain text, else `markdown`.
    #[serde(default, rename = "description_format", skip_serializing_if = "String::is_empty")]
    pub format: String,
}

impl Event {
    /// The label of that name, or nothing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// `plugin::dimension`.
    pub fn check(&self) -> &str {
        self.label("check")
    }

    /// What was checked: a mount point, a unit, an address.
    pub fn target(&self) -> &str {
        self.label("target")
    }
}

/// The key of a set of labels: MD5 of `name:value:` over the names in byte order (contract agent-link 6.2).
pub fn key_of(labels: &BTreeMap<String, String>) -> String {
    let mut hash = Md5::new();
    for (name, value) in labels {
        for part in [name.as_str(), ":", value.as_str(), ":"] {
            hash.update(part);
        }
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_contract() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        let host = [("from_agent", "catpaw"), ("from_hostip", "192.168.1.40"), ("from_hostname", "pi-garage")];
        let mut disk = labels(&host);
        disk.extend(labels(&[
            ("check", "disk::space_usage"),
            ("from_plugin", "disk"),
            ("site", "home"),
            ("target", "/data"),
        ]));
        assert_eq!(key_of(&disk), "13c6ef5aed239bd95587fbca9b609ffb");
        let mut unit = labels(&host);
        unit.extend(labels(&[
            ("check", "systemd::state"),
            ("from_plugin", "systemd"),
            ("site", "home"),
            ("target", "mosquitto"),
        ]));
        assert_eq!(key_of(&unit), "fa8b20c2893f5b34c4e742ff02d27013");
    }

    #[test]
    fn levels_are_ordered_by_severity() {
        assert!(Level::Critical.is_worse_than(Level::Warning) && Level::Info.is_worse_than(Level::Ok));
        assert!(!Level::Ok.is_worse_than(Level::Ok));
        assert_eq!(Level::from_name("Ok"), Some(Level::Ok));
        assert_eq!(Level::from_name("ok"), None);
    }
}
