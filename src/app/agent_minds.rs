//! Who answers remote sessions on an agent: the hub's models through its gateway, else the built-in planner.

use std::sync::Arc;

use serde_json::Value;

use crate::config::AgentFile;
use crate::diag::{HostRoot, machine_tools};
use crate::fleet::link::{Link, LinkSettings};
use crate::fleet::runner::{Model, Runners, Scene, Settings};
use crate::llm::{Completion, Gateway, GatewayScene, GatewaySettings, LlmError, Request};
use crate::net::guard::{Guard, HostPattern, Origin};
use crate::net::url::Url;
use crate::rt::Cancel;
use crate::tools::ToolSet;

/// The hub's models.
struct HubModel(Gateway);

impl Model for HubModel {
    fn ask(&self, scene: &Scene, request: Request<'_>, cancel: &Cancel) -> Result<Completion, LlmError> {
        let source = if scene.name == "chat" { "remote_chat" } else { "diagnose" };
        let scene = GatewayScene {
            name: scene.name,
            diagnose_id: &scene.run_id,
            plugin: &scene.plugin,
            target: &scene.target,
            source,
            session_id: "",
        };
        self.0.ask(&scene, &request, cancel)
    }
}

/// Plugs in who answers, as the file wants it.
pub(super) fn plug_in(link: &Link, settings: &LinkSettings, file: &AgentFile) -> Result<(), LlmError> {
    if !file.answers {
        return Ok(());
    }
    let model = match &file.gateway {
        None => None,
        Some(gateway) => {
            let base = gateway.base_url.clone().unwrap_or_else(|| settings.address.gateway_base());
            let (own, shared) = (gateway.token.clone(), link.clone());
            let settings = GatewaySettings {
                base,
                agent_id: link.agent_id().to_owned(),
                token: Arc::new(move || own.clone().unwrap_or_else(|| shared.token())),
                ca_file: settings.ca_file.clone(),
                timeout: gateway.request_timeout,
                max_retries: gateway.max_retries,
            };
            Some(Arc::new(HubModel(Gateway::new(settings)?)) as Arc<dyn Model>)
        }
    };
    // Whoever asks from afar may look where the owner of this machine lets its checks look, and at the internet.
    let hosts = checked_hosts(&file.checks);
    let guard = Guard::new(Origin::Untrusted).allow_inside(&hosts, "a check of kind http in agent.toml");
    let tools = ToolSet::new(machine_tools(HostRoot::system(), guard));
    let runners = Arc::new(Runners::new(Settings::default(), model, tools));
    link.set_chat_runner(Arc::clone(&runners) as Arc<_>);
    link.set_diagnose_runner(runners);
    Ok(())
}

/// The hosts of the URLs that checks are told to fetch.
fn checked_hosts(checks: &Value) -> Vec<HostPattern> {
    let tables = match checks.get("http") {
        Some(Value::Array(tables)) => tables.as_slice(),
        Some(table) => std::slice::from_ref(table),
        None => &[],
    };
    let targets = tables.iter().filter_map(|table| table.get("targets")?.as_array()).flatten();
    let urls = targets.filter_map(|target| Url::parse(target.as_str()?).ok());
    urls.filter_map(|url| HostPattern::parse(&url.host.to_string()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hosts_of_checks_are_found_in_every_shape() {
        let one = json!({"http": {"targets": ["http://192.168.1.1/x", "nonsense", 7]}});
        assert_eq!(checked_hosts(&one), [HostPattern::parse("192.168.1.1").unwrap()]);
        let many = json!({"http": [{"targets": ["https://nas.lan:8443"]}, {"x": 1}, 7]});
        assert_eq!(checked_hosts(&many), [HostPattern::parse("nas.lan").unwrap()]);
        assert!(checked_hosts(&Value::Null).is_empty());
    }
}
