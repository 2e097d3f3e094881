//! Outbound HTTP: which addresses may be reached.

pub mod address;
pub mod guard;
#[cfg(test)]
mod guard_tests;
pub mod url;
