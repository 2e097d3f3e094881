//! `holt completions`: scripts for shells, and the words that they ask for. A script knows nothing of commands: it asks the
//! binary that it completes, so both always agree.

use super::args::Args;
use super::command::{Action, Arg, Command, Kind};
use super::output::out;
use super::{CliError, Context, HOLT};

const BASH: &str = r#"_holt() {
  local IFS=$'\n' word="${COMP_WORDS[COMP_CWORD]}"
  COMPREPLY=($(compgen -W "$(holt completions bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$word"))
}
complete -o bashdefault -o default -F _holt holt"#;

const ZSH: &str = r#"#compdef holt
_holt() {
  local -a found
  found=("${(@f)$(holt completions zsh -- "${(@)words[2,$CURRENT]}" 2>/dev/null)}")
  if [[ -n "$found" ]]; then _describe holt found; else _files; fi
}
if [ "$funcstack[1]" = _holt ]; then _holt "$@"; else compdef _holt holt; fi"#;

/// Files are offered only where no word fits.
const FISH: &str = "function __holt
  holt completions fish -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null
end
complete -c holt -f -a '(__holt)'
complete -c holt -n 'not string length -q -- (__holt)' -F";

pub(super) const COMMAND: Command = Command {
    name: "completions",
    about: "Print what a shell needs to complete commands",
    details: "Print what a shell needs to complete commands. The script asks this program for the words, so it is right for \
              every version.",
    examples: &[
        "holt completions bash > ~/.local/share/bash-completion/completions/holt",
        "holt completions zsh > \"${fpath[1]}/_holt\"",
        "holt completions fish > ~/.config/fish/completions/holt.fish",
    ],
    args: &[
        Arg::word("shell", "Which shell").choices(&["bash", "zsh", "fish"]),
        Arg::word("words", "After `--`: a command line so far; prints what its last word may become").optional().many(),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, _context: &Context) -> Result<(), CliError> {
    let (shell, words) = (args.text("shell"), args.values("words"));
    if words.is_empty() {
        return match shell {
            "zsh" => out!("{ZSH}"),
            "fish" => out!("{FISH}"),
            _ => out!("{BASH}"),
        };
    }
    for (word, about) in candidates(&HOLT, &words) {
        match shell {
            "zsh" => out!("{}:{}", word.replace(':', "\\:"), about)?,
            "fish" => out!("{word}\t{about}")?,
            _ => out!("{word}")?,
        }
    }
    Ok(())
}

/// What the last of these words may become, and what that is; nothing where a shell knows better: names of files.
fn candidates(root: &'static Command, words: &[&str]) -> Vec<(String, &'static str)> {
    let Some((last, before)) = words.split_last() else { return Vec::new() };
    let (mut command, mut place, mut wanting) = (root, 0, None);
    let options = |command: &'static Command| {
        let own: &'static [Arg] = if std::ptr::eq(command, root) { &[] } else { command.args };
        own.iter().chain(root.args).filter(|arg| arg.kind != Kind::Word)
    };
    for word in before {
        if wanting.take().is_some() {
            continue;
        }
        if let Some(name) = word.strip_prefix('-') {
            let long = name.strip_prefix('-');
            let is_it = |arg: &&Arg| match long {
                Some(long) => arg.name == long,
                None => arg.short.is_some_and(|letter| name.ends_with(letter)),
            };
            wanting = options(command).find(is_it).filter(|arg| arg.kind == Kind::Option);
        } else if let Action::Group(commands) = command.action {
            let Some(next) = commands.iter().find(|next| next.name == *word) else { return Vec::new() };
            command = next;
        } else {
            place += 1;
        }
    }
    let choices = |arg: &Arg| {
        let fitting = arg.choices.iter().filter(|choice| choice.starts_with(last) && !choice.is_empty());
        fitting.map(|choice| ((*choice).to_owned(), "")).collect()
    };
    if let Some(arg) = wanting {
        return choices(arg);
    }
    if last.starts_with('-') {
        let all = options(command).map(|arg| (format!("--{}", arg.name), arg.about));
        return all.chain([("--help".to_owned(), "Print help")]).filter(|(word, _)| word.starts_with(last)).collect();
    }
    if let Action::Group(commands) = command.action {
        let fitting = commands.iter().filter(|next| next.name.starts_with(last));
        return fitting.map(|next| (next.name.to_owned(), next.about)).collect();
    }
    let mut words = command.args.iter().filter(|arg| arg.kind == Kind::Word);
    let arg = words.clone().nth(place).or_else(|| words.rfind(|arg| arg.many));
    arg.map(choices).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        candidates(&HOLT, &words).into_iter().map(|(word, _)| word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_follow_the_tree() {
        for (line, expected) in [
            ("ke", "keys"),
            ("keys cr", "create"),
            ("keys create --sc", "--scopes"),
            ("--data-dir /x keys li", "list"),
            ("-c /x keys li", "list"),
            ("costs --by ag", "agent"),
            ("costs --days 3 --js", "--json"),
            ("completions z", "zsh"),
            ("nothing x", ""),
            ("restore fi", ""),
            ("costs --by", "--by"),
        ] {
            assert_eq!(found(line), expected, "{line}");
        }
        assert!(found("").contains("serve") && found("keys ").contains("revoke"));
        assert!(found("serve -").contains("--listen --config --data-dir --help"));
    }
}
