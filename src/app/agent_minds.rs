//! Who answers remote sessions on an agent: the hub's models through its gateway, else the built-in planner.

use std::sync::Arc;

use crate::config::AgentFile;
use crate::fleet::link::{Link, LinkSettings};
use crate::fleet::runner::{Model, Runners, Scene, Settings};
use crate::llm::{Completion, Gateway, GatewayScene, GatewaySettings, LlmError, Request};
use crate::rt::Cancel;

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
    let runners = Arc::new(Runners::of_machine(Settings::default(), model, &file.checks));
    link.set_chat_runner(Arc::clone(&runners) as Arc<_>);
    link.set_diagnose_runner(runners);
    Ok(())
}
