//! What is stored under the names of agents.

use crate::store::{Db, StoreError};

/// Tables and the column that names an agent.
const NAMED: &[(&str, &str)] = &[
    ("conversation_info", "agent"),
    ("turns", "agent"),
    ("llm_calls", "agent"),
    ("approvals", "agent_name"),
    ("auto_approve_rules", "agent_name"),
    ("kv", "agent_name"),
    ("journal", "agent"),
];

/// Everything of one agent belongs to another name from now on, all or nothing. What was left there by a former agent
/// of that name gives way. Blocks on the disk.
pub fn rename_agent(db: &Db, old: &str, new: &str) -> Result<(), StoreError> {
    db.write(|tx| {
        for (table, column) in NAMED {
            tx.execute(&format!("UPDATE OR REPLACE {table} SET {column} = ?2 WHERE {column} = ?1"), [old, new])?;
        }
        Ok(())
    })
}
