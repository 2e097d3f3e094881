//! The shape of the code, checked: which room may use which, how long files are, and words that must not stay.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by its panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top down. A room may use those of its own layer and of layers below.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["http", "ws", "web"],
    &["api"],
    &[
        "auth", "chat", "agents", "tools", "diag", "checks", "notify", "fleet", "costs", "audit", "sched", "moving",
        "skills",
    ],
    &["llm", "mcp", "store"],
    &["net", "tls"],
    &["alert", "rt", "sys", "config", "limits", "metrics"],
];

/// Longer files are split by noun. Files of tests (`*_tests.rs`) may hold longer tables.
const LINES_MAX: usize = 450;

fn sources() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("src"), &mut found);
    found.sort();
    found
}

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn room_of(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap();
    below.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The rooms that the `use crate::` lines of a file name, tests at its foot included.
fn used_rooms(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let names = match rest.strip_prefix('{') {
                Some(list) => {
                    list.split('}').next().unwrap_or("").split(',').map(|name| name.trim().to_owned()).collect()
                }
                None => vec![rest.to_owned()],
            };
            for name in names {
                let room = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
                if layer_of(&room).is_some() {
                    rooms.push(room);
                }
            }
        }
    }
    rooms
}

#[test]
fn rooms_use_only_what_is_beside_or_below_them() {
    let mut upward = Vec::new();
    for path in sources() {
        let room = room_of(&path);
        let Some(layer) = layer_of(&room) else {
            assert!(["lib", "build", "conformance"].contains(&room.as_str()), "{room} has no layer: name it in LAYERS");
            continue;
        };
        for used in used_rooms(&fs::read_to_string(&path).unwrap()) {
            if layer_of(&used).unwrap() < layer {
                upward.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "upward dependencies:\n{}", upward.join("\n"));
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            let tests = path.to_str().is_some_and(|path| path.ends_with("tests.rs"));
            (lines > LINES_MAX && !tests).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "split by noun:\n{}", long.join("\n"));
}

#[test]
fn libraries_stay_in_their_rooms() {
    let homes: &[(&str, &[&str])] = &[
        ("rusqlite", &["store", "auth"]),
        ("tungstenite", &["ws", "cli", "fleet"]),
        ("httparse", &["http"]),
        ("polling", &["http", "sys", "fleet"]),
        ("tiny_http", &["http", "api", "web"]),
        ("aes_gcm", &["auth", "config"]),
        ("ureq", &["net"]),
        ("toml_edit", &["config"]),
        ("lexopt", &["cli"]),
    ];
    for path in sources() {
        let room = room_of(&path);
        let text = fs::read_to_string(&path).unwrap();
        for (library, rooms) in homes {
            let used = text.lines().any(|line| line.trim_start().starts_with(&format!("use {library}")));
            assert!(!used || rooms.contains(&room.as_str()), "{} uses {library}", path.display());
        }
    }
}

#[test]
fn unsafe_stands_in_one_file_and_nothing_is_left_undone() {
    // Spelled in two parts, so that this file does not find itself.
    let undone =
        [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["FIX", "ME"].concat(), ["X", "XX"].concat()];
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for word in &undone {
            assert!(!text.contains(word.as_str()), "{} holds {word}", path.display());
        }
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let unsafe_code = code.filter(|line| line.contains("unsafe {") || line.contains("unsafe fn")).count();
        assert!(unsafe_code == 0 || path == Path::new("src/sys.rs"), "{} has unsafe code", path.display());
    }
}
