//! Regular expressions for filters of log lines, and globs on the same machine: a list of states that all advance
//! together, so that no pattern and no line can make it slow. It only says whether something matches.
//!
//! A subset of what people know: `.`, classes, `\d \w \s \b` and their opposites, groups, `|`, `* + ? {n,m}`, `^ $` and
//! `(?i)` at the start. No captures, no references. The crate for this would be six times the size; the tests compare
//! with it.

use std::iter::Peekable;
use std::str::Chars;

/// Most states of one pattern: each costs time for every character of every line.
const STATES_MAX: usize = 4096;
/// Groups inside groups.
const DEPTH_MAX: usize = 24;
const REPEATS_MAX: u32 = 1000;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Regex {
    states: Vec<State>,
    ignore_case: bool,
    /// What every match begins with. A line without it needs no machine.
    prefix: String,
}

#[derive(Clone, Debug)]
enum State {
    Char(char),
    /// True: anything. False: anything but the end of a line.
    Any(bool),
    Class(Class),
    Start,
    End,
    /// At the edge of a word, or not.
    Edge(bool),
    Split(usize, usize),
    Jump(usize),
    Match,
}

#[derive(Clone, Debug, Default)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

#[derive(Clone, Debug)]
enum Node {
    One(State),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
}

type Parsed = Result<Node, &'static str>;

impl Regex {
    /// Compiles a regular expression. The error says what cannot be read.
    pub(super) fn new(pattern: &str) -> Result<Self, &'static str> {
        let (pattern, ignore_case) = pattern.strip_prefix("(?i)").map_or((pattern, false), |rest| (rest, true));
        let mut parser = Parser { rest: pattern.chars().peekable(), depth: 0 };
        let node = parser.choice()?;
        if parser.rest.next().is_some() {
            return Err("a ) without its (");
        }
        Self::compile(&node, ignore_case)
    }

    /// Compiles a glob, which has to match the whole text: `*`, `?`, `[a-z]`, `[!a-z]`, `{one,two}`, `\` before a sign.
    pub(super) fn glob(pattern: &str) -> Result<Self, &'static str> {
        let mut parser = Parser { rest: pattern.chars().peekable(), depth: 0 };
        let mut nodes = vec![Node::One(State::Start)];
        nodes.push(parser.glob()?);
        if parser.rest.next().is_some() {
            return Err("a } without its {");
        }
        nodes.push(Node::One(State::End));
        Self::compile(&Node::Sequence(nodes), false)
    }

    fn compile(node: &Node, ignore_case: bool) -> Result<Self, &'static str> {
        let (mut states, mut steps) = (Vec::new(), STATES_MAX);
        emit(node, &mut states, &mut steps)?;
        states.push(State::Match);
        let chars = states.iter().map_while(|state| match state {
            State::Char(char) if !ignore_case => Some(*char),
            _ => None,
        });
        let prefix = chars.collect();
        Ok(Self { states, ignore_case, prefix })
    }

    /// Whether the pattern matches anywhere in the text.
    pub(super) fn is_match(&self, text: &str) -> bool {
        let Some(begin) = text.find(&self.prefix) else { return false };
        let (mut now, mut next) = (States::new(self.states.len()), States::new(self.states.len()));
        let mut before = text[..begin].chars().next_back();
        let mut chars = text[begin..].chars();
        let mut at_start = begin == 0;
        loop {
            let after = chars.next();
            // A match may begin at every place.
            let place = Place { at_start, before, after };
            if self.enter(&mut now, 0, place) {
                return true;
            }
            let Some(char) = after else { return false };
            let following = Place { at_start: false, before: after, after: chars.clone().next() };
            for idx in 0..now.list.len() {
                let state = now.list[idx];
                if self.takes(&self.states[state], char) && self.enter(&mut next, state + 1, following) {
                    return true;
                }
            }
            std::mem::swap(&mut now, &mut next);
            next.clear();
            (before, at_start) = (after, false);
        }
    }

    fn takes(&self, state: &State, char: char) -> bool {
        match state {
            State::Char(wanted) => *wanted == char || (self.ignore_case && same_letter(*wanted, char)),
            State::Any(all) => *all || char != '\n',
            State::Class(class) => {
                let holds = |char: char| class.ranges.iter().any(|(from, to)| (*from..=*to).contains(&char));
                let other = || holds(char.to_ascii_lowercase()) || holds(char.to_ascii_uppercase());
                (holds(char) || (self.ignore_case && other())) != class.negated
            }
            _ => false,
        }
    }

    /// Adds a state and all that it leads to without a character. True when that is the end: a match.
    fn enter(&self, states: &mut States, state: usize, place: Place) -> bool {
        states.open.push(state);
        while let Some(state) = states.open.pop() {
            if std::mem::replace(&mut states.known[state], true) {
                continue;
            }
            match self.states[state] {
                State::Match => return true,
                State::Jump(to) => states.open.push(to),
                State::Split(one, other) => states.open.extend([other, one]),
                State::Start if place.at_start => states.open.push(state + 1),
                State::End if place.after.is_none() => states.open.push(state + 1),
                State::Edge(wanted) if place.is_edge() == wanted => states.open.push(state + 1),
                State::Start | State::End | State::Edge(_) => {}
                State::Char(_) | State::Any(_) | State::Class(_) => states.list.push(state),
            }
        }
        false
    }
}

/// Where in the text the machine stands.
#[derive(Clone, Copy)]
struct Place {
    at_start: bool,
    before: Option<char>,
    after: Option<char>,
}

impl Place {
    fn is_edge(self) -> bool {
        let is_word = |char: Option<char>| char.is_some_and(|char| char.is_ascii_alphanumeric() || char == '_');
        is_word(self.before) != is_word(self.after)
    }
}

/// The states that the machine is in.
struct States {
    list: Vec<usize>,
    known: Vec<bool>,
    open: Vec<usize>,
}

impl States {
    fn new(states: usize) -> Self {
        Self { list: Vec::new(), known: vec![false; states], open: Vec::new() }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.known.fill(false);
    }
}

fn same_letter(one: char, other: char) -> bool {
    one.eq_ignore_ascii_case(&other) || one.to_lowercase().eq(other.to_lowercase())
}

/// `steps` bounds also what makes no states: repetitions of nothing.
fn emit(node: &Node, states: &mut Vec<State>, steps: &mut usize) -> Result<(), &'static str> {
    *steps = steps.checked_sub(1).ok_or("too large: fewer or smaller repetitions")?;
    match node {
        Node::One(state) => states.push(state.clone()),
        Node::Sequence(nodes) => nodes.iter().try_for_each(|node| emit(node, states, steps))?,
        Node::Choice(nodes) => {
            let mut ends = Vec::new();
            for (idx, node) in nodes.iter().enumerate() {
                let split = states.len();
                if idx + 1 < nodes.len() {
                    states.push(State::Split(0, 0));
                }
                emit(node, states, steps)?;
                if idx + 1 < nodes.len() {
                    ends.push(states.len());
                    states.push(State::Jump(0));
                    states[split] = State::Split(split + 1, states.len());
                }
            }
            let end = states.len();
            for jump in ends {
                states[jump] = State::Jump(end);
            }
        }
        Node::Repeat(node, min, max) => {
            for _ in 0..*min {
                emit(node, states, steps)?;
            }
            let split = states.len();
            match max {
                None => {
                    states.push(State::Split(0, 0));
                    emit(node, states, steps)?;
                    states.push(State::Jump(split));
                    states[split] = State::Split(split + 1, states.len());
                }
                Some(max) => {
                    let mut splits = Vec::new();
                    for _ in *min..*max {
                        splits.push(states.len());
                        states.push(State::Split(0, 0));
                        emit(node, states, steps)?;
                    }
                    let end = states.len();
                    for split in splits {
                        states[split] = State::Split(split + 1, end);
                    }
                }
            }
        }
    }
    Ok(())
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    depth: usize,
}

impl Parser<'_> {
    fn deeper(&mut self, parse: fn(&mut Self) -> Parsed) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("too many groups inside groups");
        }
        let node = parse(self);
        self.depth -= 1;
        node
    }

    fn choice(&mut self) -> Parsed {
        let mut nodes = vec![self.sequence()?];
        while self.rest.next_if_eq(&'|').is_some() {
            nodes.push(self.sequence()?);
        }
        Ok(Node::Choice(nodes))
    }

    fn sequence(&mut self) -> Parsed {
        let mut nodes = Vec::new();
        while let Some(&char) = self.rest.peek() {
            if char == '|' || char == ')' {
                break;
            }
            let node = self.one()?;
            nodes.push(self.repeated(node)?);
        }
        Ok(Node::Sequence(nodes))
    }

    fn one(&mut self) -> Parsed {
        let Some(char) = self.rest.next() else { return Err("unfinished") };
        Ok(Node::One(match char {
            '.' => State::Any(false),
            '^' => State::Start,
            '$' => State::End,
            '[' => State::Class(self.class('^')?),
            '\\' => self.escape()?,
            '(' => {
                if self.rest.next_if_eq(&'?').is_some() && self.rest.next() != Some(':') {
                    return Err("of the groups that begin with (? only (?:...) is known, and (?i) at the start");
                }
                let node = self.deeper(Self::choice)?;
                return if self.rest.next() == Some(')') { Ok(node) } else { Err("a ( without its )") };
            }
            '*' | '+' | '?' | '{' => return Err("a repetition of nothing; write \\ before it to mean the sign"),
            char => State::Char(char),
        }))
    }

    fn repeated(&mut self, node: Node) -> Parsed {
        if let Some(sign) = self.rest.next_if(|char| matches!(char, '*' | '+' | '?' | '{')) {
            let (min, max) = match sign {
                '*' => (0, None),
                '+' => (1, None),
                '?' => (0, Some(1)),
                _ => self.bounds()?,
            };
            // "As few as possible" matters to captures only.
            self.rest.next_if_eq(&'?');
            if matches!(self.rest.peek(), Some('*' | '+' | '?' | '{')) {
                return Err("a repetition of a repetition; put the inner one into ( )");
            }
            return Ok(Node::Repeat(Box::new(node), min, max));
        }
        Ok(node)
    }

    fn bounds(&mut self) -> Result<(u32, Option<u32>), &'static str> {
        const WRONG: &str = "a repetition is {2}, {2,} or {2,5}, at most 1000";
        let text: String = std::iter::from_fn(|| self.rest.next_if(|char| *char != '}')).collect();
        if self.rest.next().is_none() {
            return Err(WRONG);
        }
        let number = |text: &str| text.parse().ok().filter(|n| *n <= REPEATS_MAX).ok_or(WRONG);
        match text.split_once(',') {
            None => number(&text).map(|n| (n, Some(n))),
            Some((min, "")) => Ok((number(min)?, None)),
            Some((min, max)) => {
                let (min, max) = (number(min)?, number(max)?);
                if min <= max { Ok((min, Some(max))) } else { Err(WRONG) }
            }
        }
    }

    fn escape(&mut self) -> Result<State, &'static str> {
        let Some(char) = self.rest.next() else { return Err("nothing behind the last \\") };
        Ok(match char {
            'b' => State::Edge(true),
            'B' => State::Edge(false),
            'n' => State::Char('\n'),
            't' => State::Char('\t'),
            'r' => State::Char('\r'),
            char => match known_class(char) {
                Some(ranges) => State::Class(Class { negated: char.is_ascii_uppercase(), ranges: ranges.to_vec() }),
                None if char.is_ascii_alphanumeric() => return Err("a \\ before a letter or digit that means nothing"),
                None => State::Char(char),
            },
        })
    }

    /// The inside of `[...]`; `not` negates it.
    fn class(&mut self, not: char) -> Result<Class, &'static str> {
        const OPEN: &str = "a [ without its ]";
        let mut class = Class { negated: self.rest.next_if_eq(&not).is_some(), ranges: Vec::new() };
        let mut first = true;
        loop {
            let from = match self.rest.next().ok_or(OPEN)? {
                ']' if !first => return Ok(class),
                '[' if self.rest.peek() == Some(&':') => return Err("classes such as [:alpha:] are not known"),
                '\\' => match self.escape()? {
                    State::Class(known) if !known.negated => {
                        class.ranges.extend(known.ranges);
                        first = false;
                        continue;
                    }
                    State::Char(char) => char,
                    _ => return Err("this \\ means nothing inside [ ]"),
                },
                char => char,
            };
            first = false;
            let mut ahead = self.rest.clone();
            let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|char| char != ']');
            let to = if is_range {
                self.rest.next();
                match self.rest.next().ok_or(OPEN)? {
                    '\\' => match self.escape()? {
                        State::Char(char) => char,
                        _ => return Err("this \\ means nothing inside [ ]"),
                    },
                    char => char,
                }
            } else {
                from
            };
            if from > to {
                return Err("a range in [ ] that goes backwards");
            }
            class.ranges.push((from, to));
        }
    }

    fn glob(&mut self) -> Parsed {
        let mut nodes = Vec::new();
        while let Some(char) = self.rest.next_if(|char| self_ends(*char, self.depth)) {
            nodes.push(match char {
                '*' => Node::Repeat(Box::new(Node::One(State::Any(true))), 0, None),
                '?' => Node::One(State::Any(true)),
                '[' => Node::One(State::Class(self.class('!')?)),
                '\\' => Node::One(State::Char(self.rest.next().ok_or("nothing behind the last \\")?)),
                '{' => {
                    let mut choices = vec![self.deeper(Self::glob)?];
                    while self.rest.next_if_eq(&',').is_some() {
                        choices.push(self.deeper(Self::glob)?);
                    }
                    if self.rest.next() != Some('}') {
                        return Err("a { without its }");
                    }
                    Node::Choice(choices)
                }
                char => Node::One(State::Char(char)),
            });
        }
        Ok(Node::Sequence(nodes))
    }
}

/// Whether a sign belongs to the glob at hand: inside braces a comma ends it.
fn self_ends(char: char, depth: usize) -> bool {
    char != '}' && (depth == 0 || char != ',')
}

fn known_class(letter: char) -> Option<&'static [(char, char)]> {
    match letter.to_ascii_lowercase() {
        'd' => Some(&[('0', '9')]),
        'w' => Some(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        's' => Some(&[('\t', '\r'), (' ', ' ')]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_patterns_match_what_they_should() {
        let check = |pattern: &str, yes: &[&str], no: &[&str]| {
            let regex = Regex::new(pattern).unwrap();
            for text in yes {
                assert!(regex.is_match(text), "{pattern} {text:?}");
            }
            for text in no {
                assert!(!regex.is_match(text), "{pattern} {text:?}");
            }
        };
        check("oom", &["an oom kill", "oom"], &["ro", "OOM"]);
        check("(?i)Out of MEMORY", &["out OF memory: 1"], &["out of mem"]);
        check("(?i)[a-f]ä", &["EÄ"], &["gÄ"]);
        check(r"^\w+: (error|fail(ed|ure))\b", &["sshd: failed x", "x: error"], &[" x: error", "x: errors"]);
        check(r"\d{2,3}$", &["a12", "1234"], &["1", "12 "]);
        check("a.c", &["abc", "a€c"], &["ac", "a\nc"]);
        check(r"[^a-c\d]x", &["zx", "-x"], &["ax", "7x", "x"]);
        check("[]-]", &["]", "-"], &["["]);
        check("(a*)*b", &["b", "aab"], &["aaaa"]);
        check("", &["", "x"], &[]);
        check("a|", &["", "x"], &[]);
        check("(?:ab){2}c??", &["abab"], &["abxab"]);
    }

    #[test]
    fn globs_match_whole_texts() {
        let check = |pattern: &str, yes: &[&str], no: &[&str]| {
            let glob = Regex::glob(pattern).unwrap();
            for text in yes {
                assert!(glob.is_match(text), "{pattern} {text:?}");
            }
            for text in no {
                assert!(!glob.is_match(text), "{pattern} {text:?}");
            }
        };
        check("20*", &["200", "20"], &["301", "1200"]);
        check("*Out of memory*", &["x Out of memory\ny", "Out of memory"], &["out of memory"]);
        check("web-[0-9]?", &["web-1a"], &["web-a1", "web-1", "web-1ab"]);
        check("[!a]*", &["b", "ba"], &["ab", ""]);
        check("{web,db{1,2}}-x", &["web-x", "db2-x"], &["db-x", "db3-x"]);
        check(r"a\*b.c", &["a*b.c"], &["aab.c", "a*bxc"]);
        check("", &[""], &["x"]);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for wrong in [
            "(",
            ")",
            "a)",
            "(a",
            "[a",
            "[z-a]",
            "*",
            "+a",
            "a**",
            "a{2",
            "a{3,2}",
            "a{1001}",
            "a{x}",
            "\\",
            r"\q",
            r"\1",
            "(?=a)",
            "(?P<n>a)",
            "[[:alpha:]]",
            r"[\b]",
            "(((a{1000}){1000}){1000})",
            "((((){1000}){1000}){1000})",
        ] {
            assert!(Regex::new(wrong).is_err(), "{wrong}");
        }
        assert!(Regex::new(&"(".repeat(100_000)).is_err());
        assert!(Regex::new(&"a|".repeat(100_000)).is_err());
        for wrong in ["{a", "a}", "[a", "\\"] {
            assert!(Regex::glob(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_pattern_is_slow() {
        let regex = Regex::new("(a|a)*(a*)*(aa|a?)*[^x]*y$").unwrap();
        assert!(!regex.is_match(&"a".repeat(20_000)));
    }

    /// Random patterns over a small alphabet, compared with a well-kept crate that the tests of others bring along.
    #[test]
    fn the_answers_are_those_of_the_known_crate() {
        const PARTS: [&str; 24] = [
            "a", "b", "c", ".", "[ab]", "[^a]", r"\d", r"\w", r"\b", r"\B", "^", "$", "(a|bc)", "(a|)", "(?:b.)", "|",
            " ", "1", r"\s", "[a-c1-3]", "(ab*)", "_", r"\.", "(^a|c$)",
        ];
        const SIGNS: [&str; 10] = ["", "", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}"];
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |n: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % 1_000_003).unwrap() % n
        };
        for _ in 0..3000 {
            let mut pattern = if random(4) == 0 { "(?i)".to_owned() } else { String::new() };
            for _ in 0..=random(5) {
                let part = PARTS[random(PARTS.len())];
                let sign = if ["|", "^", "$", r"\b", r"\B"].contains(&part) { "" } else { SIGNS[random(SIGNS.len())] };
                pattern.push_str(part);
                pattern.push_str(sign);
            }
            let ours = Regex::new(&pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            let theirs = regex_lite::Regex::new(&pattern).unwrap();
            for _ in 0..8 {
                let text: String =
                    (0..random(9)).map(|_| ['a', 'b', 'c', 'A', '1', ' ', '_', '.', '\n'][random(9)]).collect();
                assert_eq!(ours.is_match(&text), theirs.is_match(&text), "{pattern:?} {text:?}");
            }
        }
    }
}
