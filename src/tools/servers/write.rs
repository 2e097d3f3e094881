//! How changes of tool servers, and of what is kept like them, get into the configuration.

use serde_json::Value;

use super::{ChangeError, ToolServers};
use crate::config::{ConfigError, Document, ToolServerConfig, edit, write_tool_server};

/// Changes the configuration file and puts the result in force.
pub type Write =
    Box<dyn Fn(&mut dyn FnMut(&mut Document) -> Result<(), ConfigError>) -> Result<(), WriteError> + Send + Sync>;

/// Why the configuration is as it was.
pub enum WriteError {
    /// A start would refuse it: which setting, and why. It need not be one that was to be changed.
    Refused(String),
    /// It could not be read or written; for the log.
    Failed(String),
}

impl ToolServers {
    /// How the configuration is changed; the first call counts. What it puts in force comes back to [`Self::apply`],
    /// which leaves the server that is being changed alone.
    pub fn set_write(&self, write: Write) {
        let _ = self.shared.write.set(write); // set once, by the composition root
    }

    /// Changes the configuration; `step` is for the error, as the contract words it.
    pub(in crate::tools) fn edit(
        &self,
        name: &str,
        step: &'static str,
        edit: &mut dyn FnMut(&mut Document) -> Result<(), ConfigError>,
    ) -> Result<(), ChangeError> {
        let starting = || Err(WriteError::Failed("the hub is just starting".to_owned()));
        self.shared.write.get().map_or_else(starting, |write| write(edit)).map_err(|error| match error {
            WriteError::Refused(reason) => ChangeError::Invalid(reason),
            WriteError::Failed(cause) => ChangeError::Persist { step, name: name.to_owned(), cause },
        })
    }

    pub(super) fn write(
        &self,
        name: &str,
        step: &'static str,
        config: Option<&ToolServerConfig>,
    ) -> Result<(), ChangeError> {
        self.edit(name, step, &mut |doc| match config {
            Some(config) => write_tool_server(doc, name, config),
            None => edit::set_at(doc, &["tools", name], &Value::Null),
        })
    }
}
