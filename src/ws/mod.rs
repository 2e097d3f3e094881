//! WebSockets: two pumps, one writer (architecture section 3; contract 8).
//!
//! Knows tungstenite, and of it only the protocol: the socket is written by one thread alone, in frames that were
//! encoded once. A client that reads slowly is behind, never cut off from a frame: the write pump keeps a cursor into
//! each stream that the client follows and reads on from ring or log.
//!
//! | thread | how many | owns | ends when |
//! | --- | --- | --- | --- |
//! | `ws-read-N` | 1 per WebSocket | the reading half | the socket is closed or shut down |
//! | `ws-write-N` | 1 per WebSocket | the writing half | a close frame was written, the peer is gone, a deadline passed |
//! | `agent-read`, `agent-write` | 1 + 1 per machine | the same for a machine | likewise |

mod agent;
mod agent_frames;
mod agent_read;
pub mod conn;
pub mod frames;
pub mod hub;
mod outbox;
mod read_pump;
mod requests;
mod upgrade;
mod write_pump;

pub use agent::AgentSockets;
pub use conn::{Conn, WsStreamSession};
pub use hub::Hub;
