//! Who may do what to a conversation (W-18): it belongs to the identity that began it.

/// Somebody who asks, as far as conversations are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Names the owner of conversations: the same for all credentials of one name.
    pub identity: String,
    /// May read, replay and attach to everybody's conversations.
    pub reads_all: bool,
    /// May also write to them, stop their turns and delete them.
    pub writes_all: bool,
}

impl Caller {
    /// Whether the caller may read a conversation of that owner.
    pub fn may_read(&self, owner: &str) -> bool {
        self.reads_all || self.may_write(owner)
    }

    /// Whether the caller may write to a conversation of that owner.
    pub fn may_write(&self, owner: &str) -> bool {
        self.writes_all || owner == self.identity
    }
}
