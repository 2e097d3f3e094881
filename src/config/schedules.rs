//! `[[schedules]]` and `[scheduler]` (contract engine 5.3, 5.4, 10.2): from typed to validated. The same rules for the
//! file, the API and agents (W-27).

use std::time::Duration;

use jiff::tz::TimeZone;

use super::check::{time, time_above_zero, word};
use super::error::ConfigError;
use super::expression::Expression;
use super::json::typed;
use super::raw::Typed;
use super::{AgentConfig, ChannelConfig, Tier};
use crate::rt::json::quoted;
use crate::rt::order::Order;

/// Longest name: it stands in ids of conversations.
const NAME_BYTES_MAX: usize = 100;
/// What the channels of people's notifications begin with: `notify:NAME`, `notify:*` for all.
pub const NOTIFY: &str = "notify";
const CATCH_UP: Duration = Duration::from_secs(3600);
/// Ten minutes are little for a model on a small machine.
const RUN_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const DEFAULT_AGENT: &str = "default";

/// One schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleConfig {
    pub name: String,
    /// `system` or `agent`; they behave the same.
    pub kind: String,
    /// As it was typed.
    pub schedule: String,
    pub expression: Expression,
    /// Holt's own: where its hours are meant; None: in `api.timezone`.
    pub zone: Option<TimeZone>,
    /// The skill that it is for; empty: none.
    pub skill: String,
    /// Holt's own: what the agent is asked; empty: only what the schedule is called.
    pub prompt: String,
    /// `adapter:externalID`; empty: none.
    pub channel: String,
    pub tags: Vec<String>,
    pub session_tier: SessionTier,
    /// A conversation of its own for each run; otherwise that of the channel.
    pub isolated: bool,
    /// Who runs it.
    pub agent: String,
    pub enabled: bool,
}

/// What a run may do without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionTier {
    /// What its agent may. In the file: the key with an empty text.
    Agents,
    /// Supervised, or what its agent may if that is less. In the file: no key (contract engine 5.4).
    Cautious,
    Given(Tier),
}

impl SessionTier {
    /// The tier of a run of an agent of that tier.
    pub fn of(self, agent: Tier) -> Tier {
        match self {
            Self::Agents => agent,
            Self::Cautious if agent == Tier::Restricted => agent,
            Self::Cautious => Tier::Supervised,
            Self::Given(tier) => tier,
        }
    }

    /// As lists show it; None: the agent's.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Agents => None,
            Self::Cautious => Some(Tier::Supervised.name()),
            Self::Given(tier) => Some(tier.name()),
        }
    }
}

impl ScheduleConfig {
    /// Where its hours are meant; `hub` is `api.timezone`.
    pub fn zone_or<'a>(&'a self, hub: &'a TimeZone) -> &'a TimeZone {
        self.zone.as_ref().unwrap_or(hub)
    }

    /// The name of its own time zone; empty: it has none.
    pub fn timezone(&self) -> &str {
        self.zone.as_ref().and_then(TimeZone::iana_name).unwrap_or_default()
    }

    /// Its mode as the file and lists spell it.
    pub fn session_mode(&self) -> &'static str {
        if self.isolated { "isolated" } else { "shared" }
    }

    /// Adapter and external id of its channel.
    pub fn channel_parts(&self) -> Option<(&str, &str)> {
        split_channel(&self.channel)
    }

    /// The notification channels that are told of its runs: a name, or `*` for all.
    pub fn notified(&self) -> Option<&str> {
        self.channel_parts().filter(|(adapter, _)| *adapter == NOTIFY).map(|(_, name)| name)
    }
}

/// Both sides of the first colon, if there is text on both.
pub fn split_channel(channel: &str) -> Option<(&str, &str)> {
    channel.split_once(':').filter(|(adapter, id)| !adapter.trim().is_empty() && !id.trim().is_empty())
}

/// Whether a channel can be used: its form, and that a notification channel of that name exists. The error says what is
/// wrong.
pub fn check_channel(channel: &str, known: &[ChannelConfig]) -> Result<(), String> {
    let (adapter, name) = split_channel(channel)
        .filter(|_| !channel.chars().any(char::is_control) && channel.len() <= NAME_BYTES_MAX)
        .ok_or_else(|| format!("channel {} is not in adapter:externalID format", quoted(channel)))?;
    if adapter == NOTIFY && name != "*" && !known.iter().any(|channel| channel.name == name) {
        return Err(format!("channel {}: there is no [notify.{name}] in the configuration", quoted(channel)));
    }
    Ok(())
}

/// The time zone of that name; None for an empty one. The error says what to give instead.
pub fn zone(name: &str) -> Result<Option<TimeZone>, String> {
    let name = name.trim();
    let found = (!name.is_empty()).then(|| TimeZone::get(name)).transpose();
    found.map_err(|_| format!("must be a time zone such as \"Europe/Berlin\", got {}", quoted(name)))
}

/// Whether a schedule may have that name.
pub fn check_schedule_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("name is required".to_owned());
    }
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("name must have at most {NAME_BYTES_MAX} bytes and no control characters"));
    }
    Ok(())
}

/// `[scheduler]`: Holt's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// A run that was missed is made up for if it is not older than this; 0: never.
    pub catch_up: Duration,
    /// A run ends after so long; time in which somebody is asked does not count.
    pub run_timeout: Duration,
}

#[derive(Default)]
pub(super) struct RawScheduler {
    catch_up: Option<String>,
    run_timeout: Option<String>,
}

typed!(RawScheduler { catch_up, run_timeout });

#[derive(Default)]
pub(super) struct RawSchedule {
    name: String,
    kind: String,
    schedule: String,
    timezone: String,
    skill: String,
    prompt: String,
    channel: String,
    tags: Vec<String>,
    session_tier: Option<String>,
    session_mode: String,
    agent: String,
    enabled: Option<bool>,
}

typed!(RawSchedule {
    name,
    kind: "type",
    schedule,
    timezone,
    skill,
    prompt,
    channel,
    tags,
    session_tier,
    session_mode,
    agent,
    enabled
});

pub(super) fn scheduler(typed: &Typed) -> Result<SchedulerConfig, ConfigError> {
    let raw = &typed.raw.scheduler;
    Ok(SchedulerConfig {
        catch_up: time(typed, "scheduler.catch_up", raw.catch_up.as_deref(), CATCH_UP)?,
        run_timeout: time_above_zero(typed, "scheduler.run_timeout", raw.run_timeout.as_deref(), RUN_TIMEOUT)?,
    })
}

/// The schedules by name. What the reference leaves out with a warning is left out with one.
pub(super) fn schedules(
    typed: &mut Typed,
    agents: &[AgentConfig],
    notify: &[ChannelConfig],
) -> Result<Vec<ScheduleConfig>, ConfigError> {
    let mut schedules: Vec<ScheduleConfig> = Vec::with_capacity(typed.raw.schedules.len());
    let mut warnings = Vec::new();
    for (at, raw) in typed.raw.schedules.iter().enumerate() {
        let key = |field: &str| format!("schedules[{at}].{field}");
        let schedule = schedule(typed, raw, &key)?;
        if schedules.iter().any(|other| other.name == schedule.name) {
            return Err(typed.bad(&key("name"), format!("must be unique, {:?} is there twice", schedule.name)));
        }
        if !agents.iter().any(|agent| agent.name == schedule.agent) {
            return Err(typed.bad(&key("agent"), format!("there is no agent {:?}", schedule.agent)));
        }
        if !schedule.channel.is_empty()
            && let Err(reason) = check_channel(&schedule.channel, notify)
        {
            let skipped = schedule.channel_parts().is_none();
            let effect = if skipped { "the schedule is left out" } else { "nobody is told of its runs" };
            warnings.push(format!("{}: {reason}; {effect}", key("channel")));
            if skipped {
                continue;
            }
        }
        schedules.push(schedule);
    }
    schedules.order_by(|a, b| a.name.cmp(&b.name));
    typed.warnings.extend(warnings);
    Ok(schedules)
}

fn schedule(typed: &Typed, raw: &RawSchedule, key: &dyn Fn(&str) -> String) -> Result<ScheduleConfig, ConfigError> {
    let given = |field: &str, text: &str| super::check::given(typed, &key(field), text);
    given("name", &raw.name)?;
    check_schedule_name(&raw.name).map_err(|reason| typed.bad(&key("name"), reason))?;
    word(typed, &key("type"), &raw.kind, &["system", "agent"])?;
    given("schedule", &raw.schedule)?;
    let expression = Expression::parse(&raw.schedule).map_err(|reason| typed.bad(&key("schedule"), reason))?;
    let session_tier = match raw.session_tier.as_deref() {
        None => SessionTier::Cautious,
        Some("") => SessionTier::Agents,
        Some(text) => SessionTier::Given(super::check::tier(typed, &key("session_tier"), text, Tier::Supervised)?),
    };
    word(typed, &key("session_mode"), &raw.session_mode, &["", "shared", "isolated"])?;
    Ok(ScheduleConfig {
        name: raw.name.clone(),
        kind: raw.kind.clone(),
        schedule: raw.schedule.trim().to_owned(),
        expression,
        zone: zone(&raw.timezone).map_err(|reason| typed.bad(&key("timezone"), reason))?,
        skill: raw.skill.clone(),
        prompt: raw.prompt.trim().to_owned(),
        channel: raw.channel.clone(),
        tags: raw.tags.clone(),
        session_tier,
        isolated: raw.session_mode == "isolated",
        agent: if raw.agent.is_empty() { DEFAULT_AGENT.to_owned() } else { raw.agent.clone() },
        enabled: raw.enabled.unwrap_or(true),
    })
}
