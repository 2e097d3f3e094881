//! Host checks: what is measured, what counts as wrong, and the events that tell of it (contract agent-link 6.3, 7.5).
#![allow(dead_code, reason = "tmp")]
mod icmp;
mod peek;
mod regex;
mod x509;
