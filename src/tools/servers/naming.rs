//! The names under which agents are offered the tools of servers (engine 13, row 58). Pure.
//!
//! A name that only one server has stays as it is. A name that several have, or that a built-in tool has, becomes
//! `<server>__<tool>` for each of them, so that it never depends on the order of things which one is called.

use std::collections::{HashMap, HashSet};

/// What models accept: `^[a-zA-Z0-9_-]{1,64}$`.
const NAME_BYTES_MAX: usize = 64;

/// For each server, in order, the offered name of each of its tools.
pub(super) fn offered(servers: &[(&str, Vec<&str>)], built_in: &[String]) -> Vec<Vec<String>> {
    let mut count: HashMap<String, u32> = HashMap::new();
    for name in servers.iter().flat_map(|(_, tools)| tools) {
        *count.entry(valid(name)).or_default() += 1;
    }
    let mut taken: HashSet<String> = built_in.iter().cloned().collect();
    // Plain names first: a prefixed name gives way to them.
    let mut names: Vec<Vec<Option<String>>> = Vec::with_capacity(servers.len());
    for (_, tools) in servers {
        let plain = |tool: &&str| Some(valid(tool)).filter(|name| count[name] == 1 && !taken.contains(name));
        names.push(tools.iter().map(plain).collect());
    }
    taken.extend(names.iter().flatten().flatten().cloned());
    let mut all = Vec::with_capacity(servers.len());
    for ((server, tools), names) in servers.iter().zip(names) {
        let named = tools.iter().zip(names).map(|(tool, name)| {
            name.unwrap_or_else(|| {
                let name = free(&valid(&format!("{server}__{tool}")), &taken);
                taken.insert(name.clone());
                name
            })
        });
        all.push(named.collect());
    }
    all
}

/// The name, or with a number behind it when it is taken.
fn free(name: &str, taken: &HashSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 2_u32;
    while taken.contains(&candidate) {
        let suffix = format!("_{number}");
        candidate = format!("{}{suffix}", &name[..name.len().min(NAME_BYTES_MAX - suffix.len())]);
        number += 1;
    }
    candidate
}

/// The name as models accept it. What had to be shortened ends with a digest, so that it stays its own.
fn valid(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect();
    if plain.is_empty() {
        return "_".to_owned();
    }
    if plain.len() <= NAME_BYTES_MAX {
        return plain;
    }
    // FNV-1a, 32 bits: tells names apart, protects nothing.
    let digest = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}_{digest:08x}", &plain[..NAME_BYTES_MAX - 9])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(servers: &[(&str, Vec<&str>)], expected: &[&[&str]]) {
        let names = offered(servers, &["host_cpu".to_owned()]);
        assert_eq!(names, expected, "{servers:?}");
        let all: Vec<&String> = names.iter().flatten().collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "unique");
        let good = |name: &String| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        assert!(all.into_iter().all(good));
    }

    #[test]
    fn names_stay_unless_they_clash() {
        check(&[("a", vec!["read", "write"]), ("b", vec!["list"])], &[&["read", "write"], &["list"]]);
        check(&[("a", vec!["read"]), ("b", vec!["read", "x"])], &[&["a__read"], &["b__read", "x"]]);
        check(&[("a", vec!["host_cpu"])], &[&["a__host_cpu"]]);
        check(&[("a", vec!["read", "read"])], &[&["a__read", "a__read_2"]]);
        check(&[("a", vec!["b__c", "x"]), ("a__b", vec!["c", "x"])], &[&["b__c", "a__x"], &["c", "a__b__x"]]);
        check(&[("a", vec!["x", "b__x"]), ("a__b", vec!["x"])], &[&["a__x", "b__x"], &["a__b__x"]]);
        check(&[("s", vec!["größe.messen", "a b"])], &[&["gr__e_messen", "a_b"]]);
        check(&[("s", vec!["a.b", "a b"])], &[&["s__a_b", "s__a_b_2"]]);
    }

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        let (one, two) = ("x".repeat(70) + "1", "x".repeat(70) + "2");
        let names = offered(&[("s", vec![&one, &two])], &[]);
        assert_ne!(names[0][0], names[0][1]);
        assert!(names[0].iter().all(|name| name.len() == 64));
    }
}
