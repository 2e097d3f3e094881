//! One channel's queue at work: what is due, what waits for the end of quiet hours, what becomes one summary, and what
//! happens after a failure. Time comes in, so that tests need no clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use super::Shared;
use super::channel::{Channel, Message, SendError};
use super::notice::{Kind, Notice, firing_keys};
use super::quiet::{Bucket, quiet_until};
use super::summary::summary;
use super::template::{Facts, Template};
use crate::alert::Level;
use crate::config::ChannelConfig;
use crate::limits;
use crate::rt::{Cancel, lock};
use crate::store::StoreError;
use crate::store::notices::NoticeRow;

/// What the page says of a channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelStatus {
    /// Milliseconds since 1970; 0: never.
    pub sent_at: i64,
    /// Why the last attempt failed; empty after one that did not.
    pub error: String,
    /// Attempts that failed one after the other.
    pub failures: u32,
    /// No attempt is made before.
    pub retry_at: i64,
}

/// A channel with its queue.
pub(super) struct Lane {
    config: ChannelConfig,
    channel: Box<dyn Channel>,
    title: Option<Template>,
    body: Option<Template>,
    shared: Arc<Shared>,
    status: Arc<Mutex<ChannelStatus>>,
    bucket: Bucket,
    /// When the pause after a failure began and ends.
    pause: Option<(i64, i64)>,
}

/// A row and what it says.
struct Item {
    row: NoticeRow,
    notice: Notice,
}

/// What is to be done next.
enum Next {
    /// One message that tells these.
    Send(Vec<Item>),
    /// Nothing before that time.
    Wait(Option<i64>),
}

impl Lane {
    /// A lane; the error is a template that cannot be used.
    pub(super) fn new(
        config: ChannelConfig,
        channel: Box<dyn Channel>,
        shared: Arc<Shared>,
        now: i64,
    ) -> Result<Self, String> {
        let template = |key: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(Template::parse).transpose();
            parsed.map_err(|reason| format!("notify.{}.{key}: {reason}", config.name))
        };
        let (title, body) = (template("title", &config.title)?, template("body", &config.body)?);
        let bucket = Bucket::new(config.per_minute, now);
        Ok(Self { channel, title, body, shared, status: Arc::default(), bucket, pause: None, config })
    }

    /// How it fares, for whoever shows it.
    pub(super) fn status(&self) -> Arc<Mutex<ChannelStatus>> {
        Arc::clone(&self.status)
    }

    /// Sends what is due. Returns when it wants to be called again, in milliseconds since 1970; None: when it is rung.
    pub(super) fn work(&mut self, clock: &dyn Fn() -> i64, cancel: &Cancel) -> Option<i64> {
        loop {
            if cancel.is_set() {
                return None;
            }
            let tend_at = self.channel.tend(clock(), cancel);
            let next = self.next(clock()).unwrap_or_else(|error| {
                log::error!("notify {}: read what waits: {error}", self.config.name);
                Next::Wait(Some(clock() + 60_000))
            });
            let result = match next {
                Next::Wait(wake) => return [wake, tend_at].into_iter().flatten().min(),
                Next::Send(items) => self.send(items, clock, cancel),
            };
            if let Err(error) = result {
                // What was delivered would be delivered again and again: rather wait for the disk.
                log::error!("notify {}: record what became of a notice: {error}", self.config.name);
                return Some(clock() + 60_000);
            }
        }
    }

    /// Tries the channel out, whatever waits.
    pub(super) fn test(&mut self, notice: &Notice, now: i64, cancel: &Cancel) -> Result<(), String> {
        let result = self.channel.send(&self.message(notice), cancel);
        self.note(&result, now, 0);
        result.map_err(|error| error.text().to_owned())
    }

    pub(super) fn close(&mut self) {
        self.channel.close();
    }

    fn next(&mut self, now: i64) -> Result<Next, StoreError> {
        if let Some((since, until)) = self.pause {
            if (since..until).contains(&now) {
                return Ok(Next::Wait(Some(until)));
            }
            self.pause = None;
        }
        let rows = self.shared.queue.due(&self.config.name, now, limits::NOTICES_BATCH)?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            match serde_json::from_str(&row.body).ok().as_ref().and_then(Notice::from_value) {
                Some(notice) => items.push(Item { row, notice }),
                None => self.fail(&[row.id], "its row cannot be read")?,
            }
        }
        self.drop_stale(&mut items, now)?;
        self.drop_settled(&mut items)?;
        self.hold_quiet(&mut items, now)?;
        if items.is_empty() {
            return Ok(Next::Wait(self.shared.queue.next_at(&self.config.name)?));
        }
        // What quiet hours held goes together, and first.
        let (held, mut items): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| item.row.state == "held");
        match self.bucket.available(now) {
            0 => Ok(Next::Wait(Some(self.bucket.ready_at(now)))),
            _ if !held.is_empty() => Ok(Next::Send(held)),
            1 => Ok(Next::Send(items)),
            _ => {
                items.truncate(1);
                Ok(Next::Send(items))
            }
        }
    }

    /// Gives up what was tried for too long.
    fn drop_stale(&self, items: &mut Vec<Item>, now: i64) -> Result<(), StoreError> {
        let age_max = millis(limits::NOTICE_AGE_MAX);
        for item in items.extract_if(.., |item| item.row.attempts > 0 && now - item.row.created_at > age_max) {
            self.fail(&[item.row.id], &format!("given up after a day: {}", item.row.error))?;
        }
        Ok(())
    }

    /// Removes what needs not be told: recoveries of what nobody was told of, alerts that are over before anybody was
    /// told, and escalations that somebody attended to.
    fn drop_settled(&self, items: &mut Vec<Item>) -> Result<(), StoreError> {
        let mut gone: Vec<i64> = Vec::new();
        for item in items.iter().filter(|item| item.row.attempts == 0) {
            match item.notice.kind {
                Kind::Recovered => {
                    let rows = self.shared.queue.of_keys(&self.config.name, &firing_keys(&item.notice.dedup))?;
                    let before: Vec<&NoticeRow> = rows.iter().filter(|row| row.id < item.row.id).collect();
                    if !before.iter().any(|row| row.state != "waiting" || row.attempts > 0) {
                        gone.push(item.row.id);
                        gone.extend(before.iter().map(|row| row.id));
                    }
                }
                Kind::Firing | Kind::Approval
                    if (self.config.escalate_after.is_some() || item.notice.kind == Kind::Approval)
                        && !self.shared.situation.is_unattended(&item.notice) =>
                {
                    gone.push(item.row.id);
                }
                _ => {}
            }
        }
        if !gone.is_empty() {
            self.shared.queue.delete(&gone)?;
            items.retain(|item| !gone.contains(&item.row.id));
        }
        Ok(())
    }

    /// Holds what must not be told in quiet hours.
    fn hold_quiet(&self, items: &mut Vec<Item>, now: i64) -> Result<(), StoreError> {
        let Some(quiet) = self.config.quiet else { return Ok(()) };
        let Some(until) = quiet_until(quiet, &self.shared.zone(), now) else { return Ok(()) };
        let passes = |item: &Item| item.notice.level == Level::Critical && !self.config.quiet_critical;
        let held: Vec<Item> = items.extract_if(.., |item| !passes(item)).collect();
        // Quiet hours may have been changed since a row was held.
        let is_marked = |item: &&Item| item.row.state == "held" && item.row.next_at == until;
        let fresh: Vec<i64> = held.iter().filter(|item| !is_marked(item)).map(|item| item.row.id).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        self.shared.queue.mark(&fresh, "held", until, "")
    }

    fn send(&mut self, mut items: Vec<Item>, clock: &dyn Fn() -> i64, cancel: &Cancel) -> Result<(), StoreError> {
        let now = clock();
        let result = if items.len() == 1 {
            self.channel.send(&self.message(&items[0].notice), cancel)
        } else {
            items.truncate(limits::NOTICES_BATCH);
            let notices: Vec<&Notice> = items.iter().map(|item| &item.notice).collect();
            self.channel.send(&self.message(&summary(&notices, now)), cancel)
        };
        let first = &items[0].row;
        if result != Err(SendError::Cancelled) {
            self.note(&result, clock(), first.attempts + 1);
        }
        let ids: Vec<i64> = items.iter().map(|item| item.row.id).collect();
        match result {
            Ok(()) => {
                self.bucket.take();
                self.delivered(&items)
            }
            Err(SendError::Cancelled) => Ok(()),
            Err(SendError::Refused(cause)) => self.fail(&ids, &cause),
            Err(SendError::Broken(cause)) if first.attempts + 1 >= limits::NOTICE_ERROR_ATTEMPTS_MAX => {
                self.fail(&ids[..1], &cause)
            }
            Err(SendError::Broken(cause) | SendError::Later { cause, .. }) => {
                let until = lock(&self.status).retry_at;
                self.pause = Some((clock(), until));
                self.shared.queue.mark(&ids[..1], &first.state, until, &cause)
            }
        }
    }

    /// Rows of what was told leave, but for alerts whose end is to be told.
    fn delivered(&self, items: &[Item]) -> Result<(), StoreError> {
        let queue = &self.shared.queue;
        let is_open = |item: &Item| {
            let is_over =
                |other: &Item| other.notice.kind == Kind::Recovered && other.notice.dedup == item.notice.dedup;
            item.notice.kind == Kind::Firing && self.config.recoveries && !items.iter().any(is_over)
        };
        let (open, over): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| is_open(item));
        let mut gone: Vec<i64> = over.iter().map(|item| item.row.id).collect();
        for item in over.iter().filter(|item| item.notice.kind == Kind::Recovered) {
            let told = queue.of_keys(&self.config.name, &firing_keys(&item.notice.dedup))?;
            gone.extend(told.iter().filter(|row| row.id < item.row.id).map(|row| row.id));
        }
        if !gone.is_empty() {
            queue.delete(&gone)?;
        }
        let open: Vec<i64> = open.iter().map(|item| item.row.id).collect();
        if open.is_empty() { Ok(()) } else { queue.told(&open) }
    }

    fn fail(&self, ids: &[i64], cause: &str) -> Result<(), StoreError> {
        log::warn!("notify {}: {} given up: {cause}", self.config.name, ids.len());
        self.shared.queue.mark(ids, "failed", 0, cause)
    }

    /// Records how an attempt ended; a failed one says when the next may be made. The first of a row of failures is
    /// logged, and the end of them.
    fn note(&self, result: &Result<(), SendError>, now: i64, attempt: u32) {
        let name = &self.config.name;
        let mut status = lock(&self.status);
        match result {
            Ok(()) => {
                let failures = std::mem::take(&mut status.failures);
                status.sent_at = now;
                status.error.clear();
                status.retry_at = 0;
                drop(status);
                if failures > 0 {
                    log::info!("notify {name}: works again after {failures} failed attempts");
                }
            }
            Err(error) => {
                let asked = if let SendError::Later { after, .. } = error { *after } else { None };
                let wait = backoff(attempt).max(asked.unwrap_or_default());
                error.text().clone_into(&mut status.error);
                status.failures = status.failures.saturating_add(1);
                status.retry_at = now + millis(wait);
                let is_first = status.failures == 1;
                drop(status);
                if is_first {
                    log::warn!("notify {name}: {}", error.text());
                }
            }
        }
    }

    fn message<'a>(&self, notice: &'a Notice) -> Message<'a> {
        let link = match (notice.link.as_str(), &self.shared.base_url()) {
            ("", Some(base)) => format!("{base}/"),
            (path, Some(base)) if path.starts_with('/') => format!("{base}{path}"),
            (path, None) if path.starts_with('/') => String::new(),
            (link, _) => link.to_owned(),
        };
        let time = local_time(notice.time, &self.shared);
        let facts = Facts { time: &time, link: &link };
        // A summary is no alert: the templates would be empty of facts.
        let fill = |template: &Option<Template>| {
            template.as_ref().filter(|_| notice.kind != Kind::Summary).map(|template| template.fill(notice, &facts))
        };
        let title = fill(&self.title).unwrap_or_else(|| notice.shown_title());
        let body = fill(&self.body).unwrap_or_else(|| notice.body.clone());
        let buttons = match (&self.shared.buttons, &self.shared.base_url(), notice.approval_id()) {
            (Some(buttons), Some(base), Some(id)) if self.config.buttons => {
                buttons.of(base, &self.config.name, id).into()
            }
            _ => Vec::new(),
        };
        Message { notice, title, body, link, buttons }
    }
}

/// `2026-01-02 15:04:05 CET`.
fn local_time(at_ms: i64, shared: &Shared) -> String {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(shared.zone());
    at.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// 1 s, 2 s, 4 s, ... [`limits::NOTICE_BACKOFF_MAX`].
fn backoff(attempt: u32) -> Duration {
    Duration::from_secs(1 << attempt.saturating_sub(1).min(20)).min(limits::NOTICE_BACKOFF_MAX)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
