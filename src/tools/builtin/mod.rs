//! Tools inside the hub that every agent has: the web, earlier conversations.
//!
//! A page of the web is read by the model, so it is fetched as if by a stranger (decisions, row "SSRF"): see
//! [`crate::net::guard`]. No threads of its own: a tool runs on the thread of its turn.

mod charset;
mod download;
mod entities;
mod fallback;
mod fetch;
mod html;
mod markdown;
#[cfg(test)]
mod markdown_tests;
mod recall;
mod robots;
mod schedules;
mod search;
mod servers;

use std::sync::Arc;

pub use schedules::ScheduleDesk;
pub use servers::{ServerAdmin, change_servers, record_revocations};

use crate::config::WebConfig;
use crate::llm::Router;
use crate::net::guard::HostPattern;
use crate::store::Db;
use crate::tools::Tool;

/// `web_fetch` and `web_search`. The error says which entry of `web.fetch.allow_private` is wrong.
pub fn web_tools(config: &WebConfig) -> Result<Vec<Arc<dyn Tool>>, String> {
    let listed = config.fetch.allow_private.iter().map(|entry| HostPattern::parse(entry));
    let listed = listed.collect::<Result<Vec<_>, _>>().map_err(|reason| format!("{}: {reason}", fetch::SETTING))?;
    Ok(vec![Arc::new(fetch::WebFetch::new(&config.fetch, &listed)), Arc::new(search::WebSearch::new(&config.search))])
}

/// The name of [`set_fallback`].
pub const SET_FALLBACK: &str = "set_fallback";

/// Names of the built-in tools that are made after the tool servers, which must not take them.
pub const LATE_NAMES: [&str; 18] = [
    SET_FALLBACK,
    "tool_list",
    "tool_add",
    "tool_remove",
    "tool_restart",
    "web_fetch",
    "web_search",
    schedules::NAMES[0],
    schedules::NAMES[1],
    schedules::NAMES[2],
    schedules::NAMES[3],
    "plugin_list",
    "plugin_add",
    "plugin_remove",
    "browser_profile_list",
    "browser_profile_info",
    "browser_profile_clear",
    "browser_profile_delete",
];

/// `tool_list`, `tool_add`, `tool_remove`, `tool_restart`.
pub fn server_tools(admin: &ServerAdmin) -> Vec<Arc<dyn Tool>> {
    servers::server_tools(admin)
}

/// `schedule_list`, `schedule_add`, `schedule_update`, `schedule_delete`.
pub fn schedule_tools(desk: &Arc<ScheduleDesk>) -> Vec<Arc<dyn Tool>> {
    schedules::schedule_tools(desk)
}

/// `set_fallback` for the agent of this router.
pub fn set_fallback(router: &Arc<Router>) -> Arc<dyn Tool> {
    Arc::new(fallback::SetFallback::new(Arc::clone(router)))
}

/// `conversation_search`.
pub fn conversation_search(db: Arc<Db>) -> Arc<dyn Tool> {
    Arc::new(recall::ConversationSearch::new(db))
}
