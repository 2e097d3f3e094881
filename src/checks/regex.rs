//! Regular expressions for filters of log lines: a list of states that all advance together, so that no pattern and no
//! line can make it slow. It only says whether something matches.
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
    /// Anything but the end of a line.
    Any,
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
            State::Any => char != '\n',
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
                State::Char(_) | State::Any | State::Class(_) => states.list.push(state),
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
            '.' => State::Any,
            '^' => State::Start,
            '$' => State::End,
            '[' => State::Class(self.class()?),
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

    /// The inside of `[...]`.
    fn class(&mut self) -> Result<Class, &'static str> {
        const OPEN: &str = "a [ without its ]";
        let mut class = Class { negated: self.rest.next_if_eq(&'^').is_some(), ranges: Vec::new() };
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
}

fn known_class(letter: char) -> Option<&'static [(char, char)]> {
    match letter.to_ascii_lowercase() {
        'd' => Some(&[('0', '9')]),
        'w' => Some(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        's' => Some(&[('\t', '\r'), (' ', ' ')]),
        _ => None,
    }
}
