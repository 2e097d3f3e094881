//! Black-box tests: the real binary on port 0 in a temporary directory. A module per subject.

#[macro_use]
mod support;

mod chat;
mod cli;
