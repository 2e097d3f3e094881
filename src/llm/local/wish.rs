//! What a message asks for, taken by itself. What it means after other messages is in [`super::followup`].

use std::collections::BTreeSet;

use crate::llm::local::note::Note;
use crate::llm::local::vocabulary::{
    BYES, CREATIONS, GREETINGS, HELP_PHRASES, Hint, ORDER_QUESTIONS, ORDERS, ORDERS_LAST, PHRASES, POLITE, SERVICES,
    THANKS, WORDS,
};
use crate::llm::local::words::{Words, means};

/// What processes are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Cpu,
    Memory,
}

/// One thing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Overview,
    Slow,
    Cpu,
    Memory,
    Disk,
    Network,
    Address,
    Processes(By),
    Uptime,
    Services,
    /// The service of [`Look::unit`].
    Service,
    Logs,
    Temperature,
    /// Those that joined the hub.
    Machines,
}

/// A wish that tools can answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The first one decides what the answer starts with.
    pub(super) topics: Vec<Topic>,
    pub(super) unit: Option<String>,
    /// As the tools spell durations: `2h`.
    pub(super) since: Option<String>,
    /// How many lines or processes.
    pub(super) count: Option<u64>,
}

/// A wish that needs no tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    Greeting,
    Help,
    Thanks,
    Bye,
    /// An order to change something.
    Refused,
    Unknown,
}

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Look(Look),
    Note(Note),
    Say(Say),
}

impl Look {
    pub(super) fn at(topics: &[Topic]) -> Self {
        Self { topics: topics.to_vec(), ..Self::default() }
    }
}

/// Understands a message that nothing came before.
pub(super) fn understand(words: &Words) -> Wish {
    if words.is_empty() {
        return Wish::Say(Say::Help);
    }
    if let Some(say) = order(words) {
        return Wish::Say(say);
    }
    if words.has_phrase(HELP_PHRASES) && hints(words).iter().all(|hint| *hint == Hint::Machine) {
        return Wish::Say(Say::Help);
    }
    let unit = unit(words);
    let topics = topics(&hints(words), unit.is_some(), words);
    if topics.is_empty() {
        return Wish::Say(small_talk(words));
    }
    Wish::Look(Look { topics, unit, since: since(words), count: count(words) })
}

/// Everything the words speak of; each word counts for the first meaning that fits.
pub(super) fn hints(words: &Words) -> BTreeSet<Hint> {
    let exact = |word: &str| WORDS.iter().find(|(_, known)| known.contains(&word)).map(|(hint, _)| *hint);
    let near = |word: &str| {
        let knows = |known: &[&str]| known.iter().any(|known| means(word, known));
        WORDS.iter().find(|(_, known)| knows(known)).map(|(hint, _)| *hint)
    };
    let is_service = |word: &str| SERVICES.iter().any(|(name, _)| *name == word);
    let mut found: BTreeSet<Hint> =
        words.iter().filter(|word| !is_service(word)).filter_map(|word| exact(word).or_else(|| near(word))).collect();
    // German joins words with hyphens: "CPU-Auslastung".
    found.extend(
        words.iter().filter(|word| !is_service(word)).flat_map(|word| word.split(['-', '/'])).filter_map(exact),
    );
    found.extend(PHRASES.iter().filter(|(_, phrases)| words.has_phrase(phrases)).map(|(hint, _)| *hint));
    found
}

/// Orders to change or to write something: the first word that says anything is the verb.
fn order(words: &Words) -> Option<Say> {
    let first = words.iter().position(|word| !POLITE.contains(&word))?;
    let (verb, next) = (words.at(first), words.at(first + 1));
    if CREATIONS.contains(&verb) {
        return Some(Say::Unknown);
    }
    let orders = ORDERS.contains(&verb) && !ORDER_QUESTIONS.contains(&next);
    let last = words.at(words.len() - 1);
    let asks = words.has_word(&["wann", "warum", "wieso", "when", "why", "who", "wer", "soll", "should", "muss"]);
    (orders || (ORDERS_LAST.contains(&last) && !asks)).then_some(Say::Refused)
}

/// The topics behind the hints, the one that the answer starts with first.
fn topics(hints: &BTreeSet<Hint>, named: bool, words: &Words) -> Vec<Topic> {
    let has = |hint: Hint| hints.contains(&hint);
    let consumers = has(Hint::Consume) || has(Hint::Processes) || has(Hint::Slow);
    let mut topics = Vec::new();
    if named && !has(Hint::Logs) && !has(Hint::Disk) && !has(Hint::Memory) && !has(Hint::Cpu) && !has(Hint::Temperature)
    {
        return vec![Topic::Service];
    }
    if has(Hint::Address) {
        topics.push(Topic::Address);
    }
    let both = [(Hint::Cpu, Topic::Cpu, By::Cpu), (Hint::Memory, Topic::Memory, By::Memory)];
    for (_, topic, by) in both.into_iter().filter(|(hint, _, _)| has(*hint)) {
        if consumers {
            topics.push(Topic::Processes(by));
        }
        topics.push(topic);
    }
    for (hint, topic) in [
        (Hint::Disk, Topic::Disk),
        (Hint::Network, Topic::Network),
        (Hint::Temperature, Topic::Temperature),
        (Hint::Uptime, Topic::Uptime),
        (Hint::Services, Topic::Services),
        (Hint::Logs, Topic::Logs),
    ] {
        if has(hint) && !(topic == Topic::Network && has(Hint::Address)) {
            topics.push(topic);
        }
    }
    // Why it rebooted is in the log.
    if topics == [Topic::Uptime] && words.has_word(&["why", "warum", "wieso", "weshalb"]) {
        topics.push(Topic::Logs);
    }
    if topics.is_empty() {
        topics.extend(weak_topic(hints, words));
    }
    // "Is everything ok?" means the others, too; "is this machine ok?" does not.
    if topics == [Topic::Overview] && !words.has_word(&["this", "dieser", "diese", "diesem", "hier", "here"]) {
        topics.push(Topic::Machines);
    }
    if has(Hint::Fleet) && !topics.contains(&Topic::Machines) {
        // "Are my machines online?" is not about the network of this one.
        if topics == [Topic::Network] {
            topics.clear();
        }
        topics.push(Topic::Machines);
    }
    topics
}

/// What is meant when nothing is named outright.
fn weak_topic(hints: &BTreeSet<Hint>, words: &Words) -> Option<Topic> {
    let has = |hint: Hint| hints.contains(&hint);
    if has(Hint::Slow) {
        return Some(Topic::Slow);
    }
    if has(Hint::Processes) {
        return Some(Topic::Processes(By::Cpu));
    }
    if has(Hint::Room) {
        return Some(Topic::Disk);
    }
    if has(Hint::Trouble) {
        return Some(Topic::Logs);
    }
    if has(Hint::Machine) || has(Hint::Fleet) {
        return Some(Topic::Overview);
    }
    let asks = words.has_word(&["what", "whats", "who", "whos", "which", "was", "wer"]);
    let resources = words.has_word(&["resources", "power", "everything", "ressourcen", "most", "strom"]);
    (has(Hint::Consume) && asks && resources).then_some(Topic::Processes(By::Cpu))
}

fn small_talk(words: &Words) -> Say {
    // "good night" is a good-bye before it is a "good".
    if words.has_word(&["bye", "goodbye", "tschuess", "ciao", "night", "nacht", "quit", "exit", "later"])
        && words.only(BYES)
    {
        return Say::Bye;
    }
    if words.has_word(&[
        "hi",
        "hello",
        "hey",
        "hallo",
        "moin",
        "servus",
        "gruezi",
        "morning",
        "morgen",
        "evening",
        "abend",
        "afternoon",
        "tag",
        "day",
        "yo",
        "howdy",
        "greetings",
        "test",
        "ping",
    ]) && words.only(GREETINGS)
    {
        return Say::Greeting;
    }
    if words.only(THANKS) {
        return Say::Thanks;
    }
    Say::Unknown
}

/// The unit that a message names: a known program, or the word in "is X running", "status of X", "X service".
fn unit(words: &Words) -> Option<String> {
    let known = |word: &str| SERVICES.iter().find(|(name, _)| *name == word).map(|(_, unit)| (*unit).to_owned());
    // Our own name is an address unless it is asked about: "holt, is the disk full?".
    let about_us = words.has_phrase(&["holt running", "holt service", "holt logs", "holt log", "laeuft holt"]);
    if let Some(unit) = words.iter().filter(|word| *word != "holt" || about_us).find_map(known) {
        return Some(unit);
    }
    let full = |word: &&str| matches!(word.rsplit_once('.'), Some((_, "service" | "timer")));
    if let Some(unit) = words.iter().find(full) {
        return is_unit_name(unit).then(|| unit.to_owned());
    }
    let end = words.len();
    let guess = (0..end).find_map(|place| match words.at(place) {
        "is" if (place + 2..=place + 3).any(|verb| is_state(words.at(verb))) => {
            Some(words.at(if ["the", "my"].contains(&words.at(place + 1)) { place + 2 } else { place + 1 }))
        }
        "laeuft" => Some(words.at(if ["der", "die", "das", "mein"].contains(&words.at(place + 1)) {
            place + 2
        } else {
            place + 1
        })),
        "service" | "daemon" | "dienst" if place > 0 => Some(words.at(place - 1)),
        "of" if words.at(place.saturating_sub(1)) == "status" => Some(words.at(place + 1)),
        _ => None,
    })?;
    (is_unit_name(guess) && !is_common(guess)).then(|| guess.to_owned())
}

fn is_state(word: &str) -> bool {
    ["running", "up", "active", "alive", "down", "dead", "started", "stopped"].contains(&word)
}

/// A name that the tools accept.
fn is_unit_name(word: &str) -> bool {
    word.len() > 1
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte))
}

/// Words that no service is called by.
fn is_common(word: &str) -> bool {
    let fillers = [
        "it",
        "this",
        "that",
        "the",
        "my",
        "a",
        "an",
        "any",
        "all",
        "each",
        "every",
        "everything",
        "which",
        "what",
        "one",
        "still",
        "running",
        "up",
        "alles",
        "er",
        "es",
        "sie",
        "noch",
        "hier",
        "there",
        "here",
        "he",
        "she",
        "failed",
        "gut",
        "so",
        "da",
        "was",
        "mein",
        "meine",
        "system",
        "and",
        "that",
        "dieser",
        "diese",
        "of",
        "is",
        "schon",
        "denn",
        "wieder",
        "nicht",
    ];
    fillers.contains(&word) || WORDS.iter().any(|(_, known)| known.iter().any(|known| means(word, known)))
}

/// "last 10 minutes", "30m", "today", "since yesterday" as a duration that the tools take.
pub(super) fn since(words: &Words) -> Option<String> {
    for place in 0..words.len() {
        let word = words.at(place);
        let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = if digits.len() == word.len() { words.at(place + 1) } else { &word[digits.len()..] };
        if let (Ok(number), Some(unit)) = (digits.parse::<u64>(), time_unit(unit))
            && (1..=999).contains(&number)
        {
            // The tools look back 31 days at most.
            let days_max = if unit == 'd' { 31 } else { 999 };
            let number = if unit == 'h' { number.min(744) } else { number.min(days_max) };
            return Some(format!("{number}{unit}"));
        }
    }
    let named = |names: &[&str]| words.has_word(names);
    let since = if named(&["minute", "just"]) && named(&["last", "letzten", "letzte"]) {
        "10m"
    } else if named(&["hour", "stunde"]) {
        "1h"
    } else if named(&["night", "nacht", "tonight"]) {
        "14h"
    } else if named(&["today", "heute"]) {
        "24h"
    } else if named(&["yesterday", "gestern"]) {
        "48h"
    } else if named(&["week", "woche"]) {
        "7d"
    } else if named(&["month", "monat"]) {
        "30d"
    } else {
        return None;
    };
    Some(since.to_owned())
}

fn time_unit(word: &str) -> Option<char> {
    match word {
        "s" | "sec" | "secs" | "second" | "seconds" | "sekunden" => Some('s'),
        "m" | "min" | "mins" | "minute" | "minutes" | "minuten" => Some('m'),
        "h" | "hour" | "hours" | "stunde" | "stunden" => Some('h'),
        "d" | "day" | "days" | "tag" | "tage" | "tagen" => Some('d'),
        _ => None,
    }
}

/// "top 5 processes", "last 100 lines".
pub(super) fn count(words: &Words) -> Option<u64> {
    (0..words.len()).find_map(|place| {
        let number = words.at(place).parse::<u64>().ok().filter(|number| *number > 0)?;
        let before = words.at(place.wrapping_sub(1));
        let counted = ["lines", "zeilen", "entries", "processes", "prozesse", "programs", "programme"];
        // "100 lines", "100 log lines".
        let counts = counted.contains(&words.at(place + 1)) || counted.contains(&words.at(place + 2));
        (counts || before == "top").then_some(number)
    })
}
