//! What people are told.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::alert::{Event, Level};
use crate::limits;
use crate::rt::text::cut;
use crate::store::approvals::ApprovalRow;

/// What the incident of a request for approval begins with.
const APPROVAL: &str = "approval:";

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something is wrong.
    Firing,
    /// It is well again.
    Recovered,
    /// An agent asks before it acts.
    Approval,
    /// What an agent found at a set time; for the channels that its schedule names, whatever else they are told.
    Report,
    /// Somebody tries a channel out: no filter, limit or quiet time counts.
    Test,
    /// Several notices in one; made by a channel's queue.
    Summary,
}

impl Kind {
    /// Its name in rows and bodies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Recovered => "recovered",
            Self::Approval => "approval",
            Self::Report => "report",
            Self::Test => "test",
            Self::Summary => "summary",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Firing, Self::Recovered, Self::Approval, Self::Report, Self::Test, Self::Summary]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// One notice. What is empty does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Names the incident: `alert:17`. While one of the same incident, kind and level waits in a channel, a second one
    /// is the same notice. A recovery ends the firing ones of its incident.
    pub dedup: String,
    pub kind: Kind,
    /// Of a recovery: [`Level::Ok`].
    pub level: Level,
    /// Empty: made from the rest.
    pub title: String,
    /// A description for people, one or more lines.
    pub body: String,
    /// The machine's id; empty: the hub itself.
    pub machine_id: String,
    /// What people call the machine.
    pub machine: String,
    /// `plugin::dimension`.
    pub check: String,
    pub target: String,
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub time: i64,
    /// Where to look: an absolute address, or a path of the hub's page that is completed with `api.external_url`. Empty:
    /// the page itself.
    pub link: String,
}

impl Default for Notice {
    fn default() -> Self {
        Self {
            dedup: String::new(),
            kind: Kind::Firing,
            level: Level::Info,
            title: String::new(),
            body: String::new(),
            machine_id: String::new(),
            machine: String::new(),
            check: String::new(),
            target: String::new(),
            labels: BTreeMap::new(),
            time: 0,
            link: String::new(),
        }
    }
}

impl Notice {
    /// What an agent tells of an event by itself, without a hub.
    pub fn of_event(event: &Event) -> Self {
        Self {
            dedup: event.key.clone(),
            kind: if event.level == Level::Ok { Kind::Recovered } else { Kind::Firing },
            level: event.level,
            body: event.description.clone(),
            machine: event.label("from_hostname").to_owned(),
            check: event.check().to_owned(),
            target: event.target().to_owned(),
            labels: event.labels.clone(),
            time: event.time.saturating_mul(1000),
            ..Self::default()
        }
    }

    /// That an agent asks before it acts: who and what for, never with what arguments.
    pub fn of_approval(row: &ApprovalRow) -> Self {
        let (agent, tool) = (&row.agent, &row.tool);
        let mut labels = BTreeMap::from([("agent".to_owned(), agent.clone()), ("tool".to_owned(), tool.clone())]);
        if !row.server.is_empty() {
            labels.insert("server".to_owned(), row.server.clone());
        }
        Self {
            dedup: format!("{APPROVAL}{}", row.id),
            kind: Kind::Approval,
            title: format!("Approval: {agent} wants to use {tool}"),
            body: purpose(tool, &row.server) + "Look at the details, then approve or deny it.",
            labels,
            time: row.created_at,
            link: "/#/approvals".to_owned(),
            ..Self::default()
        }
    }

    /// The request for approval that it is about.
    pub fn approval_id(&self) -> Option<&str> {
        self.dedup.strip_prefix(APPROVAL).filter(|_| self.kind == Kind::Approval)
    }

    /// Its own title, or one made from what it is about.
    pub fn shown_title(&self) -> String {
        if !self.title.is_empty() {
            return self.title.clone();
        }
        let mut title = self.status().to_owned();
        for (before, text) in [(": ", &self.check), (" ", &self.target), (" on ", &self.machine)] {
            if !text.is_empty() {
                title.push_str(before);
                title.push_str(text);
            }
        }
        title
    }

    /// The level in a word, or that it is over.
    pub fn status(&self) -> &'static str {
        if self.kind == Kind::Recovered { "Recovered" } else { self.level.name() }
    }

    /// The value of a label, of `machine`, `check` or `target`; None when there is none.
    pub fn label(&self, name: &str) -> Option<&str> {
        let own = match name {
            "machine" => &self.machine,
            "check" => &self.check,
            "target" => &self.target,
            name => return self.labels.get(name).map(String::as_str),
        };
        Some(own.as_str())
    }

    /// The key of its row in a channel: a second row of the same key is the same notice.
    pub fn row_key(&self) -> String {
        row_key(self.kind, self.level, &self.dedup)
    }

    /// What stands in its row. Long texts are cut: a notice is read on a phone.
    pub fn to_value(&self) -> Value {
        json!({
            "dedup": self.dedup, "kind": self.kind.name(), "level": self.level.name(),
            "title": cut(&self.title, limits::NOTICE_TITLE_BYTES_MAX), "body": cut(&self.body, limits::NOTICE_BODY_BYTES_MAX),
            "machine_id": self.machine_id, "machine": self.machine, "check": self.check, "target": self.target,
            "labels": self.labels, "time": self.time, "link": self.link,
        })
    }

    /// The opposite of [`Notice::to_value`]; None when it is none.
    pub fn from_value(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels = value.get("labels").and_then(Value::as_object).map(text_map).unwrap_or_default();
        Some(Self {
            dedup: text("dedup"),
            kind: Kind::from_name(value.get("kind")?.as_str()?)?,
            level: Level::from_name(value.get("level")?.as_str()?)?,
            title: text("title"),
            body: text("body"),
            machine_id: text("machine_id"),
            machine: text("machine"),
            check: text("check"),
            target: text("target"),
            labels,
            time: value.get("time").and_then(Value::as_i64).unwrap_or(0),
            link: text("link"),
        })
    }
}

/// What a tool is for, in words for whoever never saw its name. Those that come from a server have only that.
fn purpose(tool: &str, server: &str) -> String {
    if !server.is_empty() {
        return format!("{tool} is a tool of the server {server}. ");
    }
    let what = match tool {
        "kv_set" | "kv_set_nx" => "remember something",
        "kv_delete" => "forget something",
        "web_fetch" => "read a page of the web",
        "web_search" => "search the web",
        "schedule_add" | "schedule_update" => "do something at set times",
        "schedule_delete" => "end a schedule",
        "tool_add" | "plugin_add" => "add tools",
        "tool_remove" | "plugin_remove" => "remove tools",
        "skill_create" | "skill_update" | "skill_delete" | "persona_update" => "change itself",
        _ => return String::new(),
    };
    format!("It wants to {what}. ")
}

/// See [`Notice::row_key`].
pub(super) fn row_key(kind: Kind, level: Level, dedup: &str) -> String {
    format!("{} {} {dedup}", kind.name(), level.name())
}

/// Keys of the rows that a recovery of this incident ends.
pub(super) fn firing_keys(dedup: &str) -> [String; 3] {
    [Level::Critical, Level::Warning, Level::Info].map(|level| row_key(Kind::Firing, level, dedup))
}

fn text_map(map: &Map<String, Value>) -> BTreeMap<String, String> {
    map.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
