//! Outbound HTTP: one blocking client for model providers, tool servers over HTTP, fetched pages and web hooks; and plain
//! connections for what is not HTTP ([`Wire`]).
//!
//! The client knows nothing of what is called or why: policy comes in as time-outs, headers and an [`AddressFilter`].
//! Which addresses may be reached on whose behalf is decided by [`guard`], which does no I/O.
//! Every failure is a [`NetError`] that holds facts; each caller says in its own words what to do about it. Parsers
//! do no I/O.

pub mod address;
mod answer;
mod client;
#[cfg(test)]
mod client_tests;
mod error;
pub mod guard;
#[cfg(test)]
mod guard_tests;
pub mod oauth;
pub mod sse;
#[cfg(test)]
pub(crate) mod test_peer;
mod transport;
pub mod url;
mod wire;

pub use answer::{Answer, retry_after};
pub use client::{Call, HttpClient, Method, Timeouts};
pub use error::{NetError, Phase};
pub use transport::AddressFilter;
pub use wire::{Wire, look_up};
