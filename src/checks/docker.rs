//! `docker`: do containers run, are they healthy, do they restart, what do they use (contract agent-link 7.5, 8).
//!
//! `[checks.docker]`: `targets` (names or globs), `exclude` (globs), `socket` (a path or `http://host:port`; the usual
//! places by default), `timeout` (10s), `restart_window` (10m); `restart_detected` (3 / 5), `cpu_usage`, `memory_usage`
//! (off, percent of what the container may use).
//!
//! A target is a name, whose absence is critical, or a glob. Unlike the reference's, a glob also sees containers that
//! stopped; only one that has done its work (exit code 0, not to be restarted) is fine.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::alert::Level;
use crate::checks::docker_api::Endpoint;
use crate::checks::each::{Look, Seen, each, timeout};
use crate::checks::glob;
use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::settings::{SettingError, Settings};
use crate::checks::show;
use crate::diag::finding::{float, percent};
use crate::diag::redact::redact;
use crate::diag::report::{clean, clean_name};
use crate::rt::lock;
use crate::rt::order::{Order, gather};

const RUNNING: &str = "docker::container_running";
const RESTARTS: &str = "docker::restart_detected";
const HEALTH: &str = "docker::health_status";
const CPU: &str = "docker::cpu_usage";
const MEMORY: &str = "docker::memory_usage";

/// The target of what concerns the engine itself.
const ENGINE: &str = "docker-engine";

/// Containers of one instance (contract agent-link 7.5, 8).
const CONTAINERS_MAX: usize = 100;

/// Restarts that are remembered of one container: more than any threshold.
const RESTARTS_KEPT: usize = 64;

/// Where engines listen when nothing is said: Docker, and Podman as a service of the system.
const SOCKETS: [&str; 3] = ["/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"];

struct Docker {
    targets: Vec<String>,
    exclude: Vec<String>,
    endpoint: Option<Endpoint>,
    timeout: Duration,
    limits: Limited,
    past: Arc<Mutex<Past>>,
}

#[derive(Clone, Copy)]
struct Limited {
    window_s: i64,
    restarts: Limits,
    cpu: Limits,
    memory: Limits,
}

/// What one round leaves to the next. Guarded by its mutex, which is never held over a question to the engine.
#[derive(Default)]
struct Past {
    /// By name: when its count of restarts was what, oldest first. Lasts through a restart of the agent.
    restarts: BTreeMap<String, VecDeque<(i64, u64)>>,
    /// By id: processor time of the container and of the machine, in nanoseconds.
    cpu: BTreeMap<String, (u64, u64)>,
    /// Something that was measured could not be compared with anything yet.
    first: bool,
}

/// A container of the list.
#[derive(Debug)]
struct Container {
    id: String,
    name: String,
    /// Named exactly by a target.
    wanted: bool,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let targets = settings.some_texts("targets", "names of containers, or globs such as *")?;
    let exclude = settings.texts("exclude", &[])?;
    let endpoint = match settings.text("socket", "")?.as_str() {
        "" => None,
        text => Some(Endpoint::parse(text).map_err(|reason| settings.error("socket", format!("{text:?} {reason}")))?),
    };
    let timeout = timeout(settings, "timeout", Duration::from_secs(10))?;
    let window = settings.duration_from("restart_window", Duration::from_secs(600), Duration::from_secs(1))?;
    let limits = Limited {
        window_s: i64::try_from(window.as_secs()).unwrap_or(i64::MAX),
        restarts: settings.limits("restart_detected", Limits::above(Unit::Count, 3.0, 5.0))?,
        cpu: settings.limits("cpu_usage", Limits::above(Unit::Percent, 0.0, 0.0))?,
        memory: settings.limits("memory_usage", Limits::above(Unit::Percent, 0.0, 0.0))?,
    };
    Ok(vec![Box::new(Docker { targets, exclude, endpoint, timeout, limits, past: Arc::default() })])
}

impl Check for Docker {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let look = Look { deadline: Instant::now() + self.timeout, cancel: context.cancel, now_s: context.now_s() };
        let endpoint = self.endpoint.clone().unwrap_or_else(|| {
            let found = SOCKETS.into_iter().find(|socket| Path::new(socket).exists());
            Endpoint::Socket(found.unwrap_or(SOCKETS[0]).into())
        });
        let listed = endpoint.negotiate(&look).and_then(|version| {
            let answer = endpoint.get(&version, "/containers/json?all=1", &look)?;
            match answer.body.as_array() {
                Some(list) if answer.status == 200 => Ok((version, self.chosen(list))),
                _ => Err(format!("the engine does not list its containers: status {}", answer.status)),
            }
        });
        let (version, mut containers) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                // Whether a container runs is not known now: nothing has vanished.
                context.incomplete();
                if context.cancel.is_set() {
                    return Vec::new();
                }
                let hint = if error.contains("Permission denied") {
                    "; let the agent's user into the group docker"
                } else {
                    ""
                };
                return vec![Reading::failed(RUNNING, ENGINE, format!("the engine cannot be asked: {error}{hint}"))];
            }
        };
        let mut readings = vec![Reading::new(RUNNING, ENGINE, Level::Ok, "the engine answers")];
        for target in self.targets.iter().filter(|target| glob::is_exact(target)) {
            if !containers.iter().any(|container| container.name == *target) {
                readings.push(Reading::new(RUNNING, target, Level::Critical, "there is no container of this name"));
            }
        }
        if containers.len() > CONTAINERS_MAX {
            context.unavailable(format!("more than {CONTAINERS_MAX} containers match; the rest is not looked at"));
            // Those that are named come first.
            containers.order_by_key(|container| !container.wanted);
            containers.truncate(CONTAINERS_MAX);
        }
        self.forget(&containers);
        let (limits, past) = (self.limits, Arc::clone(&self.past));
        let ask = move |container: &Container, look: &Look<'_>| match readings_of(
            container, &endpoint, &version, &limits, &past, look,
        ) {
            Ok(readings) => Seen::Readings(readings),
            Err(_) if look.cancel.is_set() => Seen::Nothing,
            Err(error) => Seen::Readings(vec![Reading::failed(RUNNING, &container.name, error)]),
        };
        readings.extend(each(&containers.into(), self.timeout, context, ask));
        if std::mem::take(&mut lock(&self.past).first) {
            context.incomplete();
        }
        readings
    }

    fn needs_two_rounds(&self) -> bool {
        !self.limits.cpu.is_off()
    }

    fn save(&self) -> Option<Value> {
        Some(json!({"restarts": lock(&self.past).restarts}))
    }

    fn restore(&mut self, state: &Value) {
        let Some(kept) = state["restarts"].as_object() else { return };
        let pair = |pair: &Value| Some((pair[0].as_i64()?, pair[1].as_u64()?));
        let pairs =
            |list: &Value| list.as_array().map(|list| list.iter().take(RESTARTS_KEPT).filter_map(pair).collect());
        let restarts = kept.iter().take(CONTAINERS_MAX).filter_map(|(name, list)| Some((name.clone(), pairs(list)?)));
        lock(&self.past).restarts = gather(restarts);
    }
}

impl Docker {
    /// The containers that the targets mean.
    fn chosen(&self, list: &[Value]) -> Vec<Container> {
        let mut chosen = Vec::new();
        for entry in list {
            let Some(id) = entry["Id"].as_str().filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric())) else {
                continue;
            };
            // More than one name comes from old links, which have another slash in them.
            let names = entry["Names"].as_array().map_or(&[][..], Vec::as_slice);
            let names = names.iter().filter_map(|name| name.as_str().map(|name| name.trim_start_matches('/')));
            let Some(name) = names.filter(|name| !name.contains('/')).map(clean_name).next() else { continue };
            let wanted = self.targets.contains(&name);
            if wanted || (glob::any(&self.targets, &name) && !glob::any(&self.exclude, &name)) {
                chosen.push(Container { id: id.to_owned(), name, wanted });
            }
        }
        chosen.order_by(|one, other| one.name.cmp(&other.name));
        chosen
    }

    /// Drops the past of what is gone.
    fn forget(&self, containers: &[Container]) {
        let mut past = lock(&self.past);
        past.restarts.retain(|name, _| containers.iter().any(|container| container.name == *name));
        past.cpu.retain(|id, _| containers.iter().any(|container| container.id == *id));
    }
}

fn readings_of(
    container: &Container,
    endpoint: &Endpoint,
    version: &str,
    limits: &Limited,
    past: &Mutex<Past>,
    look: &Look<'_>,
) -> Result<Vec<Reading>, String> {
    let Container { id, name, .. } = container;
    let answer = endpoint.get(version, &format!("/containers/{id}/json"), look)?;
    if answer.status == 404 {
        // Removed since it was listed.
        return Ok(Vec::new());
    }
    let inspected = answer.body;
    if answer.status != 200 || !inspected["State"].is_object() {
        return Err(format!("the engine does not tell of the container: status {}", answer.status));
    }
    let mut readings = vec![state_of(container, &inspected)];
    let running = inspected["State"]["Running"].as_bool().unwrap_or(false);
    if running {
        readings.extend(health_of(name, &inspected));
    }
    if let Some(count) = inspected["RestartCount"].as_u64() {
        let grown = float(lock(past).restarted(name, count, look.now_s, limits.window_s));
        readings.extend(limits.restarts.reading(RESTARTS, name, "restarts", grown).map(|reading| {
            let window = show::seconds(float(u64::try_from(limits.window_s).unwrap_or(0)));
            reading.attr("window", window).attr("restart_count", count.to_string())
        }));
    }
    let paused = inspected["State"]["Paused"].as_bool().unwrap_or(false);
    if running && !paused && !(limits.cpu.is_off() && limits.memory.is_off()) {
        let path = format!("/containers/{id}/stats?stream=false&one-shot=true");
        let stats = endpoint.get(version, &path, look)?.body;
        readings.extend(usage_of(container, &inspected, &stats, limits, past));
    }
    Ok(readings)
}

/// Whether it runs.
fn state_of(container: &Container, inspected: &Value) -> Reading {
    let (state, host) = (&inspected["State"], &inspected["HostConfig"]);
    let status = state["Status"].as_str().map_or_else(|| "unknown".to_owned(), clean_name);
    let code = state["ExitCode"].as_i64().unwrap_or(0);
    let policy = host["RestartPolicy"]["Name"].as_str().unwrap_or("");
    let done = status == "exited" && code == 0 && matches!(policy, "" | "no" | "on-failure");
    let level = match status.as_str() {
        "running" => Level::Ok,
        "paused" | "restarting" => Level::Warning,
        // A job that ended well; one that is named has to run.
        _ if done && !container.wanted => Level::Ok,
        _ => Level::Critical,
    };
    let mut text = format!("the container is {status}");
    if !matches!(status.as_str(), "running" | "paused" | "created") {
        text = format!("{text}, exit code {code}");
    }
    if state["OOMKilled"].as_bool() == Some(true) {
        text.push_str(", out of memory");
    }
    let mut reading = Reading::new(RUNNING, &container.name, level, text).attr("state", status);
    for (name, value) in [
        ("image", &inspected["Config"]["Image"]),
        ("started_at", &state["StartedAt"]),
        ("finished_at", &state["FinishedAt"]),
    ] {
        // A time that is none begins with the year 1.
        if let Some(value) = value.as_str().filter(|value| !value.starts_with("0001-")) {
            reading = reading.attr(name, clean_name(value));
        }
    }
    reading
}

/// Only for containers with a health check.
fn health_of(name: &str, inspected: &Value) -> Option<Reading> {
    let health = &inspected["State"]["Health"];
    let status = health["Status"].as_str().filter(|status| !matches!(*status, "" | "none"))?;
    if status != "unhealthy" {
        return Some(Reading::new(HEALTH, name, Level::Ok, format!("the container is {}", clean_name(status))));
    }
    let last = health["Log"].as_array().and_then(|log| log.last()).and_then(|last| last["Output"].as_str());
    let said = last.map(|said| clean(&redact(said.trim()), 200)).filter(|said| !said.is_empty());
    let text = said.map_or_else(String::new, |said| format!("; its check says: {said}"));
    Some(Reading::new(HEALTH, name, Level::Critical, format!("the container is unhealthy{text}")))
}

/// Processor and memory, as a part of what it may use.
fn usage_of(
    container: &Container,
    inspected: &Value,
    stats: &Value,
    limits: &Limited,
    past: &Mutex<Past>,
) -> Vec<Reading> {
    let (host, name) = (&inspected["HostConfig"], &container.name);
    let mut readings = Vec::new();
    let cpu = &stats["cpu_stats"];
    let now = (cpu["cpu_usage"]["total_usage"].as_u64(), cpu["system_cpu_usage"].as_u64());
    if let (false, (Some(own), Some(system))) = (limits.cpu.is_off(), now) {
        let before = {
            let mut past = lock(past);
            let before = past.cpu.insert(container.id.clone(), (own, system));
            past.first |= before.is_none();
            before
        };
        let all = cpu["online_cpus"].as_u64().filter(|cpus| *cpus > 0);
        let all = all.or_else(|| u64::try_from(cpu["cpu_usage"]["percpu_usage"].as_array()?.len()).ok());
        let all = float(all.unwrap_or(1).max(1));
        let quota = match (host["NanoCpus"].as_f64(), host["CpuQuota"].as_f64(), host["CpuPeriod"].as_f64()) {
            (Some(nanos), ..) if nanos > 0.0 => nanos / 1e9,
            (_, Some(quota), period) if quota > 0.0 => quota / period.filter(|period| *period > 0.0).unwrap_or(1e5),
            _ => all,
        };
        // A container that was started again counts from zero.
        let used = before.and_then(|(own_before, system_before)| {
            let (own, system) = (own.checked_sub(own_before)?, system.checked_sub(system_before)?);
            (system > 0).then(|| float(own) / float(system) * all)
        });
        if let Some(used) = used {
            let reading = limits.cpu.reading(CPU, name, "processor use", 100.0 * used / quota);
            readings
                .extend(reading.map(|r| r.attr("cpus_used", format!("{used:.2}")).attr("cpus", format!("{quota:.2}"))));
        }
    }
    let memory = &stats["memory_stats"];
    let limit = host["Memory"].as_u64().filter(|limit| *limit > 0);
    if let (Some(limit), Some(usage)) = (limit, memory["usage"].as_u64()) {
        // Version 2 of control groups, else version 1.
        let cache = ["inactive_file", "total_inactive_file"].into_iter().find_map(|key| memory["stats"][key].as_u64());
        let used = usage.saturating_sub(cache.unwrap_or(0));
        let reading = limits.memory.reading(MEMORY, name, "memory use", percent(used, limit));
        readings.extend(reading.map(|r| r.attr("used", show::bytes(used)).attr("limit", show::bytes(limit))));
    }
    readings
}

impl Past {
    /// By how much the count of restarts grew within the window.
    fn restarted(&mut self, name: &str, count: u64, now_s: i64, window_s: i64) -> u64 {
        let known = self.restarts.entry(name.to_owned()).or_default();
        // A new container of the same name begins anew, and a clock that was set back too.
        if known.back().is_some_and(|(at, last)| *last > count || *at > now_s) {
            known.clear();
        }
        if known.back().is_none_or(|(_, last)| *last != count) {
            known.push_back((now_s, count));
        }
        // The last entry from before the window tells what the count was when the window began.
        while known.len() > RESTARTS_KEPT || known.get(1).is_some_and(|(at, _)| *at <= now_s - window_s) {
            known.pop_front();
        }
        count - known.front().map_or(count, |(_, first)| *first)
    }
}
