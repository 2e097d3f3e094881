//! Processor, memory, heat: what is short, and who takes it.

use serde_json::Value;

use crate::llm::local::diagnosis::cause::{Cause, Level, When};
use crate::llm::local::diagnosis::facts::Facts;
use crate::llm::local::diagnosis::rules_disk::quote;
use crate::llm::local::numbers::{bytes, code, list, number, plain, text};

/// A process that takes this share of what is used is the cause; less is one of many. In percent.
const CULPRIT_PERCENT: f64 = 40.0;

/// Below this, time lost for lack of something is noise. In percent of the last minute.
const STALL_PERCENT: f64 = 1.0;

pub(super) fn find(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    processor(facts, causes);
    memory(facts, causes);
    killed(facts, causes);
    heat(facts, causes);
    power(facts, causes);
}

fn stall(facts: &Facts<'_>, of: &str) -> Option<f64> {
    number(facts.tool("host_pressure")?.get(of)?, "some_avg60")
}

fn processor(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let used = facts.number("host_cpu", "used_percent").unwrap_or(0.0);
    let cores = facts.number("host_cpu", "cores").unwrap_or(1.0).max(1.0);
    let per_core = facts.number("host_cpu", "load_per_core");
    let busy = facts.level("CPU use").unwrap_or(Level::Ok);
    let queued = facts.level("load per core over five minutes").unwrap_or(Level::Ok);
    let asked = facts.is_about(&["cpu"]);
    if let Some(level) = facts.level("CPU time taken by the hypervisor").filter(|level| *level > Level::Ok) {
        let stolen = facts.number("host_cpu", "steal_percent").unwrap_or(0.0);
        causes.push(
            Cause::new(level, "The hypervisor gives this machine too little time")
                .asked(asked)
                .by(35, format!("{} % of the processor time went to other guests", plain(stolen)))
                .act(When::Short, "Move guests to another host, or give this one more processors or a higher share.")
                .act(When::Medium, "Watch steal: it is the host that is too small, not this machine."),
        );
    }
    let level = busy.max(queued);
    if level == Level::Ok {
        return;
    }
    let iowait = facts.number("host_cpu", "iowait_percent").unwrap_or(0.0);
    let (title, culprit) = match culprit(facts.processes("cpu"), used * cores) {
        Some((name, share)) => {
            (format!("{} keeps the processors busy: {} % of one core", code(name), plain(share)), Some(name))
        }
        None if busy == Level::Ok => ("More work waits than the processors can do".to_owned(), None),
        None => (format!("Many programs together keep the processors busy: {} % used", plain(used)), None),
    };
    let mut cause = Cause::new(level, title).asked(asked);
    if busy > Level::Ok {
        cause.add(20, format!("the processors are used to {} %", plain(used)));
    } else {
        cause.but(15, format!("the processors are used to {} % only", plain(used)));
    }
    if let Some(per_core) = per_core {
        let said = format!("the load of five minutes is {per_core:.2} per core");
        if queued > Level::Ok {
            cause.add(20, said);
        } else if per_core < 0.7 {
            cause.but(15, format!("{said}: this began a moment ago"));
        } else {
            cause.add(5, said);
        }
    }
    if let Some(stalled) = stall(facts, "cpu").filter(|stalled| *stalled >= STALL_PERCENT) {
        cause.add(10, format!("some program waited for a processor in {} % of the last minute", plain(stalled)));
    }
    if busy == Level::Ok && iowait >= 20.0 {
        cause.but(20, format!("{} % of the time is spent waiting for disks: the load is made there", plain(iowait)));
    }
    for (at, process) in facts.processes("cpu").iter().take(3).enumerate() {
        // The title has named it.
        if at == 0 && culprit.is_some() {
            cause.score += 25;
            continue;
        }
        if let (Some(name), Some(share)) = (text(process, "name"), number(process, "cpu_percent").filter(|s| *s >= 5.0))
        {
            cause.add(0, format!("{}: {} % of one core", code(name), plain(share)));
        }
    }
    let who = culprit.map_or_else(|| "the programs at the top".to_owned(), code);
    causes.push(
        cause
            .soon(format!("Find out what keeps {who} at work, and whether that may wait; end or restart what hangs."))
            .act(
                When::Medium,
                "Bound it (CPUQuota in its unit, limits of its container), or give the machine more cores.",
            ),
    );
}

/// The process that takes most of what is used.
fn culprit(processes: &[Value], used: f64) -> Option<(&str, f64)> {
    let first = processes.first()?;
    let share = number(first, "cpu_percent")?;
    (used > 0.0 && share / used * 100.0 >= CULPRIT_PERCENT).then_some((text(first, "name")?, share))
}

fn memory(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let Some(memory) = facts.tool("host_memory") else { return };
    let used = number(memory, "used_percent").unwrap_or(0.0);
    let stalled = stall(facts, "memory").or_else(|| number(memory, "pressure_some_avg60_percent"));
    let swap = number(memory, "swap_used_percent").unwrap_or(0.0);
    let is_bad = |what: &str| facts.level(what).unwrap_or(Level::Ok) > Level::Ok;
    let judged = ["memory use", "swap use", "time lost for lack of memory"];
    let level = judged.iter().filter_map(|what| facts.level(what)).max().unwrap_or(Level::Ok);
    let (is_short, is_swapped) = (is_bad("memory use"), is_bad("swap use"));
    if level == Level::Ok {
        return;
    }
    let top = facts.processes("memory").first();
    let top =
        top.and_then(|top| Some((text(top, "name")?, number(top, "memory_bytes")?, number(top, "memory_percent")?)));
    let culprit = top.filter(|(_, _, share)| used > 0.0 && share / used * 100.0 >= CULPRIT_PERCENT);
    let title = match culprit {
        Some((name, size, share)) => format!("{} holds {}, {} % of the memory", code(name), bytes(size), plain(share)),
        None if !is_short && is_swapped => format!("Swap is {} % full though memory has room", plain(swap)),
        None => format!("Memory is short: {} % used, by many programs together", plain(used)),
    };
    let mut cause = Cause::new(level, title).asked(facts.is_about(&["mem"]));
    let left = bytes(number(memory, "available_bytes").unwrap_or(0.0));
    if is_short {
        cause.add(20, format!("{} % of the memory are used, {left} are left for programs", plain(used)));
    } else {
        cause.but(15, format!("{left} of memory are left for programs, {} % are used", plain(used)));
    }
    if is_swapped {
        cause.add(10, format!("swap is {} % full", plain(swap)));
    }
    match stalled {
        Some(stalled) if stalled >= STALL_PERCENT => {
            cause
                .add(20, format!("programs stood still for lack of memory in {} % of the last minute", plain(stalled)));
        }
        Some(stalled) => {
            cause.but(15, format!("no program waits for memory: {} % of the last minute", plain(stalled)));
        }
        None => {}
    }
    if let Some(kills) = number(memory, "oom_kills_since_boot").filter(|kills| *kills >= 1.0) {
        cause.add(10, format!("the kernel has killed {} programs for lack of memory since the boot", plain(kills)));
    }
    for process in facts.processes("memory").iter().take(3) {
        if let (Some(name), Some(size)) = (text(process, "name"), number(process, "memory_bytes")) {
            let is_culprit = culprit.is_some_and(|(known, ..)| known == name);
            let swapped = number(process, "swap_bytes").map(|size| format!(" and {} of swap", bytes(size)));
            let swapped = swapped.unwrap_or_default();
            cause.add(if is_culprit { 25 } else { 0 }, format!("{}: {}{swapped}", code(name), bytes(size)));
        }
    }
    let who = culprit.map_or_else(|| "the largest programs".to_owned(), |(name, ..)| code(name));
    causes.push(
        cause
            .soon(format!("Restart {who} before the kernel has to choose whom to kill."))
            .act(
                When::Short,
                format!("Watch whether {who} grows without end: then it leaks, and needs an update or a limit."),
            )
            .act(When::Medium, "Set MemoryMax for it, move something elsewhere, or add memory."),
    );
}

/// Kills for lack of memory that the kernel's log still knows.
fn killed(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let kills = facts.tool("host_kernel").map_or(&[][..], |value| list(value, "oom_kills"));
    let Some(last) = kills.last() else { return };
    let name = code(text(last, "process").unwrap_or("?"));
    let mut cause = Cause::new(Level::Warning, format!("The kernel killed {name} for lack of memory"))
        .asked(facts.is_about(&["mem", "journaltail", "uptime"]))
        .by(25, format!("{}× in the kernel's log, the last: {}", kills.len(), quote(text(last, "line").unwrap_or(""))));
    let again = kills.iter().filter(|kill| text(kill, "process") == text(last, "process")).count();
    if again > 1 {
        cause.add(15, format!("{name} was hit {again} times"));
    }
    match facts.number("host_memory", "used_percent") {
        Some(used) if used < 85.0 => cause.but(10, format!("memory has room now: {} % used", plain(used))),
        Some(used) => cause.add(10, format!("memory is still short: {} % used", plain(used))),
        None => {}
    }
    causes.push(
        cause
            .act(When::Short, format!("Check that {name} runs again and lost nothing."))
            .act(When::Medium, format!("Give {name} a limit (MemoryMax) or the machine more memory or swap.")),
    );
}

fn heat(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let Some((sensor, level, celsius)) = facts.bad("temperature of ").into_iter().next() else { return };
    let mut cause = Cause::new(level, format!("{} is hot: {} °C", code(sensor), plain(celsius)))
        .asked(facts.is_about(&["cpu"]))
        .by(15, format!("{} °C", plain(celsius)));
    let (now, most) = (facts.number("host_temperature", "cpu_mhz"), facts.number("host_temperature", "cpu_mhz_max"));
    let used = facts.number("host_cpu", "used_percent");
    if let (Some(now), Some(most)) = (now, most) {
        // An idle processor is slow on purpose.
        if now < most * 0.8 && used.is_some_and(|used| used >= 50.0) {
            cause.add(30, format!("the clock is down to {} of {} MHz under load", plain(now), plain(most)));
        } else if now >= most * 0.95 {
            cause.but(10, format!("the clock is at its full {} MHz", plain(most)));
        }
    }
    let lines = facts.log_lines(&["throttl", "temperature above threshold", "thermal shutdown"]);
    if let Some(line) = lines.last() {
        cause.add(20, format!("the kernel says so: {}", quote(line)));
    }
    if let Some(used) = used.filter(|used| *used >= 80.0) {
        cause.add(10, format!("the processors are used to {} %", plain(used)));
    }
    causes.push(
        cause
            .soon("Let air in: fan, dust, a cooler place; stop what loads the processors.")
            .act(When::Medium, "A heat sink or fan that copes with the load."),
    );
}

fn power(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let lines = facts.log_lines(&["under-voltage", "undervoltage"]);
    let Some(line) = lines.last() else { return };
    causes.push(
        Cause::new(Level::Warning, "The power supply is too weak")
            .asked(facts.is_about(&["uptime", "cpu", "journaltail"]))
            .by(30, format!("{}× in the log, the last: {}", lines.len(), quote(line)))
            .act(When::Short, "Use the supply and cable that the board's maker names; take hungry USB devices off."),
    );
}
