//! `schedule_list`, `schedule_add`, `schedule_update`, `schedule_delete`: what an agent does by itself at set times
//! (contract engine 8.7). Each sees and changes its own schedules only, never with more rights than it has.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use crate::audit::{AuditLog, Entry};
use crate::config::{Config, ConfigError, Document, edit};
use crate::limits;
use crate::llm::ToolSpec;
use crate::sched::{Changes, LIST, Refusal, ScheduleInfo, Scheduler, Wish};
use crate::store::journal::NewChange;
use crate::store::{Db, JournalStore};
use crate::tools::arguments::{Arguments, object};
use crate::tools::{Tool, ToolContext, ToolError};

const FIELDS: &[&str] =
    &["name", "schedule", "timezone", "channel", "skill", "prompt", "session_mode", "session_tier", "tags", "enabled"];
/// The names of these tools.
pub(super) const NAMES: [&str; 4] = ["schedule_list", "schedule_add", "schedule_update", "schedule_delete"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    List,
    Add,
    Update,
    Delete,
}

/// What the tools work with; agents are made before it is complete.
pub struct ScheduleDesk {
    pub audit: Arc<AuditLog>,
    pub journal: JournalStore,
    /// Set once, by the composition root.
    pub parts: OnceLock<(Arc<Scheduler>, Arc<dyn Changes>)>,
}

impl ScheduleDesk {
    /// A desk without its parts.
    pub fn new(audit: &Arc<AuditLog>, db: &Arc<Db>) -> Self {
        let journal = JournalStore::new(Arc::clone(db));
        Self { audit: Arc::clone(audit), journal, parts: OnceLock::new() }
    }
}

struct ScheduleTool {
    spec: ToolSpec,
    action: Action,
    desk: Arc<ScheduleDesk>,
}

/// The four tools, in the order they are offered.
pub(super) fn schedule_tools(desk: &Arc<ScheduleDesk>) -> Vec<Arc<dyn Tool>> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let name = json!({"name": text("name of the schedule")});
    let fields = json!({
        "name": text("what to call it"),
        "schedule": text("five cron fields (min hour day month weekday, all must match), @daily, @every 30m, or once: @at 2026-12-24 18:00"),
        "timezone": text("such as Europe/Berlin; without it the hub's"),
        "channel": text("adapter:id; notify:* tells people the result, notify:NAME one channel, api:schedule nobody"),
        "skill": text("the skill to use"),
        "prompt": text("what you are to do then; without it and a skill you are only told the name"),
        "session_mode": {"type": "string", "enum": ["isolated", "shared"], "description": "a conversation for each run, or one for all"},
        "session_tier": {"type": "string", "enum": ["autonomous", "supervised", "restricted"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "enabled": {"type": "boolean"},
    });
    let table = [
        (Action::List, "Lists your schedules: when you are asked to do something by yourself.", json!({}), &[][..]),
        (
            Action::Add,
            "Adds a schedule: you are asked to do something at set times, also after a restart.",
            fields.clone(),
            &["name", "schedule", "channel"],
        ),
        (Action::Update, "Changes a schedule of yours; what is left out stays.", fields, &["name"]),
        (Action::Delete, "Removes a schedule of yours.", name, &["name"]),
    ];
    table
        .into_iter()
        .zip(NAMES)
        .map(|((action, description, properties, required), name)| {
            let spec = ToolSpec {
                name: name.to_owned(),
                description: description.to_owned(),
                parameters: object(&properties, required),
            };
            Arc::new(ScheduleTool { spec, action, desk: Arc::clone(desk) }) as Arc<dyn Tool>
        })
        .collect()
}

impl Tool for ScheduleTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        self.action == Action::List
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let known = match self.action {
            Action::List => &[][..],
            Action::Add | Action::Update => FIELDS,
            Action::Delete => &["name"],
        };
        let checked = Arguments::of(arguments, known)?;
        let starting = || ToolError::new("the hub is still starting; try again in a moment");
        let (scheduler, changes) = self.desk.parts.get().ok_or_else(starting)?;
        let own: Vec<ScheduleInfo> = scheduler.list().into_iter().filter(|info| is_own(info, context)).collect();
        if self.action == Action::List {
            return Ok(own.iter().map(|info| shape(info, scheduler)).collect::<Value>().to_string());
        }
        let name = checked.text("name")?.to_owned();
        let empty = Map::new();
        let mut wish = Wish::read(arguments.as_object().unwrap_or(&empty)).map_err(ToolError::new)?;
        wish.agent = None;
        let mine = own.iter().find(|info| info.config.name == name).map(|info| Arc::clone(&info.config));
        let unknown = || ToolError::new(format!("you have no schedule named {name:?}: see schedule_list"));
        let (action, made) = match self.action {
            Action::Add => {
                if own.len() >= limits::SCHEDULES_OF_AGENT_MAX {
                    return Err(ToolError::new("you have too many schedules; remove one first"));
                }
                check_tier(&wish, &changes.config(), context.agent)?;
                wish.agent = Some(context.agent.to_owned());
                let name = name.trim();
                ("schedule.create", change(&**changes, name, |config, doc| wish.add_to(config, doc))?)
            }
            Action::Update | Action::List => {
                let mine = mine.ok_or_else(unknown)?;
                check_tier(&wish, &changes.config(), context.agent)?;
                ("schedule.update", change(&**changes, &name, |config, doc| wish.change_in(config, &mine, doc))?)
            }
            Action::Delete => {
                mine.ok_or_else(unknown)?;
                ("schedule.delete", change(&**changes, &name, |_, doc| Wish::remove_from(&name, doc))?)
            }
        };
        let actor = format!("agent:{}", context.agent);
        self.desk.audit.record(&Entry { actor: &actor, target: &name, ..Entry::ok(action) });
        self.desk.journal.record(&NewChange {
            agent: context.agent,
            kind: "schedule",
            target: if self.action == Action::Add { name.trim() } else { &name },
            before: made.before.as_deref(),
            after: made.after.as_deref().unwrap_or_default(),
            conversation_id: context.session_id,
            ..NewChange::default()
        });
        let now = scheduler.get(&name).map(|info| shape(&info, scheduler));
        Ok(now.unwrap_or_else(|| json!({"ok": true})).to_string())
    }
}

/// Those of the operator's system are not an agent's.
fn is_own(info: &ScheduleInfo, context: &ToolContext<'_>) -> bool {
    info.config.agent == context.agent && info.config.kind == "agent"
}

/// No agent gives itself more rights than it has.
fn check_tier(wish: &Wish, config: &Config, agent: &str) -> Result<(), ToolError> {
    let own = config.agents.iter().find(|known| known.name == agent).map(|known| known.tier);
    match (wish.tier(), own) {
        (Some(tier), Some(own)) if tier.is_above(own) => {
            Err(ToolError::new(format!("session_tier must not be above your own, {}", own.name())))
        }
        _ => Ok(()),
    }
}

/// A schedule as it stood in the file before and after a change; None: it did not.
#[derive(Default)]
struct Made {
    before: Option<String>,
    after: Option<String>,
}

fn change(
    changes: &dyn Changes,
    name: &str,
    make: impl Fn(&Config, &mut Document) -> Result<Result<(), ConfigError>, Refusal>,
) -> Result<Made, ToolError> {
    let (mut refusal, mut made) = (None, Made::default());
    let changed = changes.change(&mut |doc| {
        made.before = edit::text_in_list(doc, LIST, name)?;
        match make(&changes.config(), doc) {
            Ok(edited) => edited?,
            Err(refused) => {
                refusal = Some(refused);
                return Err(ConfigError::refused());
            }
        }
        made.after = edit::text_in_list(doc, LIST, name)?;
        Ok(())
    });
    match refusal {
        Some(refusal) => Err(ToolError::new(refusal.to_string())),
        None => changed.map(|()| made).map_err(ToolError::new),
    }
}

fn shape(info: &ScheduleInfo, scheduler: &Scheduler) -> Value {
    let (config, zone) = (&info.config, scheduler.zone());
    let time = |at: Option<i64>| at.map(|at| Scheduler::local_time(at, config.zone_or(&zone)));
    json!({
        "name": config.name, "schedule": config.schedule, "timezone": config.timezone(), "skill": config.skill, "prompt": config.prompt, "channel": config.channel,
        "session_mode": config.session_mode(), "session_tier": config.session_tier.name(), "tags": config.tags,
        "enabled": config.enabled, "last_run": time(info.last_run), "next_run": time(info.next_run),
    })
}
