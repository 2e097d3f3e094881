//! Which words are understood, and what is said of the others.

use super::*;
use crate::cli::HOLT;

fn ask(words: &str) -> Result<Asked, CliError> {
    parse(&HOLT, words.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect())
}

fn args(words: &str) -> Args {
    match ask(words) {
        Ok(Asked::Run(_, args)) => args,
        Ok(Asked::Tell(text) | Asked::Incomplete(text, _)) => panic!("{words}: {text}"),
        Err(error) => panic!("{words}: {error:?}"),
    }
}

/// The words behind `holt` in a line for a shell: up to a pipe, without variables before.
fn ours(line: &str) -> Vec<OsString> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match c {
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c if quote == Some(c) => quote = None,
            ' ' if quote.is_none() => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    let mut parts = words.split(|word| word == "|" || word == ">");
    let ours = parts.find_map(|part| {
        let at = part.iter().position(|word| !word.contains('=') && word != "sudo")?;
        ["holt", "./holt"].contains(&part[at].as_str()).then(|| part[at + 1..].to_vec())
    });
    ours.unwrap().into_iter().map(OsString::from).collect()
}

/// All commands with the words that lead to them, groups included.
fn walk(visit: &mut dyn FnMut(&[&'static Command])) {
    fn below(path: &mut Vec<&'static Command>, visit: &mut dyn FnMut(&[&'static Command])) {
        visit(path);
        if let Action::Group(commands) = path[path.len() - 1].action {
            for command in commands {
                path.push(command);
                below(path, visit);
                path.pop();
            }
        }
    }
    below(&mut vec![&HOLT], visit);
}

#[test]
fn the_definition_holds() {
    walk(&mut |path| {
        let command = path[path.len() - 1];
        let title = help::title(path);
        let global = if path.len() > 1 { HOLT.args } else { &[] };
        let all: Vec<&Arg> = command.args.iter().chain(global).collect();
        let mut names = vec!["help", "version"];
        let mut letters = vec!['h', 'V'];
        for arg in all {
            assert!(!names.contains(&arg.name), "{title}: {} twice", arg.name);
            names.push(arg.name);
            if let Some(letter) = arg.short {
                assert!(!letters.contains(&letter), "{title}: -{letter} twice");
                letters.push(letter);
            }
            assert!(arg.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{title}: {}", arg.name);
            assert!(!arg.about.is_empty() && !arg.about.ends_with(". "), "{title}: {}", arg.name);
            assert!(arg.kind != Kind::Option || !arg.value.is_empty(), "{title}: {} has no name of a value", arg.name);
            let known = arg.choices.is_empty() || arg.default.is_empty() || arg.choices.contains(&arg.default);
            assert!(known && (!arg.required || arg.default.is_empty()), "{title}: default of {}", arg.name);
        }
        let words: Vec<&Arg> = command.args.iter().filter(|arg| arg.kind == Kind::Word).collect();
        for pair in words.windows(2) {
            let open = pair[0].many || (!pair[0].required && pair[1].required);
            assert!(!open, "{title}: {} cannot follow {}", pair[1].name, pair[0].name);
        }
        assert!(!command.about.is_empty() && !command.about.ends_with('.'), "{title}: {}", command.about);
        if let Action::Group(commands) = command.action {
            let mut names: Vec<&str> = commands.iter().map(|command| command.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{title}: a name twice");
        }
    });
}

#[test]
fn every_command_shows_examples_that_are_understood() {
    walk(&mut |path| {
        let command = path[path.len() - 1];
        let help = help::text(path, true);
        assert!(matches!(command.action, Action::Group(_)) || help.contains("\nExamples:\n"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        for example in command.examples {
            let understood = parse(&HOLT, ours(example));
            assert!(matches!(understood, Ok(Asked::Run(..))), "{example}");
        }
    });
}

#[test]
fn options_stand_before_or_after_the_command() {
    for words in ["-c x config check", "config -cx check", "config check --config x", "config check --config=x"] {
        assert_eq!(args(words).path("config").unwrap().to_str(), Some("x"), "{words}");
    }
    assert_eq!(args("-c x keys list -c y").path("config").unwrap().to_str(), Some("y"));
    let args = args("sessions delete -y id --data-dir=/a");
    assert!(args.flag("yes") && args.text("id") == "id");
    assert_eq!(args.path("data-dir").unwrap().to_str(), Some("/a"));
}

#[test]
fn values_are_read_as_what_they_are() {
    let given = args("keys create -- -x");
    assert_eq!((given.text("name"), given.text("scopes"), given.values("scopes").len()), ("-x", "admin", 0));
    assert_eq!(args("keys create a -s b,c --scopes d").values("scopes"), ["b,c", "d"]);
    assert_eq!(args("chat -s - --url= hi").text("session"), "-");
    assert_eq!(args("chat -s - --url= hi").value("url"), Some(""));
    assert_eq!(args("chat").value("message"), None);
    let days = |words: &str| args(words).number("days", 1..=366);
    assert!(matches!(days("costs"), Ok(Some(30))));
    assert!(matches!(days("costs --days 366"), Ok(Some(366))));
    for wrong in ["costs --days 0", "costs --days 367", "costs --days x"] {
        let Err(CliError::Misused(text)) = days(wrong) else { panic!("{wrong}") };
        assert!(text.starts_with("--days <N> cannot be \"") && text.contains("from 1 to 366"), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_named() {
    let check = |words: &str, part: &str| {
        let Err(CliError::Misused(text)) = ask(words) else { panic!("{words} was understood") };
        assert!(text.contains(part) && text.contains("; see: holt") && text.ends_with(" --help"), "{text}");
    };
    check("sing", "unknown command sing; see: holt --help");
    check("servr", "unknown command servr, did you mean serve?; see: holt --help");
    check("keys lst", "did you mean list?; see: holt keys --help");
    check("version --loud", "unknown option --loud; see: holt version --help");
    check("costs --dys 1", "unknown option --dys, did you mean --days?");
    check("costs -x", "unknown option -x");
    check("serve -V", "unknown option -V");
    check("sessions prune", "--older-than <DURATION> is missing; see: holt sessions prune --help");
    check("sessions show", "<ID> is missing");
    check("sessions show a b", "\"b\" is one word too many");
    check("chat -s", "--session <ID> needs a value");
    check("keys create a -s --data-dir /x", "--scopes <SCOPES> needs a value");
    check("costs --by wek", "--by <BY> cannot be \"wek\", only: agent, model, key, day");
    check("costs --by=day --by day", "--by <BY> was given twice");
    check("sessions delete a -yy", "--yes was given twice");
    check("audit --json=1", "--json");
    check("audit --result x", "only: ok, denied, failed");
    for words in ["", "keys", "keys --data-dir x"] {
        assert!(matches!(ask(words), Ok(Asked::Incomplete(..))), "{words}");
    }
}

#[test]
fn paths_need_not_be_text_and_everything_else_does() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(vec![b'a', 0xff]);
    let words = |words: &[&str], last: OsString| parse(&HOLT, words.iter().map(OsString::from).chain([last]).collect());
    let Ok(Asked::Run(_, args)) = words(&["keys", "list", "--data-dir"], odd()) else { panic!() };
    assert_eq!(args.path("data-dir"), Some(odd().into()));
    assert!(matches!(words(&["keys", "create"], odd()), Err(CliError::Misused(_))));
    assert!(matches!(words(&["keys"], odd()), Err(CliError::Misused(_))));
}

#[test]
fn help_is_told_at_every_place() {
    let tell = |words: &str| match ask(words) {
        Ok(Asked::Tell(text)) => text,
        _ => panic!("{words}"),
    };
    assert_eq!(tell("-V"), format!("holt {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(tell("--version"), tell("-V"));
    assert!(tell("--help keys").contains("\nUsage: holt [OPTIONS] <COMMAND>\n\nCommands:\n  agent "));
    assert!(tell("keys --help").contains("\nUsage: holt keys [OPTIONS] <COMMAND>\n"));
    let long = tell("chat --help");
    assert!(long.contains("\nUsage: holt chat [OPTIONS] [MESSAGE]\n\nArguments:\n  [MESSAGE]  One"), "{long}");
    assert!(long.contains("\n  -c, --config <FILE>") && long.contains("\n      --json "), "{long}");
    assert!(tell("sessions prune --help").contains("holt sessions prune [OPTIONS] --older-than <DURATION>\n"));
    let short = tell("chat -h");
    assert!(short.starts_with("Talk to an agent of the hub\n\nUsage:") && !short.contains("Examples:"), "{short}");
}
