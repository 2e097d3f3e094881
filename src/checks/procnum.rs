//! `procnum`: how many processes of a kind there are (contract agent-link 7.5, runner-up semantics).
//!
//! `[checks.procnum]`: `search` (part of the name or of the command line) and `user` (name or number), one of them
//! needed; `process_count` (below 1 is critical), `process_count_max` (off). Zombies do not count. Command lines are
//! looked at, never shown.

use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::process_table::{detail, processes};

struct ProcNum {
    search: String,
    user: String,
    few: Limits,
    many: Limits,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let procnum = ProcNum {
        search: settings.text("search", "")?,
        user: settings.text("user", "")?,
        few: settings.limits("process_count", Limits { margin: Some(0.0), ..Limits::below(Unit::Count, 0.0, 1.0) })?,
        many: settings.limits("process_count_max", Limits::above(Unit::Count, 0.0, 0.0))?,
    };
    if procnum.search.is_empty() && procnum.user.is_empty() {
        return Err(settings.error("search", "is needed: a part of the name or command line, like \"sshd\""));
    }
    Ok(vec![Box::new(procnum)])
}

impl Check for ProcNum {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        const FEW: &str = "procnum::process_count";
        let target = self.target();
        let all = processes(context.root);
        if all.is_empty() {
            return vec![Reading::failed(FEW, &target, "cannot read the processes of /proc")];
        }
        let user = match self.user_id(context) {
            Ok(user) => user,
            Err(text) => return vec![Reading::failed(FEW, &target, text)],
        };
        let own = std::process::id();
        let found = all.values().filter(|process| {
            let running = process.state != 'Z' && (process.pid != own || !context.root.is_system());
            running
                && (process.comm.contains(&self.search) || self.in_command_line(process.pid, context))
                && user.is_none_or(|user| detail(context.root, process.pid).user_id == Some(user))
        });
        let count = u32::try_from(found.count()).unwrap_or(u32::MAX);
        let few = self.few.reading(FEW, &target, "processes", f64::from(count));
        let many = self.many.reading("procnum::process_count_max", &target, "processes", f64::from(count));
        few.into_iter().chain(many).map(|reading| reading.attr("process_count", count.to_string())).collect()
    }
}

impl ProcNum {
    fn target(&self) -> String {
        match (self.search.as_str(), self.user.as_str()) {
            (search, "") => search.to_owned(),
            ("", user) => format!("user {user}"),
            (search, user) => format!("{search} (user {user})"),
        }
    }

    fn in_command_line(&self, pid: u32, context: &Gather<'_>) -> bool {
        let text = context.root.proc_text(&format!("{pid}/cmdline"));
        text.is_some_and(|text| text.replace('\0', " ").contains(&self.search))
    }

    /// The number of the user; none when any will do.
    fn user_id(&self, context: &Gather<'_>) -> Result<Option<u32>, String> {
        if self.user.is_empty() {
            return Ok(None);
        }
        if let Ok(id) = self.user.parse() {
            return Ok(Some(id));
        }
        let table = context.root.etc_text("passwd").unwrap_or_default();
        let found = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let id = found.filter(|columns| columns[0] == self.user).find_map(|columns| columns.get(2)?.parse().ok());
        id.map(Some).ok_or_else(|| format!("there is no user {} on this machine", self.user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Level;
    use crate::checks::testing::Bench;
    use serde_json::{Value, json};

    fn process(bench: &Bench, pid: u32, comm: &str, state: char, user: u32, command: &str) {
        let stat = format!("{pid} ({comm}) {state} 1 1 1 0 -1 4194304 99 0 0 0 70 30 0 0 20 0 4 0 5000 3133440 390 0");
        bench.write(&format!("proc/{pid}/stat"), &stat);
        bench.write(&format!("proc/{pid}/status"), &format!("Name:\t{comm}\nUid:\t{user}\t{user}\t{user}\t{user}\n"));
        bench.write(&format!("proc/{pid}/cmdline"), command);
    }

    fn look(bench: &Bench, settings: &Value) -> Vec<(String, Level, String)> {
        let readings = bench.gather(&mut bench.build(build, settings));
        readings.into_iter().map(|r| (r.target.clone(), r.level, r.attr_of("process_count").to_owned())).collect()
    }

    #[test]
    fn processes_are_counted_by_name_command_and_user() {
        let bench = Bench::new();
        bench.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nodd\nana:x:1000:1000::/home/ana:/bin/sh\n");
        process(&bench, 10, "sshd", 'S', 0, "/usr/sbin/sshd\0-D\0");
        process(&bench, 11, "sshd", 'Z', 0, "");
        process(&bench, 12, "python3", 'S', 1000, "python3\0/opt/app/serve.py\0--port\080\0");
        process(&bench, 13, "python3", 'R', 1000, "python3\0x\0");
        let check = |settings: Value, target: &str, level: Level, count: &str| {
            assert_eq!(look(&bench, &settings)[0], (target.to_owned(), level, count.to_owned()));
        };
        check(json!({"search": "sshd"}), "sshd", Level::Ok, "1");
        check(json!({"search": "nginx"}), "nginx", Level::Critical, "0");
        check(json!({"search": "app/serve.py --port"}), "app/serve.py --port", Level::Ok, "1");
        check(json!({"search": "python", "user": "ana"}), "python (user ana)", Level::Ok, "2");
        check(json!({"search": "python", "user": "0"}), "python (user 0)", Level::Critical, "0");
        check(json!({"user": "1000"}), "user 1000", Level::Ok, "2");
        check(json!({"user": "bob"}), "user bob", Level::Critical, "");
        let many =
            json!({"search": "python", "process_count": false, "process_count_max": {"warn_ge": 2, "critical_ge": 9}});
        check(many, "python", Level::Warning, "2");
        check(
            json!({"search": "python", "process_count": {"warn_lt": 3, "critical_lt": 2}}),
            "python",
            Level::Warning,
            "2",
        );
    }

    #[test]
    fn odd_machines_are_survived() {
        let bench = Bench::new();
        assert_eq!(look(&bench, &json!({"search": "x"})), [("x".to_owned(), Level::Critical, String::new())]);
        bench.write("proc/7/stat", "garbage");
        bench.write("proc/8/stat", "8 (\0) S");
        assert_eq!(look(&bench, &json!({"search": "x"}))[0].1, Level::Critical);
        assert_eq!(bench.refused(build, &json!({})), "checks.x.search");
    }
}
