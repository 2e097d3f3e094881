//! Asking before acting: requests, decisions and rules (contract engine 3, http-api 10).
//!
//! A request is a row before its event exists, so that no decision can come too early; it is bound to tool, server,
//! conversation and the hash of its arguments. Whoever decides wakes the turn through the rows.

use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::agents::Agents;
use crate::limits;
use crate::rt::{clock, lock};
use crate::store::approvals::{ApprovalRow, Decided, Decision};
use crate::store::rules::{NewRule, RuleRow, RuleScope};
use crate::store::{ApprovalStore, Db, RuleStore, StoreError, hex};
use crate::tools::Tool;

/// Told which turns may go on. Called on the thread that decided; never waits for a turn.
type Resume = Box<dyn Fn(&[i64]) + Send + Sync>;

/// Told of each new request that nobody has decided yet. Called on the thread of its turn; never waits for a network.
type Asked = Box<dyn Fn(&ApprovalRow) + Send + Sync>;

/// Requests for approval and the rules that answer them. One for the whole hub.
pub struct Approvals {
    // Set at construction.
    requests: ApprovalStore,
    rules: RuleStore,
    /// Guarded by this mutex: rules of the configuration, (agent, tool). Nothing is taken under it.
    configured: Mutex<Vec<(String, String)>>,
    /// Set once, by the engine.
    resume: OnceLock<Resume>,
    /// Set once, by the composition root.
    asked: OnceLock<Asked>,
}

/// What became of a wish to remove a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    Done,
    NotFound,
    /// It stands in the configuration, and has to go there.
    Configured,
}

/// Prefix of the ids of rules from the configuration.
const CONFIGURED: &str = "config:";

impl Approvals {
    pub(super) fn new(db: &Arc<Db>, agents: &Agents) -> Self {
        let new = Self {
            requests: ApprovalStore::new(Arc::clone(db)),
            rules: RuleStore::new(Arc::clone(db)),
            configured: Mutex::default(),
            resume: OnceLock::new(),
            asked: OnceLock::new(),
        };
        new.set_configured(agents);
        new
    }

    /// The configuration's rules are those of these agents from now on.
    pub(super) fn set_configured(&self, agents: &Agents) {
        let rules =
            agents.iter().flat_map(|agent| agent.auto_approve.iter().map(|tool| (agent.name.clone(), tool.clone())));
        *lock(&self.configured) = rules.collect();
    }

    pub(super) fn on_decided(&self, resume: Resume) {
        let _ = self.resume.set(resume); // set once, at construction of the engine
    }

    /// Who is told of new requests; the first call counts.
    pub fn on_asked(&self, asked: impl Fn(&ApprovalRow) + Send + Sync + 'static) {
        let _ = self.asked.set(Box::new(asked));
    }

    /// Tells of a new request, unless a rule has answered it already.
    pub(super) fn announce(&self, id: &str) {
        let Some(asked) = self.asked.get() else { return };
        match self.requests.get(id) {
            Ok(Some(row)) if row.status == "pending" => asked(&row),
            Ok(_) => {}
            Err(error) => log::warn!("tell of the request for approval {id}: {error}"),
        }
    }

    /// Requests of that status (all when empty), newest first.
    pub fn list(&self, status: &str) -> Result<Vec<ApprovalRow>, StoreError> {
        self.requests.list(status)
    }

    /// One request.
    pub fn get(&self, id: &str) -> Result<Option<ApprovalRow>, StoreError> {
        self.requests.get(id)
    }

    /// Decides a request, once, and lets its turn go on. Durable when this returns.
    pub fn decide(&self, id: &str, decision: &Decision<'_>) -> Result<Decided, StoreError> {
        let decided = self.requests.decide(id, decision)?;
        if let Decided::Done(row, turns) = &decided {
            let verb = if decision.approve { "approved" } else { "denied" };
            log::info!("approval {id} {verb} by {} ({}): tool {}", decision.identity, decision.by, row.tool);
            self.wake(turns);
        }
        Ok(decided)
    }

    /// Rules in force, of one agent if it is named: those of the configuration, permanent ones, those of conversations.
    pub fn rules(&self, agent: &str) -> Result<Vec<RuleRow>, StoreError> {
        let all = lock(&self.configured).clone();
        let configured = all.iter().filter(|(name, _)| agent.is_empty() || name == agent);
        let mut rules: Vec<RuleRow> = configured
            .map(|(agent, tool)| RuleRow {
                id: format!("{CONFIGURED}{agent}:{tool}"),
                agent: agent.clone(),
                tool: tool.clone(),
                scope: RuleScope::Permanent.as_str().to_owned(),
                conversation_id: String::new(),
                created_at: 0,
                created_by: "config".to_owned(),
                server: None,
                expires_at: None,
            })
            .collect();
        rules.extend(self.rules.list(agent)?);
        Ok(rules)
    }

    /// Makes a rule; requests that it answers are approved at once, and their turns go on.
    pub fn add_rule(&self, rule: &NewRule<'_>) -> Result<RuleRow, StoreError> {
        let (made, turns) = self.rules.add(rule)?;
        self.wake(&turns);
        Ok(made)
    }

    /// Removes a rule.
    pub fn remove_rule(&self, id: &str, identity: &str, source: &str) -> Result<Removed, StoreError> {
        if id.starts_with(CONFIGURED) {
            return Ok(Removed::Configured);
        }
        Ok(if self.rules.remove(id, identity, source)? { Removed::Done } else { Removed::NotFound })
    }

    /// A tool server is gone, or is another program from now on: its rules and what waits for it go with it.
    pub fn forget_server(&self, server: &str) -> Result<(), StoreError> {
        let turns = self.rules.forget_server(server)?;
        self.wake(&turns);
        Ok(())
    }

    /// The rule that lets a call through without asking.
    pub(super) fn rule_for(
        &self,
        agent: &str,
        conversation_id: &str,
        tool: &dyn Tool,
    ) -> Result<Option<RuleScope>, StoreError> {
        let (name, own, server) = (tool.spec().name.as_str(), tool.own_name(), tool.server());
        if lock(&self.configured).iter().any(|(known, entry)| known == agent && is_meant(entry, name, own, server)) {
            return Ok(Some(RuleScope::Permanent));
        }
        self.rules.matching(agent, conversation_id, name, server)
    }

    /// The keeper's part: requests whose time is over end, and their turns go on without the call.
    pub(super) fn expire_due(&self) -> Result<(), StoreError> {
        let turns = self.requests.expire_due()?;
        self.wake(&turns);
        Ok(())
    }

    /// Removes what nobody asks for any more.
    pub fn purge(&self) -> Result<(), StoreError> {
        self.rules.purge_expired()?;
        let kept = i64::try_from(limits::APPROVALS_KEPT.as_millis()).unwrap_or(i64::MAX);
        let gone = self.requests.purge(clock::unix_ms().saturating_sub(kept))?;
        if gone > 0 {
            log::info!("{gone} old approvals removed");
        }
        Ok(())
    }

    pub(super) fn abandon(&self, turn_id: i64, note: &str) -> Result<(), StoreError> {
        self.requests.abandon(turn_id, note)
    }

    fn wake(&self, turns: &[i64]) {
        if !turns.is_empty()
            && let Some(resume) = self.resume.get()
        {
            resume(turns);
        }
    }
}

/// Whether an entry of `auto_approve_tools` means that tool. A name alone means a built-in tool, never one of a server:
/// whoever offers a name must not take over what was allowed to another. `server/tool` means that server's.
fn is_meant(entry: &str, name: &str, own: &str, server: &str) -> bool {
    match entry.split_once('/') {
        Some((of, tool)) => !server.is_empty() && of == server && (tool == name || tool == own),
        None => server.is_empty() && entry == name,
    }
}

/// Why a decision came too late, for whoever made it.
pub fn too_late(row: &ApprovalRow) -> String {
    let how = match (row.status.as_str(), row.resolved_by.as_str()) {
        ("expired", "cancelled") => format!("its turn is gone ({})", row.note),
        ("expired", _) => "it expired".to_owned(),
        (status, "auto_approve") => format!("it was {status} by a rule"),
        (status, by) => format!("it was {status} via {by}"),
    };
    format!("already resolved: {how}")
}

/// SHA-256 of the arguments in canonical form (sorted keys, no blanks), hex: what an approval is bound to.
pub(super) fn arguments_hash(arguments: &str) -> String {
    let canonical =
        serde_json::from_str::<Value>(arguments).map_or_else(|_| arguments.to_owned(), |value| value.to_string());
    hex(&Sha256::digest(canonical.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_rule_means_one_tool_only() {
        assert!(is_meant("kv_set", "kv_set", "kv_set", ""));
        assert!(!is_meant("read", "read", "read", "files"));
        assert!(is_meant("files/read", "read", "read", "files"));
        assert!(is_meant("files/read", "files__read", "read", "files"));
        assert!(is_meant("files/files__read", "files__read", "read", "files"));
        assert!(!is_meant("files/read", "read", "read", "other"));
        assert!(!is_meant("/kv_set", "kv_set", "kv_set", ""));
    }

    #[test]
    fn the_same_arguments_have_one_hash() {
        let hash = |text: &str| arguments_hash(text);
        assert_eq!(hash(r#"{"b": 1, "a": [1, 2]}"#), hash(r#"{"a":[1,2],"b":1}"#));
        assert_ne!(hash(r#"{"a":[1,2]}"#), hash(r#"{"a":[2,1]}"#));
        assert_ne!(hash(r#"{"a":"1"}"#), hash(r#"{"a":1}"#));
        assert_ne!(hash("not json"), hash("other"));
    }
}
