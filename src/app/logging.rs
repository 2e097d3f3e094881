//! The program's log: one line a record on stderr, `key=value` text or JSON.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

use crate::rt::{clock, json};

struct StderrLog {
    json: bool,
}

/// Installs the log; a second call changes only the level.
pub fn init(level: LevelFilter, json: bool) {
    let logger = Box::leak(Box::new(StderrLog { json }));
    // Installed already: by an earlier call in the same process.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
}

impl Log for StderrLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && is_ours(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Vec::with_capacity(128);
        let time = clock::rfc3339(clock::unix_ms());
        let level = record.level().as_str();
        let text = record.args().to_string();
        if self.json {
            line.extend_from_slice(b"{\"time\":");
            json::push_str(&mut line, &time);
            line.extend_from_slice(b",\"level\":");
            json::push_str(&mut line, level);
            line.extend_from_slice(b",\"msg\":");
            json::push_str(&mut line, &text);
            line.push(b'}');
        } else {
            // A line end in a record would let a peer forge another one.
            let text = text.replace(['\n', '\r'], " ");
            line.extend_from_slice(format!("{time} {level:<5} {text}").as_bytes());
        }
        line.push(b'\n');
        // Nobody is left to tell when stderr is gone.
        let _ = std::io::stderr().lock().write_all(&line);
    }

    fn flush(&self) {}
}

/// Libraries speak up only about what went wrong.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("holt") || metadata.level() <= log::Level::Warn
}
