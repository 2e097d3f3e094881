//! `GET /metrics`: figures for monitoring (contract 3.7), and how requests are counted: without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::error::ApiError;
use crate::api::message::{Reply, response};
use crate::api::routes::{Call, ROUTES, Route};
use crate::api::server::Ctx;
use crate::metrics::{self, BUCKETS, Page};
use crate::store::figures;

/// Rows of the table of routes that can be told apart; a test keeps the table below it.
const ROWS_MAX: usize = 192;

/// Requests by row of the table and by class of their status; what is no route stands in the last row.
static REQUESTS: [[AtomicU64; 5]; ROWS_MAX] = [const { [const { AtomicU64::new(0) }; 5] }; ROWS_MAX];
static SECONDS: [AtomicU64; BUCKETS] = [const { AtomicU64::new(0) }; BUCKETS];
static MICROS: AtomicU64 = AtomicU64::new(0);

/// Counts a request that was answered.
pub(super) fn count(route: Option<&'static Route>, status: u16) {
    // They stand in one table, so the place of a row says which it is.
    let place = |route: &'static Route| std::ptr::from_ref(route).addr().wrapping_sub(ROUTES.as_ptr().addr());
    let row = route.map(|route| place(route) / size_of::<Route>());
    let class = usize::from(status / 100).clamp(1, 5) - 1;
    REQUESTS[row.unwrap_or(ROWS_MAX - 1).min(ROWS_MAX - 1)][class].fetch_add(1, Ordering::Relaxed);
}

/// Counts how long a worker was busy with a request.
pub(super) fn observe(took: Duration) {
    SECONDS[metrics::bucket(took.as_secs_f64())].fetch_add(1, Ordering::Relaxed);
    MICROS.fetch_add(u64::try_from(took.as_micros()).unwrap_or(0), Ordering::Relaxed);
}

/// How many requests workers were busy with.
pub fn answered() -> u64 {
    SECONDS.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

/// All figures; 404 unless they are switched on, like any path that is not there.
pub(super) fn page(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    if !ctx.deps.settings.current().metrics {
        return Err(ApiError::not_found("no such path; [otel] enabled switches it on"));
    }
    let mut page = Page::default();
    page.family("holt_info", "gauge", "The version");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    metrics::render(&mut page);
    requests(&mut page);
    page.family("holt_turns", "gauge", "Turns that are not over");
    for (state, count) in ["running", "queued", "parked"].into_iter().zip(ctx.deps.engine.turn_counts()) {
        page.sample(&[("state", state)], float(count as u64));
    }
    stored(ctx, &mut page)?;
    let commits = ctx.deps.engine.streams().commits.load(Ordering::Relaxed);
    page.single("holt_event_log_commits_total", "counter", "Commits of the event log", float(commits));
    if let Some(fleet) = &ctx.deps.fleet {
        page.single("holt_machines_online", "gauge", "Machines that are connected", float(fleet.connected() as u64));
    }
    let streams = ctx.sse_open.load(Ordering::Relaxed) as u64;
    page.single("holt_event_streams_open", "gauge", "Event streams that are open", float(streams));
    if let Some(process) = metrics::process() {
        page.single("process_resident_memory_bytes", "gauge", "Memory in use", float(process.resident_bytes));
        page.single("process_cpu_seconds_total", "counter", "Processor time", process.cpu_seconds);
        page.single("process_open_fds", "gauge", "Open descriptors", float(process.descriptors));
        page.single("holt_sockets_open", "gauge", "Open sockets", float(process.sockets));
        page.single("process_threads", "gauge", "Threads", float(process.threads));
    }
    Ok(Reply::Full(response(200, "text/plain; version=0.0.4; charset=utf-8", page.finish().into_bytes())))
}

fn requests(page: &mut Page) {
    page.family("holt_http_requests_total", "counter", "Requests by route and class of the status");
    for (row, classes) in REQUESTS.iter().enumerate() {
        let (method, pattern) = ROUTES.get(row).map_or(("", ""), |route| (route.method, route.pattern));
        for (class, count) in classes.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let class = ["1xx", "2xx", "3xx", "4xx", "5xx"][class];
                page.sample(&[("method", method), ("route", pattern), ("status", class)], float(count));
            }
        }
    }
    page.family("holt_http_request_duration_seconds", "histogram", "How long workers were busy with requests");
    let counts: Vec<u64> = SECONDS.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    page.histogram(&[], &counts, float(MICROS.load(Ordering::Relaxed)) / 1e6);
}

/// What the database knows.
fn stored(ctx: &Ctx, page: &mut Page) -> Result<(), ApiError> {
    let db = &ctx.deps.db;
    for (name, help, label, counts, known) in [
        ("holt_approvals", "Requests for approval that wait", "status", figures::approvals(db)?, &["pending"][..]),
        ("holt_alerts_open", "Open alerts", "level", figures::alerts(db)?, &["Critical", "Warning", "Info"]),
        ("holt_machines", "Machines", "state", figures::machines(db)?, &["approved", "pending", "revoked"]),
    ] {
        page.family(name, "gauge", help);
        for state in known {
            let count = counts.iter().find(|(name, _)| name == state).map_or(0, |(_, count)| *count);
            page.sample(&[(label, state)], float(u64::try_from(count).unwrap_or(0)));
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures beyond 2^53 do not come")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_routes_fits() {
        assert!(ROUTES.len() < ROWS_MAX);
    }
}
