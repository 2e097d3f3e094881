//! The machine link (contract agent-link): what goes over the wire, the hub's side of it, and the agent's.

pub mod hub;
pub mod link;
pub mod ring;
pub mod runner;
pub mod sign;
pub mod wire;

pub use link::ServerNotifier;
pub use ring::RingBuffer;
