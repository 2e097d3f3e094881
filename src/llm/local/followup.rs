//! What a message means after other messages: "which process?", "and memory?", "why?", "more", "since when?".

use crate::llm::local::note;
use crate::llm::local::vocabulary::Hint;
use crate::llm::local::wish::{By, Look, Say, Topic, Wish, count, hints, since, understand};
use crate::llm::local::words::Words;

/// Longer messages say what they want by themselves.
const WORDS_MAX: usize = 7;

/// Lines and processes when somebody asks for more.
const MORE: u64 = 100;

/// Understands a message, given the last thing that was looked at.
pub(super) fn understand_after(text: &str, last: Option<&Look>) -> Wish {
    if let Some(note) = note::understand(text) {
        return Wish::Note(note);
    }
    let words = Words::of(text);
    let short = last.filter(|_| words.len() <= WORDS_MAX);
    if let Some(look) = short.and_then(|last| refer(&words, last)) {
        return Wish::Look(look);
    }
    match understand(&words) {
        Wish::Say(Say::Unknown) => note::question(text).map_or(Wish::Say(Say::Unknown), Wish::Note),
        wish => wish,
    }
}

/// The meaning of a message that refers to `last`; none when it stands by itself.
fn refer(words: &Words, last: &Look) -> Option<Look> {
    let hints = hints(words);
    let named = matches!(understand(words), Wish::Look(look) if look.unit.is_some());
    let only = |allowed: &[Hint]| hints.iter().all(|hint| allowed.contains(hint));
    if hints.contains(&Hint::Processes) || asks_who(words) {
        // "which process?", "who is it?", "which ones?"
        return (!named && only(&[Hint::Processes, Hint::Consume, Hint::Machine]))
            .then(|| Look { count: count(words), ..Look::at(&[Topic::Processes(by_of(last))]) });
    }
    if shows_processes(last) && hints.len() == 1 && words.len() <= 4 {
        // After a list of processes "and memory?" asks for the other order.
        let by = if hints.contains(&Hint::Memory) { Some(By::Memory) } else { None };
        let by = by.or_else(|| hints.contains(&Hint::Cpu).then_some(By::Cpu));
        if let Some(by) = by {
            let topic = if by == By::Memory { Topic::Memory } else { Topic::Cpu };
            return Some(Look::at(&[Topic::Processes(by), topic]));
        }
    }
    let since_when = ["since when", "seit wann", "for how long", "how long", "wie lange", "since"];
    if words.has_phrase(&since_when) && !named && only(&[Hint::Machine]) {
        return Some(since_when_of(last, words));
    }
    if !hints.is_empty() || named {
        return None;
    }
    refer_without_subject(words, last)
}

/// Messages that name nothing at all.
fn refer_without_subject(words: &Words, last: &Look) -> Option<Look> {
    let why = ["why", "warum", "wieso", "weshalb", "how come", "reason", "cause", "explain", "woran liegt das"];
    if words.has_phrase(&why) {
        return Some(why_of(last));
    }
    let more = [
        "more",
        "mehr",
        "details",
        "detail",
        "yes",
        "ja",
        "yes please",
        "sure",
        "go on",
        "continue",
        "tell me more",
        "weiter",
        "deeper",
        "genauer",
    ];
    if words.has_phrase(&more) {
        return Some(more_of(last));
    }
    let again = [
        "again",
        "now",
        "jetzt",
        "refresh",
        "nochmal",
        "noch mal",
        "erneut",
        "still",
        "recheck",
        "immer noch",
        "repeat",
        "check again",
    ];
    if words.has_phrase(&again) {
        return Some(last.clone());
    }
    // "and in the last hour?" after a look into the log.
    let window = since(words)?;
    last.topics.contains(&Topic::Logs).then(|| Look { since: Some(window), ..last.clone() })
}

fn asks_who(words: &Words) -> bool {
    let phrases = [
        "which one",
        "which ones",
        "who is it",
        "who",
        "whos it",
        "by what",
        "by whom",
        "what is it",
        "what is using it",
        "whats using it",
        "who is using it",
        "welcher",
        "welche",
        "wer",
        "wer ist das",
        "wovon",
        "what causes it",
        "what causes that",
        "what is causing it",
        "what is causing that",
    ];
    words.len() <= 5 && words.has_phrase(&phrases)
}

fn shows_processes(last: &Look) -> bool {
    last.topics.iter().any(|topic| matches!(topic, Topic::Processes(_)))
}

/// What the processes behind the last answer are sorted by.
fn by_of(last: &Look) -> By {
    let memory = |topic: &&Topic| matches!(topic, Topic::Memory | Topic::Processes(By::Memory));
    let cpu = |topic: &&Topic| matches!(topic, Topic::Cpu | Topic::Processes(By::Cpu));
    if last.topics.iter().any(|topic| memory(&topic)) && !last.topics.iter().any(|topic| cpu(&topic)) {
        By::Memory
    } else {
        By::Cpu
    }
}

/// Where the reasons are.
fn why_of(last: &Look) -> Look {
    let errors = Look { unit: last.unit.clone(), since: Some("24h".to_owned()), ..Look::default() };
    let topics: &[Topic] = match last.topics.first() {
        Some(Topic::Cpu | Topic::Temperature) => &[Topic::Processes(By::Cpu), Topic::Cpu],
        Some(Topic::Memory) => &[Topic::Processes(By::Memory), Topic::Memory],
        Some(Topic::Processes(By::Cpu)) => &[Topic::Cpu, Topic::Logs],
        Some(Topic::Processes(By::Memory)) => &[Topic::Memory, Topic::Logs],
        Some(Topic::Slow | Topic::Overview) | None => {
            &[Topic::Processes(By::Cpu), Topic::Processes(By::Memory), Topic::Disk, Topic::Logs]
        }
        Some(Topic::Service) => &[Topic::Logs, Topic::Service],
        Some(Topic::Disk | Topic::Network | Topic::Address | Topic::Uptime | Topic::Services | Topic::Logs) => {
            &[Topic::Logs]
        }
        Some(Topic::Machines) => &[Topic::Machines],
    };
    Look { topics: topics.to_vec(), ..errors }
}

/// The same with more of it.
fn more_of(last: &Look) -> Look {
    let topics: &[Topic] = match last.topics.first() {
        Some(Topic::Cpu) => &[Topic::Cpu, Topic::Processes(By::Cpu)],
        Some(Topic::Memory) => &[Topic::Memory, Topic::Processes(By::Memory)],
        Some(Topic::Overview) | None => &[Topic::Processes(By::Cpu), Topic::Processes(By::Memory), Topic::Logs],
        Some(Topic::Slow) => &[Topic::Processes(By::Memory), Topic::Logs],
        Some(Topic::Service) => &[Topic::Service, Topic::Logs],
        Some(Topic::Services | Topic::Uptime) => &[Topic::Services, Topic::Uptime, Topic::Logs],
        Some(_) => &last.topics,
    };
    Look { topics: topics.to_vec(), count: Some(MORE), ..last.clone() }
}

fn since_when_of(last: &Look, words: &Words) -> Look {
    match last.topics.first() {
        Some(Topic::Service) => last.clone(),
        Some(Topic::Logs) => {
            let window = since(words).unwrap_or_else(|| "7d".to_owned());
            Look { since: Some(window), count: Some(MORE), ..last.clone() }
        }
        // The load averages tell whether it began one, five or fifteen minutes ago.
        Some(Topic::Cpu | Topic::Slow | Topic::Processes(By::Cpu)) => Look::at(&[Topic::Cpu, Topic::Uptime]),
        _ => Look::at(&[Topic::Uptime]),
    }
}

/// The last look of a conversation after one more message: small talk does not change the subject.
pub(super) fn remember(last: Option<Look>, text: &str) -> Option<Look> {
    match understand_after(text, last.as_ref()) {
        Wish::Look(look) => Some(look),
        Wish::Note(_) | Wish::Say(Say::Greeting | Say::Help | Say::Thanks | Say::Bye | Say::Refused | Say::Unknown) => {
            last
        }
    }
}
