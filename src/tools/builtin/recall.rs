//! `conversation_search`: what was said in earlier conversations of whoever asks.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::llm::ToolSpec;
use crate::rt::clock;
use crate::rt::text::cut;
use crate::store::search::MessageSearch;
use crate::store::{Db, StoreError};
use crate::tools::arguments::{Arguments, object};
use crate::tools::{Tool, ToolContext, ToolError};

const FOUND: usize = 10;
const FOUND_MAX: usize = 50;
const SNIPPET_BYTES_MAX: usize = 400;
const TITLE_BYTES_MAX: usize = 100;

/// Searches stored messages.
pub(super) struct ConversationSearch {
    spec: ToolSpec,
    search: MessageSearch,
}

impl ConversationSearch {
    pub(super) fn new(db: Arc<Db>) -> Self {
        Self {
            spec: ToolSpec {
                name: "conversation_search".to_owned(),
                description: "Searches the earlier conversations of the person you talk with for words, and returns \
                    extracts, the best first."
                    .to_owned(),
                parameters: object(
                    &json!({
                        "query": {"type": "string", "description": "words to look for"},
                        "limit": {"type": "integer", "minimum": 1, "maximum": FOUND_MAX,
                            "description": "how many extracts; 10 when left out"},
                    }),
                    &["query"],
                ),
            },
            search: MessageSearch::new(db),
        }
    }
}

impl Tool for ConversationSearch {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        true
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let arguments = Arguments::of(arguments, &["query", "limit"])?;
        let query = arguments.text("query")?;
        let count = arguments.number("limit", FOUND, 1, FOUND_MAX)?;
        let found = self.search.find(context.identity, query, count).map_err(|error| match error {
            StoreError::Busy => ToolError::new("the database is busy; try again"),
            error => {
                log::error!("search messages: {error}");
                ToolError::new("the conversations could not be searched")
            }
        })?;
        let results: Vec<Value> = found
            .iter()
            .map(|message| {
                json!({
                    "conversation_id": message.conversation_id, "title": cut(&message.title, TITLE_BYTES_MAX),
                    "role": message.role, "time": clock::rfc3339_s(message.created_at),
                    "snippet": cut(&message.snippet, SNIPPET_BYTES_MAX),
                    "current": message.conversation_id == context.session_id,
                })
            })
            .collect();
        Ok(json!({"result_count": results.len(), "results": results}).to_string())
    }
}
