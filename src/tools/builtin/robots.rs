//! What a site asks robots to leave alone (RFC 9309), asked once an hour per site.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::download::{Downloader, Kind};
use crate::net::guard::CheckedUrl;
use crate::rt::{Cancel, lock};
use crate::tools::ToolError;

/// Contract engine 8.7.
const KEPT: Duration = Duration::from_secs(3600);
const SITES_MAX: usize = 64;
const RULES_MAX: usize = 500;
/// RFC 9309 2.5 asks for at least as much.
const FILE_BYTES_MAX: usize = 500 * 1024;
/// Longer ones are attacks: hardly any address is as long.
const PATTERN_BYTES_MAX: usize = 2 * 1024;
/// What all remembered rules may take together.
const KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Asking must not eat the time that the page needs.
const ASK_TIME: Duration = Duration::from_secs(5);

/// The files that are honoured, and what they said.
pub(super) struct Robots {
    /// `/robots.txt`, `/agents.txt`.
    pub(super) files: Vec<&'static str>,
    /// The name that groups of rules are written for, lower case.
    pub(super) agent: String,
    /// Guarded by the mutex: what was asked before. Nothing is taken under it.
    kept: Mutex<Kept>,
}

/// Rules by address of their file, and when they were got.
#[derive(Default)]
struct Kept(HashMap<String, (Instant, Arc<Rules>)>);

/// Allowed or not, and the pattern of the path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules(Vec<(bool, String)>);

impl Robots {
    pub(super) fn new(files: Vec<&'static str>, user_agent: &str) -> Self {
        let agent = user_agent.split(['/', ' ']).next().unwrap_or("").to_ascii_lowercase();
        Self { files, agent, kept: Mutex::default() }
    }

    /// Whether the page may be got. A file that cannot be read allows everything.
    pub(super) fn check(
        &self,
        url: &CheckedUrl,
        downloader: &Downloader,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<(), ToolError> {
        for file in &self.files {
            let address = format!("{}{file}", url.url().origin());
            let now = Instant::now();
            let known = lock(&self.kept).find(&address, now);
            let rules = match known {
                Some(rules) => rules,
                None => {
                    let rules = Arc::new(self.ask(&address, downloader, deadline.min(now + ASK_TIME), cancel));
                    lock(&self.kept).add(address.clone(), now, Arc::clone(&rules));
                    rules
                }
            };
            if !rules.allow(&url.url().path_and_query) {
                return Err(ToolError::new(format!("{address} asks robots to leave this page alone")));
            }
        }
        Ok(())
    }

    fn ask(&self, address: &str, downloader: &Downloader, deadline: Instant, cancel: &Cancel) -> Rules {
        match downloader.get_start(address, FILE_BYTES_MAX, deadline, cancel, &mut |_| Ok(())) {
            Ok(found) if found.status < 300 && found.kind == Kind::Text => {
                let text = String::from_utf8_lossy(&found.body);
                // Half a rule is another one.
                let whole = if found.cut { text.rfind('\n').unwrap_or(0) } else { text.len() };
                Rules::parse(&text[..whole], &self.agent)
            }
            _ => Rules::default(),
        }
    }
}

impl Kept {
    fn find(&self, address: &str, now: Instant) -> Option<Arc<Rules>> {
        let (at, rules) = self.0.get(address)?;
        (now.saturating_duration_since(*at) < KEPT).then(|| Arc::clone(rules))
    }

    /// Remembers rules; the oldest go until there is room.
    fn add(&mut self, address: String, now: Instant, rules: Arc<Rules>) {
        self.0.insert(address, (now, rules));
        while self.0.len() > SITES_MAX || self.n_bytes() > KEPT_BYTES_MAX {
            let oldest = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(address, _)| address.clone());
            let Some(oldest) = oldest else { break };
            self.0.remove(&oldest);
        }
    }

    fn n_bytes(&self) -> usize {
        self.0.iter().map(|(address, (_, rules))| address.len() + rules.n_bytes()).sum()
    }
}

impl Rules {
    fn n_bytes(&self) -> usize {
        self.0.iter().map(|(_, pattern)| size_of::<(bool, String)>() + pattern.capacity()).sum()
    }

    /// The rules of the groups for `agent`, else of those for everybody.
    fn parse(text: &str, agent: &str) -> Self {
        let (mut ours, mut common) = (Vec::new(), Vec::new());
        let mut named_us = false;
        // Agents of the group whose rules follow; several lines may name some.
        let (mut for_us, mut for_all, mut in_rules) = (false, false, false);
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("");
            let Some((key, value)) = line.split_once(':') else { continue };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match key.as_str() {
                "user-agent" => {
                    if in_rules {
                        (for_us, for_all, in_rules) = (false, false, false);
                    }
                    for_all |= value == "*";
                    for_us |= value.eq_ignore_ascii_case(agent);
                    named_us |= for_us;
                }
                "allow" | "disallow" => {
                    in_rules = true;
                    if value.len() > PATTERN_BYTES_MAX {
                        continue;
                    }
                    let rule = (key == "allow", value.to_owned());
                    if for_us && ours.len() < RULES_MAX {
                        ours.push(rule);
                    } else if for_all && common.len() < RULES_MAX {
                        common.push(rule);
                    }
                }
                _ => {}
            }
        }
        Self(if named_us { ours } else { common })
    }

    /// The longest matching pattern decides; of equals, the one that allows.
    fn allow(&self, path: &str) -> bool {
        let matching = self.0.iter().filter(|(_, pattern)| !pattern.is_empty() && matches(pattern, path));
        matching.max_by_key(|(allowed, pattern)| (pattern.len(), *allowed)).is_none_or(|(allowed, _)| *allowed)
    }
}

/// A prefix with `*` for anything, and `$` for the end.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, to_end) = pattern.strip_suffix('$').map_or((pattern, false), |pattern| (pattern, true));
    let Some((start, pattern)) = pattern.split_once('*') else {
        return if to_end { path == pattern } else { path.starts_with(pattern) };
    };
    let Some(mut rest) = path.strip_prefix(start) else { return false };
    let (middle, last) = pattern.rsplit_once('*').unwrap_or(("", pattern));
    for part in middle.split('*') {
        // The first place is the best one: most is left behind it.
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    if to_end { rest.ends_with(last) } else { rest.contains(last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_followed() {
        let text = "# all\nUser-agent: *\nDisallow: /private # no\nAllow: /private/open\nDisallow: /*.pdf$\n\
            User-agent: other\nUser-Agent: HOLT\nDisallow: /holt\nCrawl-delay: 3\n";
        let all = Rules::parse(text, "someone");
        for (path, allowed) in [
            ("/", true),
            ("/private", false),
            ("/private/x?y", false),
            ("/private/open/x", true),
            ("/a.pdf", false),
            ("/a.pdf?x", true),
            ("/a.pdf.pdf", false),
            ("/holt", true),
        ] {
            assert_eq!(all.allow(path), allowed, "{path}");
        }
        let ours = Rules::parse(text, "holt");
        assert!(ours.allow("/private") && !ours.allow("/holt/x"));
        assert!(Rules::parse("User-agent: *\nDisallow:", "holt").allow("/"));
        assert!(!Rules::parse("user-agent: *\r\ndisallow: /\r\n", "holt").allow("/x"));
        assert!(Rules::parse("Disallow: /\ngarbage \u{0}", "holt").allow("/x"));
        let empty = Rules::parse("User-agent: *\nDisallow: /\nUser-agent: holt\nDisallow:\n", "holt");
        assert!(empty.allow("/x"), "a group of our own that allows all");
    }

    #[test]
    fn patterns_match() {
        for (pattern, path, expected) in [
            ("/a", "/ab", true),
            ("/a$", "/ab", false),
            ("/a$", "/a", true),
            ("/*aa$", "/aaa", true),
            ("/*a*b$", "/xaxbxb", true),
            ("/*a*b$", "/b", false),
            ("*", "/", true),
            ("/a*a$", "/a", false),
            ("/**x", "/yx", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let long = "x".repeat(PATTERN_BYTES_MAX);
        let hostile = format!("User-agent: *\n{}Disallow: /{long}\n", format!("Disallow: {long}\n").repeat(600));
        let rules = Arc::new(Rules::parse(&hostile, "holt"));
        assert_eq!(rules.0.len(), RULES_MAX);
        assert!(rules.0.iter().all(|(_, pattern)| pattern.len() <= PATTERN_BYTES_MAX));
        let mut kept = Kept::default();
        let start = Instant::now();
        for n in 0..10 {
            kept.add(format!("https://{n}.example/robots.txt"), start + Duration::from_secs(n), Arc::clone(&rules));
        }
        assert!(kept.n_bytes() <= KEPT_BYTES_MAX);
        let now = start + Duration::from_secs(10);
        assert!(kept.find("https://9.example/robots.txt", now).is_some());
        assert!(kept.find("https://0.example/robots.txt", now).is_none());
        assert!(kept.find("https://9.example/robots.txt", now + KEPT).is_none());
        for n in 0..SITES_MAX + 5 {
            kept.add(format!("https://{n}.small.example/robots.txt"), now, Arc::default());
        }
        assert_eq!(kept.0.len(), SITES_MAX);
    }
}
