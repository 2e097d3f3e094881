//! `holt approvals ...`: decide what agents ask for, straight in the hub's database. A running hub notices within a
//! second; one that does not run goes on with the turn when it starts.

use std::sync::Arc;

use super::command::{Action, Arg, Command};
use super::database::Database;
use super::output::out;
use super::table::Table;
use super::{CliError, Context, time};
use crate::chat::approvals::too_late;
use crate::store::ApprovalStore;
use crate::store::approvals::{ApprovalRow, Decided, Decision};
use crate::store::rules::RuleScope;

const SUMMARY_SHOWN: usize = 80;

pub(super) const COMMAND: Command =
    Command::group("approvals", "List and decide what agents ask for", &[LIST, SHOW, APPROVE, DENY]);

const ID: Arg = Arg::word("id", "Id of the request, or the beginning of it");

const LIST: Command = Command {
    name: "list",
    about: "List requests: those that wait, or all",
    details: "List requests for approval, newest first: those that wait for a decision, or all.",
    examples: &["holt approvals list", "holt approvals list --all"],
    args: &[Arg::flag("all", "Decided and expired ones too").short('a')],
    action: Action::Run(|args, context| list(&store(context)?, args.flag("all"))),
};

const SHOW: Command = Command {
    name: "show",
    about: "Show a request with its exact arguments",
    details: "",
    examples: &["holt approvals show 51d2c09a"],
    args: &[ID],
    action: Action::Run(|args, context| show(&find(&store(context)?, args.text("id"))?)),
};

const APPROVE: Command = Command {
    name: "approve",
    about: "Approve a request: its tool is called",
    details: "Approve a request: its tool is called and the turn goes on. With --always the same tool of the same agent \
              is approved from now on: for 15 minutes in this conversation, or for good.",
    examples: &[
        "holt approvals approve 51d2c09a",
        "holt approvals approve 51d2c09a --always session",
        "holt approvals approve 51d2c09a --always permanent",
    ],
    args: &[
        ID,
        Arg::option("always", "SCOPE", "Also approve this tool from now on").choices(&["session", "permanent"]),
    ],
    action: Action::Run(|args, context| {
        let rule = args.value("always").map(|scope| match scope {
            "session" => RuleScope::Session,
            _ => RuleScope::Permanent,
        });
        decide(&store(context)?, args.text("id"), true, rule)
    }),
};

const DENY: Command = Command {
    name: "deny",
    about: "Deny a request: the turn goes on without the call",
    details: "Deny a request: the tool is not called, the model is told, and the turn goes on.",
    examples: &["holt approvals deny 51d2c09a"],
    args: &[ID],
    action: Action::Run(|args, context| decide(&store(context)?, args.text("id"), false, None)),
};

fn store(context: &Context) -> Result<ApprovalStore, CliError> {
    Ok(ApprovalStore::new(Arc::clone(&Database::open(context)?.db)))
}

fn list(store: &ApprovalStore, all: bool) -> Result<(), CliError> {
    let rows = store.list(if all { "" } else { "pending" }).map_err(CliError::failed)?;
    if rows.is_empty() {
        return out!("{}", if all { "Nothing was ever asked." } else { "Nothing waits for a decision." });
    }
    let mut table = Table::new(&["ID", "AGENT", "STATUS", "CREATED", "SUMMARY"]);
    for row in rows {
        let mut summary: String = row.summary.chars().take(SUMMARY_SHOWN).collect();
        if summary.len() < row.summary.len() {
            summary.push('…');
        }
        table.row(vec![row.id, row.agent, row.status, time::second(row.created_at), summary]);
    }
    table.print()
}

fn show(row: &ApprovalRow) -> Result<(), CliError> {
    let mut table = Table::new(&["Request", &row.id]);
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            table.row(vec![name.to_owned(), value]);
        }
    };
    line("Status", row.status.clone());
    line("Agent", row.agent.clone());
    line("Tool", row.tool.clone());
    line("Server", row.server.clone());
    line("Conversation", row.conversation_id.clone());
    line("Created", time::second(row.created_at));
    line("Expires", row.expires_at.map(time::second).unwrap_or_default());
    line("Decided", row.resolved_at.map(time::second).unwrap_or_default());
    line("Decided by", if row.decided_by.is_empty() { row.resolved_by.clone() } else { row.decided_by.clone() });
    line("Note", row.note.clone());
    line("Arguments", row.payload.clone());
    table.print()
}

fn decide(store: &ApprovalStore, id: &str, approve: bool, rule: Option<RuleScope>) -> Result<(), CliError> {
    let row = find(store, id)?;
    let decision = Decision { approve, by: "cli", identity: "cli", source: "cli", rule };
    match store.decide(&row.id, &decision).map_err(CliError::failed)? {
        Decided::Done(row, _) => out!("{} {}: {}", if approve { "Approved" } else { "Denied" }, row.id, row.tool),
        Decided::NotFound => Err(unknown(id)),
        Decided::Already(row) => Err(CliError::Failed(format!("{}: {}", row.id, too_late(&row)))),
    }
}

/// The one request whose id begins so.
fn find(store: &ApprovalStore, id: &str) -> Result<ApprovalRow, CliError> {
    if id.is_empty() {
        return Err(unknown(id));
    }
    let mut found = store.find_by_prefix(id).map_err(CliError::failed)?.into_iter();
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) => Err(CliError::Failed(format!("{id} is the beginning of several ids; give more of it"))),
        _ => Err(unknown(id)),
    }
}

fn unknown(id: &str) -> CliError {
    CliError::Failed(format!("no request {id}; see: holt approvals list --all"))
}
