//! What the tests share: a running hub, clients, a scripted model.
#![allow(dead_code, reason = "each test uses its part")]

pub mod agent;
pub mod http;
pub mod hub;
pub mod issuer;
pub mod link_agent;
pub mod link_hub;
pub mod machine;
pub mod model;
pub mod oauth_server;
pub mod peer;
pub mod remote;
pub mod schema;
pub mod script;
pub mod site;
pub mod tls;
pub mod tool_server;
pub mod ws;

pub use http::{Answer, Client};
pub use hub::Hub;
pub use link_hub::{LinkConn, LinkHub};
pub use model::Model;
pub use peer::Peer;
pub use site::Site;
pub use ws::Socket;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up; far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is there; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::yield_now();
    }
}
