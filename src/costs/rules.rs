//! Which limits concern a call, and how they are named to people.

use std::collections::{BTreeMap, HashMap};

use crate::config::{Allowance, Limit};
use crate::costs::meter::Spender;
use crate::costs::money::{Nanos, nanos, shown};
use crate::rt::json::quoted;
use crate::store::costs::Whose;

/// Whose money it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Conversation,
    Agent,
    Key,
    All,
}

impl Scope {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Agent => "agent",
            Self::Key => "key",
            Self::All => "all",
        }
    }
}

/// For how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Period {
    Day,
    Month,
    Ever,
}

impl Period {
    pub(super) const ALL: [Self; 3] = [Self::Day, Self::Month, Self::Ever];

    pub(super) fn limit(self, allowance: &Allowance) -> Limit {
        match self {
            Self::Day => allowance.daily,
            Self::Month => allowance.monthly,
            Self::Ever => allowance.total,
        }
    }

    /// What the days of the period that holds `day` begin with.
    pub(super) fn prefix(self, day: &str) -> &str {
        match self {
            Self::Day => day,
            Self::Month => day.get(..7).unwrap_or(day),
            Self::Ever => "",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Day => "daily",
            Self::Month => "monthly",
            Self::Ever => "total",
        }
    }
}

/// One sum of money.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Account {
    pub(super) scope: Scope,
    /// The conversation, agent or identity; empty for [`Scope::All`].
    pub(super) name: String,
    pub(super) period: Period,
    /// See [`Period::prefix`].
    pub(super) days: String,
}

impl Account {
    pub(super) fn whose(&self) -> Whose<'_> {
        match self.scope {
            Scope::Conversation => Whose::Conversation(&self.name),
            Scope::Agent => Whose::Agent(&self.name),
            Scope::Key => Whose::Identity(&self.name),
            Scope::All => Whose::Everybody,
        }
    }
}

/// A limit of an account; 0 is off.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) account: Account,
    pub(super) soft: Nanos,
    pub(super) hard: Nanos,
    /// The same as configured.
    pub(super) limit: Limit,
    /// What to change in the configuration.
    setting: Setting,
}

#[derive(Clone, Debug)]
enum Setting {
    Llm,
    /// The agent's own limit per conversation.
    Agent(String),
    /// A table of `[costs]`.
    Costs(String),
}

impl Bound {
    fn new(account: Account, limit: Limit, setting: Setting) -> Option<Self> {
        let (soft, hard) = (nanos(limit.soft), nanos(limit.hard));
        (soft > 0 || hard > 0).then_some(Self { account, soft, hard, limit, setting })
    }

    /// `the daily limit of $2.00 for agent "default"`.
    pub(super) fn label(&self) -> String {
        let Account { scope, name, period, .. } = &self.account;
        let hard = shown(self.hard);
        match scope {
            Scope::Conversation => format!("the limit of {hard} for this conversation"),
            Scope::Agent => format!("the {} limit of {hard} for agent {}", period.name(), quoted(name)),
            Scope::Key => format!("the {} limit of {hard} for {}", period.name(), quoted(name)),
            Scope::All => format!("the {} limit of {hard} for everything together", period.name()),
        }
    }

    /// For the user whose call was refused: which limit, what is spent, and what to do.
    pub(super) fn refusal(&self, spent: Nanos, reserved: Nanos, estimate: Nanos) -> String {
        let aside = match reserved {
            0 => String::new(),
            reserved => format!(", {} more is set aside for calls that are being made", shown(reserved)),
        };
        let wait = match (self.account.scope, self.account.period) {
            (Scope::Conversation, _) => "Begin a new conversation",
            (_, Period::Day) => "Wait until tomorrow",
            (_, Period::Month) => "Wait until next month",
            (_, Period::Ever) => "Ask whoever runs this hub",
        };
        format!(
            "The call was not made: it may cost about {}, and {} of {} is spent{aside}. {wait}, or raise {}.",
            shown(estimate),
            shown(spent),
            self.label(),
            self.setting()
        )
    }

    fn setting(&self) -> String {
        match &self.setting {
            Setting::Llm => "cost_limit_hard in [llm]".to_owned(),
            Setting::Agent(name) => format!("cost_limit_hard of agent {} in [[agents]]", quoted(name)),
            Setting::Costs(table) => format!("{}_limit_hard in [{table}]", self.account.period.name()),
        }
    }
}

/// The limits as configured.
pub(super) struct Rules {
    /// Of a conversation, unless its agent has its own.
    pub(super) conversation: Limit,
    /// An agent's own limits per conversation; None is the general one.
    pub(super) own: HashMap<String, (Option<f64>, Option<f64>)>,
    pub(super) all: Allowance,
    pub(super) agents: BTreeMap<String, Allowance>,
    pub(super) keys: BTreeMap<String, Allowance>,
}

impl Rules {
    /// The limits of one conversation with that agent.
    pub(super) fn conversation(&self, agent: &str) -> Limit {
        let (soft, hard) = self.own.get(agent).copied().unwrap_or_default();
        Limit { soft: soft.unwrap_or(self.conversation.soft), hard: hard.unwrap_or(self.conversation.hard) }
    }

    /// Every limit that concerns a call of that spender on that day.
    pub(super) fn bounds(&self, spender: &Spender, day: &str) -> Vec<Bound> {
        let own = self.own.get(&spender.agent).is_some_and(|(_, hard)| hard.is_some());
        let setting = if own { Setting::Agent(spender.agent.clone()) } else { Setting::Llm };
        let conversation = Account {
            scope: Scope::Conversation,
            name: spender.conversation_id.clone(),
            period: Period::Ever,
            days: String::new(),
        };
        let mut bounds: Vec<Bound> =
            Bound::new(conversation, self.conversation(&spender.agent), setting).into_iter().collect();
        let mut add = |scope: Scope, name: &str, table: &dyn Fn() -> String, allowance: &Allowance| {
            for period in Period::ALL {
                let limit = period.limit(allowance);
                if limit != Limit::default() {
                    let days = period.prefix(day).to_owned();
                    let account = Account { scope, name: name.to_owned(), period, days };
                    bounds.extend(Bound::new(account, limit, Setting::Costs(table())));
                }
            }
        };
        if let Some(allowance) = self.agents.get(&spender.agent) {
            add(Scope::Agent, &spender.agent, &|| format!("costs.agents.{}", quoted(&spender.agent)), allowance);
        }
        if let Some((name, allowance)) = self.key(&spender.identity) {
            add(Scope::Key, &spender.identity, &|| format!("costs.keys.{}", quoted(name)), allowance);
        }
        add(Scope::All, "", &|| "costs".to_owned(), &self.all);
        bounds
    }

    /// Keys by their name; every identity, also `user:...`, by its whole name.
    fn key(&self, identity: &str) -> Option<(&String, &Allowance)> {
        let name = identity.strip_prefix("key:");
        self.keys.get_key_value(identity).or_else(|| self.keys.get_key_value(name?))
    }

    /// All limits of `[costs]`, as accounts of that day.
    pub(super) fn all_bounds(&self, day: &str) -> Vec<Bound> {
        let nobody = |agent: &str, identity: &str| Spender {
            turn_id: 0,
            conversation_id: String::new(),
            agent: agent.to_owned(),
            identity: identity.to_owned(),
        };
        let mut found = self.bounds(&nobody("", ""), day);
        found.extend(
            self.agents
                .keys()
                .flat_map(|name| self.bounds(&nobody(name, ""), day))
                .filter(|bound| bound.account.scope == Scope::Agent),
        );
        let identity = |name: &String| if name.contains(':') { name.clone() } else { format!("key:{name}") };
        found.extend(
            self.keys
                .keys()
                .flat_map(|name| self.bounds(&nobody("", &identity(name)), day))
                .filter(|bound| bound.account.scope == Scope::Key),
        );
        found.retain(|bound| bound.account.scope != Scope::Conversation);
        found
    }
}
