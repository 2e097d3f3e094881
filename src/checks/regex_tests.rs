//! Tests of the matcher: what people write, what they mistype, and a comparison with a known crate.

use super::regex::Regex;

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
        "a", "b", "c", ".", "[ab]", "[^a]", r"\d", r"\w", r"\b", r"\B", "^", "$", "(a|bc)", "(a|)", "(?:b.)", "|", " ",
        "1", r"\s", "[a-c1-3]", "(ab*)", "_", r"\.", "(^a|c$)",
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
