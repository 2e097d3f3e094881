//! Plugins and the browser among the other parts.

use std::sync::Arc;

use crate::api::settings::Settings;
use crate::app::live::Live;
use crate::config::Config;
use crate::tools::Tool;
use crate::tools::builtin::ServerAdmin;
use crate::tools::plugins::{Browser, Plugins, browser_tools, plugin_tools};
use crate::tools::servers::{ToolServers, WriteError};

/// Plugins and the browser, with what agents can do about them.
pub(super) fn start(
    config: &Config,
    admin: &ServerAdmin,
    tools: &mut Vec<Arc<dyn Tool>>,
) -> (Arc<Plugins>, Option<Arc<Browser>>) {
    let plugins = Plugins::new(&admin.servers, &config.plugins);
    tools.extend(plugin_tools(admin, &plugins));
    let browser = Browser::new(&admin.servers, &config.browser);
    if let Some(browser) = &browser {
        tools.extend(browser_tools(browser, &admin.audit));
    }
    (plugins, browser)
}

/// Tool servers and plugins are written as every setting is. `live` holds them: hence the weak end.
pub(super) fn write_by(servers: &ToolServers, live: &Arc<Live>) {
    let live = Arc::downgrade(live);
    servers.set_write(Box::new(move |edit| {
        let live = live.upgrade().ok_or_else(|| WriteError::Failed("the hub stops".to_owned()))?;
        live.change(edit).map(drop).map_err(|error| match error.refusal() {
            Some(reason) => WriteError::Refused(reason),
            None => WriteError::Failed(error.to_string()),
        })
    }));
}
