//! `holt approvals ...`: decide what agents ask for, straight in the hub's database. A running hub notices within a
//! second; one that does not run goes on with the turn when it starts.

use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};

use super::database::Database;
use super::output::out;
use super::table::Table;
use super::{CliError, Context, time};
use crate::chat::approvals::too_late;
use crate::store::ApprovalStore;
use crate::store::approvals::{ApprovalRow, Decided, Decision};
use crate::store::rules::RuleScope;

const SUMMARY_SHOWN: usize = 80;

/// List and decide what agents ask for
#[derive(Args)]
pub(super) struct Approvals {
    #[command(subcommand)]
    command: ApprovalsCommand,
}

#[derive(Subcommand)]
enum ApprovalsCommand {
    /// List requests: those that wait, or all
    #[command(long_about = "List requests for approval, newest first: those that wait for a decision, or all.

Examples:
  holt approvals list
  holt approvals list --all")]
    List {
        /// Decided and expired ones too
        #[arg(short, long)]
        all: bool,
    },
    /// Show a request with its exact arguments
    #[command(long_about = "Show a request with its exact arguments.

Examples:
  holt approvals show 51d2c09a")]
    Show {
        /// Id of the request, or the beginning of it
        id: String,
    },
    /// Approve a request: its tool is called
    #[command(long_about = "Approve a request: its tool is called and the turn goes on. With --always the same tool
of the same agent is approved from now on: for 15 minutes in this conversation, or for good.

Examples:
  holt approvals approve 51d2c09a
  holt approvals approve 51d2c09a --always session
  holt approvals approve 51d2c09a --always permanent")]
    Approve {
        /// Id of the request, or the beginning of it
        id: String,
        /// Also approve this tool from now on
        #[arg(long, value_enum, value_name = "SCOPE")]
        always: Option<Always>,
    },
    /// Deny a request: the turn goes on without the call
    #[command(long_about = "Deny a request: the tool is not called, the model is told, and the turn goes on.

Examples:
  holt approvals deny 51d2c09a")]
    Deny {
        /// Id of the request, or the beginning of it
        id: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Always {
    Session,
    Permanent,
}

impl Approvals {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let store = ApprovalStore::new(Arc::clone(&Database::open(context)?.db));
        match self.command {
            ApprovalsCommand::List { all } => list(&store, all),
            ApprovalsCommand::Show { id } => show(&find(&store, &id)?),
            ApprovalsCommand::Approve { id, always } => {
                let rule = always.map(|always| match always {
                    Always::Session => RuleScope::Session,
                    Always::Permanent => RuleScope::Permanent,
                });
                decide(&store, &id, true, rule)
            }
            ApprovalsCommand::Deny { id } => decide(&store, &id, false, None),
        }
    }
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
