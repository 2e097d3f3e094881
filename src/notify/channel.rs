//! What a channel is to its queue, and which one a configuration asks for.

use std::time::Duration;

use super::console::Console;
use super::mqtt::Mqtt;
use super::notice::Notice;
use super::smtp::Smtp;
use super::{Shared, web};
use crate::config::{ChannelConfig, Service};
use crate::rt::Cancel;

/// A notice in words, ready for a service.
pub(super) struct Message<'a> {
    pub(super) notice: &'a Notice,
    pub(super) title: String,
    pub(super) body: String,
    /// Absolute, or empty.
    pub(super) link: String,
    /// What can be done from the message itself: label, address to post to, body.
    pub(super) buttons: Vec<(&'static str, String, serde_json::Value)>,
}

/// Why a message was not taken. Texts name no secret and no address with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// It would not be taken another time either.
    Refused(String),
    /// The service cannot be reached or is not ready; `after` is what it asks for.
    Later { cause: String, after: Option<Duration> },
    /// The service is there and answers with an error of its own.
    Broken(String),
    /// The channel is being stopped.
    Cancelled,
}

impl SendError {
    pub(super) fn later(cause: impl Into<String>) -> Self {
        Self::Later { cause: cause.into(), after: None }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Refused(cause) | Self::Broken(cause) | Self::Later { cause, .. } => cause,
            Self::Cancelled => "stopped",
        }
    }
}

/// A way to people. One thread uses it.
pub(super) trait Channel: Send {
    /// Tries once, within the time of its settings. Ok when the service has taken the message.
    fn send(&mut self, message: &Message<'_>, cancel: &Cancel) -> Result<(), SendError>;

    /// Looks after a connection that is kept between messages; when it wants that again, in milliseconds since 1970.
    fn tend(&mut self, _now_ms: i64, _cancel: &Cancel) -> Option<i64> {
        None
    }

    /// Says goodbye, in at most a second.
    fn close(&mut self) {}
}

/// The channel of a configuration, for a hub whose page has an address or not; the error is what cannot be used.
pub(super) fn build(
    config: &ChannelConfig,
    topic: &str,
    shared: &Shared,
    has_address: bool,
) -> Result<Box<dyn Channel>, String> {
    if config.buttons && !(has_address && shared.buttons.is_some()) {
        return Err("approve_buttons needs api.external_url of the hub: that is where buttons lead".to_owned());
    }
    match &config.service {
        Service::Ntfy(ntfy) => Ok(Box::new(web::ntfy(config, ntfy)?)),
        Service::Gotify(gotify) => Ok(Box::new(web::gotify(config, gotify)?)),
        Service::Webhook(hook) => Ok(Box::new(web::webhook(config, hook)?)),
        Service::Email(email) => Ok(Box::new(Smtp::new(config, email, shared.zone())?)),
        Service::Mqtt(mqtt) => Ok(Box::new(Mqtt::new(config, mqtt, topic, &shared.situation)?)),
        Service::Console => Ok(Box::new(Console)),
    }
}
