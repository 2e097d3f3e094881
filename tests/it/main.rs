//! Black-box tests: the real binary on port 0 in a temporary directory. A module per subject.

#[macro_use]
mod support;

mod chat;
mod http_framing;
mod http_limits;
mod http_load;
mod identity;
mod logins;
mod page;
mod setup;
mod ws_protocol;
