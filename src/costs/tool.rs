//! `get_cost_summary` (contract engine 8.7): what an agent may know of the money, its own and no other's.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::costs::budget::Budgets;
use crate::llm::ToolSpec;
use crate::tools::{Tool, ToolContext, ToolError};

struct CostTool {
    spec: ToolSpec,
    budgets: Arc<Budgets>,
}

/// The tool over the hub's budgets.
pub fn cost_tool(budgets: &Arc<Budgets>) -> Arc<dyn Tool> {
    let spec = ToolSpec {
        name: "get_cost_summary".to_owned(),
        description: "Tells what you have cost so far in USD: in all conversations (global_cost), in this one \
                      (session_costs), and how much one conversation may cost (max_per_session; 0 is no limit)."
            .to_owned(),
        parameters: json!({"type": "object", "properties": {}}),
    };
    Arc::new(CostTool { spec, budgets: Arc::clone(budgets) })
}

impl Tool for CostTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        true
    }

    fn call(&self, _arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let (all, own) = self.budgets.summary(context.agent, context.session_id).map_err(|error| {
            log::error!("sum up costs: {error}");
            ToolError::new("the hub's database failed; its log has the details")
        })?;
        let hard = self.budgets.conversation_limits_of(context.agent).hard;
        let session_costs = json!({context.session_id: own});
        Ok(json!({"global_cost": all, "max_per_session": hard, "session_costs": session_costs}).to_string())
    }
}
