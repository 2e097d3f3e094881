//! One remote chat: its history, and turns that leave no trace when they fail.

use std::sync::Arc;

use crate::fleet::link::runner::{ChatHandle, RunError, Stage, StreamCallback};
use crate::fleet::runner::rounds::{Mind, Rounds, Style};
use crate::fleet::runner::{Inner, Scene, budget, instead, prompt};
use crate::fleet::wire::Metadata;
use crate::llm::local::LocalProvider;
use crate::llm::{Message, Role};
use crate::rt::Cancel;

/// Messages that a chat remembers (contract agent-link 4.4).
const HISTORY_MESSAGES_MAX: usize = 40;

pub(super) struct Chat {
    inner: Arc<Inner>,
    system: Message,
    /// Begins with a user's message, or is empty.
    history: Vec<Message>,
}

impl Chat {
    pub(super) fn new(inner: Arc<Inner>, snapshot: &str, history: Vec<Message>) -> Self {
        let system = Message::text(Role::System, prompt::of_chat(snapshot));
        let mut chat = Self { inner, system, history };
        budget::keep_last(&mut chat.history, HISTORY_MESSAGES_MAX);
        chat
    }
}

impl ChatHandle for Chat {
    fn handle_message(
        &mut self,
        input: &str,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        // A copy: what a failed turn did to it is forgotten.
        let mut messages = Vec::with_capacity(self.history.len() + 2);
        messages.push(self.system.clone());
        messages.extend_from_slice(&self.history);
        messages.push(Message::text(Role::User, input));
        let scene = Scene { name: "chat", ..Scene::default() };
        let rounds_max = self.inner.settings.chat_rounds_max;
        let rounds = |mind| Rounds { mind, style: Style::Chat, rounds_max, inner: &self.inner };
        let asked = messages.clone();
        let reply = match &self.inner.model {
            None => rounds(Mind::Local(&LocalProvider)).run(&mut messages, callback, cancel)?,
            Some(model) => match rounds(Mind::Model(&**model, &scene)).run(&mut messages, callback, cancel) {
                // An answer without a model is better than none.
                Err(RunError::Failed(why)) => {
                    callback(&instead(&why), Stage::Thinking, Metadata::default());
                    messages = asked;
                    rounds(Mind::Local(&LocalProvider)).run(&mut messages, callback, cancel)?
                }
                other => other?,
            },
        };
        messages.push(Message::text(Role::Assistant, reply.clone()));
        messages.remove(0);
        budget::keep_last(&mut messages, HISTORY_MESSAGES_MAX);
        self.history = messages;
        Ok(reply)
    }
}
