//! What is wrong, and where: events of checks, as they travel and are stored (contract agent-link 2.7, 6.1, 6.2).
//!
//! Plain data: no threads, no I/O.

mod event;

pub use event::{Event, Level, RESERVED_LABELS, key_of};
