//! Several notices in one.

use std::collections::BTreeSet;

use super::notice::{Kind, Notice};
use crate::alert::Level;
use crate::limits;
use crate::rt::order::Order;

/// One notice that tells these, which are in order. What fired and recovered among them is told as recovered.
pub(super) fn summary(notices: &[&Notice], now: i64) -> Notice {
    let over: BTreeSet<&str> =
        notices.iter().filter(|notice| notice.kind == Kind::Recovered).map(|notice| notice.dedup.as_str()).collect();
    let is_told = |notice: &&&Notice| notice.kind != Kind::Firing || !over.contains(notice.dedup.as_str());
    let told: Vec<&Notice> = notices.iter().filter(is_told).copied().collect();
    let count = |kind: Kind, level: Option<Level>| {
        let is_counted = |notice: &&&Notice| notice.kind == kind && level.is_none_or(|level| notice.level == level);
        told.iter().filter(is_counted).count()
    };
    let mut parts = Vec::new();
    for (count, what) in [
        (count(Kind::Firing, Some(Level::Critical)), "critical"),
        (count(Kind::Firing, Some(Level::Warning)), "warning"),
        (count(Kind::Firing, Some(Level::Info)), "info"),
        (count(Kind::Recovered, None), "recovered"),
        (count(Kind::Approval, None), "to approve"),
        (count(Kind::Report, None), "of schedules"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    // The worst first; what is shown may be the beginning only.
    let mut lines: Vec<&&Notice> = told.iter().collect();
    lines.order_by_key(|notice| notice.level);
    let mut body = String::new();
    let shown = lines.len().min(limits::NOTICE_SUMMARY_LINES);
    for notice in &lines[..shown] {
        body.push_str(&notice.shown_title());
        body.push('\n');
    }
    if lines.len() > shown {
        body.extend(["and ", &(lines.len() - shown).to_string(), " more\n"]);
    }
    Notice {
        kind: Kind::Summary,
        level: told.iter().map(|notice| notice.level).min().unwrap_or(Level::Ok),
        title: format!("{} notices: {}", told.len(), parts.join(", ")),
        body,
        time: now,
        ..Notice::default()
    }
}
