//! `holt service ...`: the hub or the agent as a service of systemd.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::output::{self, out};
use super::{CliError, Context};
use crate::moving::service::{JOURNAL_GROUP, Service, Wish};

/// Where the binary is put when it runs from a directory that the service's user cannot be expected to see.
const BINARY: &str = "/usr/local/bin/holt";
/// In packages.
const PACKAGED: &str = "/usr/bin/holt";
/// A system that was started by systemd.
const SYSTEMD: &str = "/run/systemd/system";

const AGENT: Arg = Arg::flag("agent", "The agent instead of the hub");
const USER: Arg = Arg::flag("user", "A service of yours alone, without root");
const ROOT: Arg = Arg::option("root", "DIR", "Files below DIR only, as for a package; nothing is started").path();

pub(super) const COMMAND: Command =
    Command::group("service", "Run the hub or the agent as a service of systemd", &[INSTALL, STATUS, UNINSTALL]);

const INSTALL: Command = Command {
    name: "install",
    about: "Install and start the service, or bring it up to date",
    details: "Install and start the service, or bring it up to date: the unit, a user of its own without rights, and this \
              binary in /usr/local/bin unless it is installed already. The data lies in /var/lib/holt (agent: \
              /var/lib/holt-agent) and is kept. A binary older than the data is refused. Needs root, unless --user.",
    examples: &[
        "sudo ./holt service install",
        "sudo ./holt service install --agent --hub https://hub.example.net --join hj_..._...",
        "holt service install --user",
        "holt service install --print",
    ],
    args: &[
        AGENT,
        USER,
        ROOT,
        Arg::flag("print", "Print the unit and change nothing"),
        Arg::option("hub", "URL", "Address of the hub, for an agent"),
        Arg::option("join", "CODE", "Join code for the agent's first start"),
    ],
    action: Action::Run(install),
};

const STATUS: Command = Command {
    name: "status",
    about: "Show whether the service is installed and runs",
    details: "Show whether the service is installed and runs. Ends with 0 when it runs, else with 1.",
    examples: &["holt service status", "holt service status --agent"],
    args: &[AGENT, USER, ROOT],
    action: Action::Run(status),
};

const UNINSTALL: Command = Command {
    name: "uninstall",
    about: "Stop and remove the service; the data stays",
    details: "Stop and remove the service. The data stays, unless --purge is given and confirmed; the binary stays too.",
    examples: &["sudo holt service uninstall", "sudo holt service uninstall --purge --yes"],
    args: &[
        AGENT,
        USER,
        ROOT,
        Arg::flag("purge", "Delete the data too: databases, keys, everything"),
        Arg::flag("yes", "Do not ask").short('y'),
    ],
    action: Action::Run(uninstall),
};

fn service(args: &Args, context: &Context, hub: Option<String>) -> Result<Service, CliError> {
    let (agent, user, root) = (args.flag("agent"), args.flag("user"), args.path("root"));
    let running = running()?;
    let home = context.env.get("HOME").map(PathBuf::from);
    let config_home = context.env.get("XDG_CONFIG_HOME").map(PathBuf::from).or(home.map(|home| home.join(".config")));
    let missing = || CliError::failed("HOME is not set; a service of a user needs it");
    let mut user_data_dir = PathBuf::new();
    if user {
        user_data_dir = crate::config::own_place(&context.flags, &context.env).map_err(CliError::failed)?.0;
    }
    let installed = running.starts_with("/usr") || running.starts_with("/opt");
    let binary = match (user || installed, &root) {
        (_, Some(_)) => PathBuf::from(PACKAGED),
        (true, None) => running,
        (false, None) => PathBuf::from(BINARY),
    };
    let config_home = if user { config_home.ok_or_else(missing)? } else { PathBuf::new() };
    Ok(Service::new(Wish { agent, user, root, binary, config_home, user_data_dir, hub }))
}

fn running() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|error| CliError::Failed(format!("find this program's file: {error}")))
}

fn install(args: &Args, context: &Context) -> Result<(), CliError> {
    let user = args.flag("user");
    let given = |name: &str| args.value(name).map(str::to_owned);
    let (hub, code) = (given("hub"), given("join"));
    if (hub.is_some() || code.is_some()) && !args.flag("agent") {
        return Err(CliError::Misused("--hub and --join are for agents; add --agent".to_owned()));
    }
    if let Some(line) = [&hub, &code].into_iter().flatten().find(|text| text.chars().any(char::is_control)) {
        return Err(CliError::Misused(format!("{line:?} must be one line")));
    }
    if code.is_some() && user {
        let hint = "join first: holt agent --hub URL --join CODE; then install without --join";
        return Err(CliError::Misused(hint.to_owned()));
    }
    let service = service(args, context, hub)?;
    if args.flag("print") {
        return out!("{}", service.unit().trim_end());
    }
    let here = !service.is_elsewhere();
    if here && !user && !rustix::process::geteuid().is_root() {
        return Err(CliError::failed("needs root; run it with sudo, or give --user for a service of yours alone"));
    }
    service.refuse_downgrade().map_err(CliError::failed)?;
    if here && !user {
        make_user(service.name, &service.data_dir())?;
    }
    if !user && service.place_binary(&running()?).map_err(CliError::failed)? {
        out!("{}", service.binary.display())?;
    }
    for path in service.write(code.as_deref()).map_err(CliError::failed)? {
        out!("{}", path.display())?;
    }
    if !here {
        return Ok(());
    }
    if !Path::new(SYSTEMD).exists() {
        output::note("systemd does not run here: the service begins with the next start of a system that it runs on");
        return Ok(());
    }
    systemctl(user, &["daemon-reload"])?;
    systemctl(user, &["enable", service.name])?;
    systemctl(user, &["restart", service.name])?;
    out!("{} runs. Its log: journalctl {}-u {}", service.name, if user { "--user " } else { "" }, service.name)
}

fn status(args: &Args, context: &Context) -> Result<(), CliError> {
    let user = args.flag("user");
    let service = service(args, context, None)?;
    let unit = service.unit_path();
    if !unit.exists() {
        out!("not installed ({} is not there)", unit.display())?;
        return Err(CliError::Code(super::EXIT_FAILURE));
    }
    out!("unit:    {}", unit.display())?;
    out!("data:    {}", service.data_dir().display())?;
    if service.is_elsewhere() || !Path::new(SYSTEMD).exists() {
        out!("state:   unknown (systemd does not run here)")?;
        return Err(CliError::Code(super::EXIT_FAILURE));
    }
    let ask = |word: &str| {
        let output = process(user).args([word, service.name]).stderr(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let (active, enabled) = (ask("is-active"), ask("is-enabled"));
    out!("state:   {active}, {enabled}")?;
    if active == "active" { Ok(()) } else { Err(CliError::Code(super::EXIT_FAILURE)) }
}

fn uninstall(args: &Args, context: &Context) -> Result<(), CliError> {
    let (user, purge, yes) = (args.flag("user"), args.flag("purge"), args.flag("yes"));
    let service = service(args, context, None)?;
    let here = !service.is_elsewhere();
    if here && !user && !rustix::process::geteuid().is_root() {
        return Err(CliError::failed("needs root; run it with sudo, or give --user for a service of yours alone"));
    }
    let data = service.data_dir();
    if purge && !yes && data.exists() {
        let question = format!("Delete {} with everything in it?", data.display());
        if output::confirm(&question)? != Some(true) {
            return Err(CliError::failed("nothing was removed"));
        }
    }
    if here && Path::new(SYSTEMD).exists() && service.unit_path().exists() {
        systemctl(user, &["disable", "--now", service.name])?;
    }
    let removed = service.remove(purge).map_err(CliError::failed)?;
    if here && Path::new(SYSTEMD).exists() {
        systemctl(user, &["daemon-reload"])?;
    }
    for path in &removed {
        out!("removed {}", path.display())?;
    }
    if !purge && data.exists() {
        out!("The data stays in {}", data.display())?;
    }
    Ok(())
}

/// A user without a password, a home or a shell, who may read the journal where there is one; fine when there is one.
fn make_user(name: &str, home: &Path) -> Result<(), CliError> {
    let line_of = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().find(|line| line.split(':').next() == Some(name)).map(str::to_owned)
    };
    if line_of("/etc/passwd", name).is_none() {
        let mut process = Process::new("useradd");
        process.args(["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", "--home-dir"]);
        process.arg(home).arg(name);
        succeed(&mut process, "useradd")?;
    }
    let is_member = |line: &str| line.rsplit(':').next().is_some_and(|users| users.split(',').any(|user| user == name));
    match line_of("/etc/group", JOURNAL_GROUP) {
        Some(line) if !is_member(&line) => {
            succeed(Process::new("usermod").args(["--append", "--groups", JOURNAL_GROUP, name]), "usermod")
        }
        _ => Ok(()),
    }
}

fn process(user: bool) -> Process {
    let mut process = Process::new("systemctl");
    process.args(user.then_some("--user")).stdin(Stdio::null());
    process
}

fn systemctl(user: bool, words: &[&str]) -> Result<(), CliError> {
    succeed(process(user).args(words), &format!("systemctl {}", words.join(" ")))
}

fn succeed(process: &mut Process, shown: &str) -> Result<(), CliError> {
    match process.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::Failed(format!("{shown} failed ({status})"))),
        Err(error) => Err(CliError::Failed(format!("{shown}: {error}"))),
    }
}
