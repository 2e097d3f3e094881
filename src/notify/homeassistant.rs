//! Machines as devices of Home Assistant: MQTT discovery. Pure.

use serde_json::{Value, json};

use super::situation::MachineState;
use crate::alert::Level;

/// A retained message.
pub(super) struct Retained {
    pub(super) topic: String,
    /// Empty: the broker forgets the topic, Home Assistant the entity.
    pub(super) payload: String,
}

/// Topics of one publisher.
pub(super) struct Topics {
    /// What all begin with.
    pub(super) prefix: String,
    /// None: no discovery.
    pub(super) discovery: Option<String>,
}

/// Component, object and device class of each entity of a machine.
const ENTITIES: [(&str, &str, &str); 3] =
    [("binary_sensor", "problem", "problem"), ("sensor", "level", "enum"), ("binary_sensor", "online", "connectivity")];

impl Topics {
    /// `online` or `offline`.
    pub(super) fn status(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// Notices, as they come.
    pub(super) fn notices(&self) -> String {
        format!("{}/notices", self.prefix)
    }

    fn state(&self, id: &str) -> String {
        format!("{}/machines/{}", self.prefix, slug(id))
    }

    /// How a machine is now.
    pub(super) fn state_of(&self, machine: &MachineState) -> Retained {
        let switch = |on: bool| if on { "ON" } else { "OFF" };
        let payload = json!({
            "name": machine.name, "problem": switch(machine.level.is_worse_than(Level::Info)),
            "level": machine.level.name(), "open": machine.open, "online": switch(machine.is_online),
        });
        Retained { topic: self.state(&machine.id), payload: payload.to_string() }
    }

    /// What makes a machine a device.
    pub(super) fn announcements(&self, machine: &MachineState) -> Vec<Retained> {
        let node = self.node(&machine.id);
        self.configs(&machine.id, |component, object, class| {
            let mut config = json!({
                "name": format!("{}{}", object[..1].to_uppercase(), &object[1..]),
                "unique_id": format!("{node}_{object}"),
                "state_topic": self.state(&machine.id),
                "value_template": format!("{{{{ value_json.{object} }}}}"),
                "device_class": class,
                "availability_topic": self.status(),
                "device": {"identifiers": [node], "name": machine.name, "manufacturer": "Holt"},
            });
            if component == "sensor" {
                config["options"] = json!(["Ok", "Info", "Warning", "Critical"]);
            } else if object == "problem" {
                config["json_attributes_topic"] = json!(self.state(&machine.id));
            }
            config
        })
    }

    /// What makes a machine disappear.
    pub(super) fn farewell(&self, id: &str) -> Vec<Retained> {
        let mut gone = self.configs(id, |_, _, _| Value::Null);
        gone.push(Retained { topic: self.state(id), payload: String::new() });
        gone
    }

    fn configs(&self, id: &str, config: impl Fn(&str, &str, &str) -> Value) -> Vec<Retained> {
        let Some(discovery) = &self.discovery else { return Vec::new() };
        let node = self.node(id);
        let retained = |&(component, object, class): &(&str, &str, &str)| {
            let payload = match config(component, object, class) {
                Value::Null => String::new(),
                config => config.to_string(),
            };
            Retained { topic: format!("{discovery}/{component}/{node}/{object}/config"), payload }
        };
        ENTITIES.iter().map(retained).collect()
    }

    /// Ids in Home Assistant: another prefix is another publisher.
    fn node(&self, id: &str) -> String {
        format!("{}_{}", slug(&self.prefix), slug(id))
    }
}

/// Letters, digits, `_` and `-` only.
fn slug(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_a_device_with_three_entities() {
        let topics = Topics { prefix: "holt".into(), discovery: Some("homeassistant".into()) };
        let machine =
            MachineState { id: "a-1/#".into(), name: "nas".into(), level: Level::Warning, open: 2, is_online: true };
        let configs = topics.announcements(&machine);
        let names: Vec<_> = configs.iter().map(|config| config.topic.as_str()).collect();
        assert_eq!(
            names,
            [
                "homeassistant/binary_sensor/holt_a-1__/problem/config",
                "homeassistant/sensor/holt_a-1__/level/config",
                "homeassistant/binary_sensor/holt_a-1__/online/config"
            ]
        );
        let level: Value = serde_json::from_str(&configs[1].payload).unwrap();
        assert_eq!(level["state_topic"], "holt/machines/a-1__");
        assert_eq!(level["value_template"], "{{ value_json.level }}");
        assert_eq!(level["availability_topic"], "holt/status");
        let state = topics.state_of(&machine);
        assert_eq!(state.topic, "holt/machines/a-1__");
        let state: Value = serde_json::from_str(&state.payload).unwrap();
        assert_eq!(state, json!({"name": "nas", "problem": "ON", "level": "Warning", "open": 2, "online": "ON"}));
        assert!(topics.farewell("a-1/#").iter().all(|gone| gone.payload.is_empty()));
        assert_eq!(topics.farewell("a-1/#").len(), 4);
    }
}
