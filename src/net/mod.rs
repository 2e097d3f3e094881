//! Outbound HTTP: one blocking client for model providers, tool servers over HTTP, fetched pages and web hooks.
//!
//! This room knows nothing of what is called or why: policy comes in as time-outs, headers and an [`AddressFilter`].
//! Every failure is a [`NetError`] that holds facts; each caller says in its own words what to do about it. Parsers
//! do no I/O.

mod answer;
mod client;
#[cfg(test)]
mod client_tests;
mod error;
pub mod sse;
#[cfg(test)]
pub(crate) mod test_peer;
mod transport;

pub use answer::{Answer, retry_after};
pub use client::{Call, HttpClient, Method, Timeouts};
pub use error::{NetError, Phase};
pub use transport::AddressFilter;
