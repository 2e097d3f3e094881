//! The provider that needs no key and no network: a deterministic planner over the host tools' names and answers.
//!
//! A turn has two calls. The first finds the wish in the last message (and in what came before it) and asks for all
//! its tools at once; the second, with the results at hand, writes the report. Nothing here runs a tool or knows
//! how one works: what is not offered is not called.
//!
//! No threads; nothing blocks.

mod followup;
mod plan;
mod vocabulary;
mod wish;
mod words;
