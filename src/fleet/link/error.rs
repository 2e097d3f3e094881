//! Why the link cannot be set up, or ended.

use std::fmt;

/// Holds facts; `Display` is one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// A file of the state directory cannot be read or written.
    State { path: String, cause: String },
    /// Another agent uses the state directory.
    InUse { path: String },
    /// The file of the agent's id is damaged.
    Identity { path: String },
    /// The hub's address, or a join code, is not one.
    Address { cause: String },
    /// The file of certificates cannot be used.
    Certificates { path: String, cause: String },
    /// No connection: name lookup, TCP, TLS, or time was up. Nothing was registered.
    Connect { cause: String },
    /// The upgrade was answered with that status.
    Status { status: u16 },
    /// Nobody has set the hub up yet: it lets no machine in.
    NotSetUp,
    /// The hub did something that the contract does not allow before the registration was complete.
    Protocol { cause: String },
    /// The hub refused the registration; its reason.
    Rejected { reason: String },
    /// The hub is not the one that this machine joined.
    Forged { cause: String },
    /// The connection ended after the registration.
    Lost { cause: String },
    /// The hub ended the connection with `disconnect`.
    Ordered { reason: String, retry_after_sec: i64 },
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { path, cause } => write!(f, "state {path}: {cause}"),
            Self::InUse { path } => {
                write!(f, "another agent uses {path}; stop it, or give this one its own --state-dir")
            }
            Self::Identity { path } => write!(
                f,
                "{path} is damaged: put it back from a backup, or remove it to begin as a new machine (its hub will not \
                 know it)"
            ),
            Self::Address { cause } => f.write_str(cause),
            Self::Certificates { path, cause } => write!(f, "ca_file {path}: {cause}"),
            Self::Connect { cause } => write!(f, "connect: {cause}"),
            Self::NotSetUp => f.write_str("the hub is not set up yet"),
            Self::Status { status: 401 } => f.write_str("the hub does not know this machine's token (401)"),
            Self::Status { status: status @ 300..=399 } => {
                write!(f, "the hub answered with a redirect ({status}), which is not followed; give its final address")
            }
            Self::Status { status } => write!(f, "the hub answered with status {status}"),
            Self::Protocol { cause } => write!(f, "not a hub: {cause}"),
            Self::Rejected { reason } if reason == "waiting for approval" => {
                f.write_str("the hub waits for somebody to approve this machine")
            }
            Self::Rejected { reason } => write!(f, "the hub refused this machine: {reason}"),
            Self::Forged { cause } => write!(f, "not the hub that this machine joined: {cause}"),
            Self::Lost { cause } => write!(f, "connection lost: {cause}"),
            Self::Ordered { reason, retry_after_sec } => {
                write!(f, "the hub asked to disconnect for {retry_after_sec} s: {reason}")
            }
        }
    }
}

impl LinkError {
    /// What a person can do about it; none when the error says so itself, or time heals it. `hub`: its address.
    /// `asks_as`: what a machine without a code shows while it asks for approval.
    pub fn advice(&self, hub: &str, asks_as: Option<&str>) -> Option<String> {
        let new_code = "make a new command at the hub: page Machines, \"Add a machine\", or `holt machines join`";
        Some(match self {
            Self::Connect { cause } if cause.starts_with("TLS: ") => return None,
            Self::Connect { .. } => format!(
                "does the hub run, is the address right, and does the hub listen for other machines (`holt serve \
                 --listen 0.0.0.0:8080`)? `curl {hub}/health` must answer here"
            ),
            Self::Rejected { .. } => format!(
                "this machine asks for approval as {}: approve it at the hub (page Machines, or `holt machines approve`)",
                asks_as?
            ),
            Self::NotSetUp => format!(
                "open {hub} first and choose a password (the PIN is in the hub's log); this machine tries again by itself"
            ),
            Self::Status { status: 401 } if asks_as.is_some() => {
                format!("the hub does not take requests for approval: {new_code}")
            }
            Self::Status { status: 401 } => {
                format!("the join code was used, withdrawn or is too old, or this machine was revoked: {new_code}")
            }
            Self::Status { status: 421 } => format!(
                "the hub does not know the name in {hub} as its own: use its IP address, or add the name to \
                 api.allowed_hosts there"
            ),
            Self::Status { status: 404 | 405 | 503 } => {
                format!("what answers at {hub} is no hub, or one whose link for machines is switched off")
            }
            Self::Protocol { .. } => format!("is {hub} the address of a hub? Does it begin with https:// there?"),
            Self::Forged { .. } => {
                format!("is {hub} the hub that made the join code? If it was set up anew, {new_code}")
            }
            _ => return None,
        })
    }
}

impl std::error::Error for LinkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_can_change_is_said() {
        let says = |error: LinkError, part: &str| {
            let advice = error.advice("http://hub:8080", None).unwrap_or_default();
            assert!(advice.contains(part) && advice.is_empty() == part.is_empty(), "{error}: {advice}");
        };
        let connect = |cause: &str| LinkError::Connect { cause: cause.to_owned() };
        says(connect("10.0.0.1:8080: Connection refused"), "`curl http://hub:8080/health`");
        says(connect("look up hub: Name or service not known"), "is the address right");
        says(connect("TLS: its certificate is for another name: a"), "");
        says(LinkError::Status { status: 401 }, "holt machines join");
        says(LinkError::NotSetUp, "open http://hub:8080 first");
        says(LinkError::Status { status: 421 }, "api.allowed_hosts");
        says(LinkError::Status { status: 404 }, "no hub");
        says(LinkError::Status { status: 500 }, "");
        says(LinkError::Protocol { cause: String::new() }, "https://");
        says(LinkError::Forged { cause: String::new() }, "set up anew");
        says(LinkError::Lost { cause: String::new() }, "");
        let rejected = LinkError::Rejected { reason: "waiting for approval".to_owned() };
        assert_eq!(rejected.advice("http://hub:8080", None), None);
        assert!(rejected.advice("http://hub:8080", Some("c46e")).unwrap().contains("asks for approval as c46e"));
        let unknown = LinkError::Status { status: 401 }.advice("http://hub:8080", Some("c46e")).unwrap();
        assert!(unknown.starts_with("the hub does not take requests"), "{unknown}");
    }
}
