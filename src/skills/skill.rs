//! A skill: its file's text and back, and when it is used (contract engine 6.1, 6.2).

use std::path::PathBuf;

use crate::config::FrontMatter;
use crate::rt::json::quoted;

/// The mark around the front matter.
const MARK: &str = "+++";
/// Longest name that becomes a file's (W-32), and longest one that is read from a file.
const NAME_BYTES_MAX: usize = 64;
const READ_NAME_BYTES_MAX: usize = 256;

/// What is known of a skill without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillInfo {
    pub name: String,
    pub description: String,
    pub version: String,
    /// `command:<name>` or `schedule:<anything>`; none: it is always used.
    pub triggers: Vec<String>,
    /// Tools without which it is left out.
    pub required_tools: Vec<String>,
    /// From the directory that all agents share.
    pub is_shared: bool,
    /// Its file.
    pub(super) path: PathBuf,
}

/// A skill with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skill {
    pub info: SkillInfo,
    /// Markdown, trimmed.
    pub body: String,
}

/// What a turn begins with, as far as it decides which skills are used.
pub struct Occasion<'a> {
    /// What the user said.
    pub message: &'a str,
    /// The skill that a schedule names; it is used whatever its triggers are.
    pub scheduled: Option<&'a str>,
    /// Whether the agent has a tool of that name now.
    pub has_tool: &'a dyn Fn(&str) -> bool,
}

impl SkillInfo {
    /// Whether it is used on that occasion.
    pub fn matches(&self, occasion: &Occasion<'_>) -> bool {
        let is_named = occasion.scheduled == Some(self.name.as_str());
        let command = command_of(occasion.message);
        let is_called = self.triggers.iter().any(|trigger| {
            let wanted = trigger.strip_prefix("command:");
            wanted.zip(command).is_some_and(|(wanted, given)| wanted.to_lowercase() == given.to_lowercase())
        });
        (self.triggers.is_empty() || is_named || is_called) && self.missing_tool(occasion.has_tool).is_none()
    }

    /// The first tool that it needs and that is not there.
    pub fn missing_tool(&self, has_tool: &dyn Fn(&str) -> bool) -> Option<&str> {
        self.required_tools.iter().map(String::as_str).find(|tool| !has_tool(tool))
    }
}

/// `/name` or `!name` at the beginning of a message, up to its first blank; a line feed does not end it.
fn command_of(message: &str) -> Option<&str> {
    let word = message.trim().split(' ').next()?;
    word.strip_prefix(['/', '!']).filter(|name| !name.is_empty())
}

/// The front matter's text and the body's.
fn split(text: &str) -> Result<(&str, &str), String> {
    let rest = text.trim().strip_prefix(MARK).ok_or("it must begin with +++")?;
    let (front, body) = rest.split_once(MARK).ok_or("the second +++ is missing")?;
    Ok((front.trim_start_matches(['\r', '\n']), body.trim()))
}

/// Reads a skill file's text.
pub(super) fn parse(text: &str) -> Result<(FrontMatter, &str), String> {
    let (front, body) = split(text)?;
    let front = FrontMatter::parse(front)?;
    if front.name.is_empty() {
        return Err("name is required".to_owned());
    }
    if front.name.len() > READ_NAME_BYTES_MAX || front.name.chars().any(char::is_control) {
        return Err(format!("name must be one line of at most {READ_NAME_BYTES_MAX} bytes"));
    }
    front.triggers.iter().try_for_each(|trigger| check_trigger(trigger))?;
    Ok((front, body))
}

/// A skill file's text. What `old` has beyond the keys stays.
pub(super) fn render(front: &FrontMatter, body: &str, old: &str) -> Result<String, String> {
    let old_front = split(old).map_or("", |(front, _)| front);
    let text = format!("{MARK}\n{}{MARK}\n\n{}\n", front.write(old_front), body.trim());
    // What would not be read back as it was given must not be written: a mark inside a key, say.
    match parse(&text) {
        Ok((read, read_body)) if read == *front && read_body == body.trim() => Ok(text),
        _ => Err("name, description, version and triggers must not hold +++".to_owned()),
    }
}

/// Whether a trigger is one (contract engine 6.2).
pub fn check_trigger(trigger: &str) -> Result<(), String> {
    match trigger.split_once(':') {
        Some(("command", name)) if !name.trim().is_empty() => Ok(()),
        Some(("schedule", _)) => Ok(()),
        _ => Err(format!("trigger {} must be command:<name> or schedule:<anything>", quoted(trigger))),
    }
}

/// Whether a name can become a file's name (W-32).
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'-'))
        && name.len() <= NAME_BYTES_MAX;
    if fits {
        return Ok(());
    }
    Err(format!(
        "name {} must be at most {NAME_BYTES_MAX} of a-z, 0-9, _ and -, and begin with a letter or digit",
        quoted(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(triggers: &[&str], required: &[&str]) -> SkillInfo {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        SkillInfo {
            name: "weather".into(),
            description: String::new(),
            version: String::new(),
            triggers: texts(triggers),
            required_tools: texts(required),
            is_shared: false,
            path: PathBuf::new(),
        }
    }

    #[test]
    fn triggers_decide() {
        let check = |triggers: &[&str], message: &str, scheduled: Option<&str>, expected: bool| {
            let has_tool = |_: &str| false;
            let occasion = Occasion { message, scheduled, has_tool: &has_tool };
            assert_eq!(info(triggers, &[]).matches(&occasion), expected, "{triggers:?} {message:?} {scheduled:?}");
        };
        check(&[], "anything", None, true);
        check(&["command:w"], "anything", None, false);
        check(&["command:w"], " /W now", None, true);
        check(&["command:W"], "!w", None, true);
        check(&["command:w"], "/w\nnow", None, false);
        check(&["command:w"], "/wx", None, false);
        check(&["command:w", "command:v"], "/v", None, true);
        check(&["schedule:x"], "anything", None, false);
        check(&["schedule:x"], "anything", Some("weather"), true);
        check(&["command:w"], "anything", Some("weather"), true);
        check(&["schedule:x"], "anything", Some("other"), false);
        let has_tool = |name: &str| name == "a";
        let occasion = Occasion { message: "", scheduled: None, has_tool: &has_tool };
        assert!(info(&[], &["a"]).matches(&occasion) && !info(&[], &["a", "b"]).matches(&occasion));
    }

    #[test]
    fn files_are_read_and_written_as_the_contract_says() {
        let text = "\n +++\nname = ' weather '\ntriggers = ['command:w']\n+++\n\n body +++ more \n\n";
        let (front, body) = parse(text).unwrap();
        assert_eq!((front.name.as_str(), body), ("weather", "body +++ more"));
        let written = render(&front, body, "").unwrap();
        assert_eq!(written, "+++\nname = \"weather\"\ntriggers = [\"command:w\"]\n+++\n\nbody +++ more\n");
        let odd = FrontMatter { description: "a +++ b".into(), ..front };
        assert!(render(&odd, body, "").is_err());
        for (text, expected) in [
            ("", "begin with +++"),
            ("# no", "begin with +++"),
            ("+++\nname = 'x'", "second +++"),
            ("+++\n+++\nx", "name is required"),
            ("+++\nname = 'x'\ntriggers = ['at:noon']\n+++", "must be command:"),
            ("+++\nname = 'x'\ntriggers = ['command: ']\n+++", "must be command:"),
            ("+++\nname = \"a\\nb\"\n+++", "one line"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn names_stay_in_their_directory() {
        let long = "a".repeat(65);
        for bad in ["", "..", "../x", "a/b", "A", "-a", "_a", "a.b", "a b", "ä", "a\0", &long] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for good in ["a", "0", "a-b_c", &long[..64]] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }
}
