//! Globs over files: `/var/log/*.log`, `/etc/letsencrypt/live/*/fullchain.pem`.

use std::path::{Component, Path, PathBuf};

use crate::checks::glob;
use crate::rt::order::Order;

/// Entries of one directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// Says what is wrong with a glob over files, if anything.
pub(super) fn check(glob: &str) -> Result<(), &'static str> {
    if !glob.starts_with('/') {
        return Err("must be an absolute path, for the agent has no directory of its own");
    }
    if Path::new(glob).components().any(|part| part == Component::ParentDir) {
        return Err("must not go upwards with ..");
    }
    Ok(())
}

/// The paths that match, sorted, at most `n_max`. A path without wildcards is itself if it is there.
///
/// `*` stands for no directory and for no name that begins with a dot, as in a shell.
pub(super) fn expand(pattern: &str, n_max: usize) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next: Vec<PathBuf> = Vec::new();
        for base in &found {
            if glob::is_exact(part) {
                next.push(base.join(part));
                continue;
            }
            let Ok(entries) = std::fs::read_dir(base) else { continue };
            let names = entries.take(ENTRIES_MAX).flatten().filter_map(|entry| entry.file_name().into_string().ok());
            let fits = |name: &String| (part.starts_with('.') || !name.starts_with('.')) && glob::matches(part, name);
            let mut names: Vec<String> = names.filter(fits).collect();
            names.order();
            next.extend(names.into_iter().take(n_max).map(|name| base.join(name)));
        }
        next.truncate(ENTRIES_MAX);
        found = next;
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    found.truncate(n_max);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_find_what_a_shell_finds() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x.log", "a/y.log", "a/.hidden.log", "b/x.log", "b/x.txt"] {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), "").unwrap();
        }
        let root = dir.path().to_str().unwrap();
        let check = |glob: &str, expected: &[&str]| {
            let found = expand(&format!("{root}/{glob}"), 3);
            let found: Vec<_> = found.iter().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap()).collect();
            assert_eq!(found, expected, "{glob}");
        };
        check("*/*.log", &["a/x.log", "a/y.log", "b/x.log"]);
        check("a/.*", &["a/.hidden.log"]);
        check("?/x.*", &["a/x.log", "b/x.log", "b/x.txt"]);
        check("b/x.log", &["b/x.log"]);
        check("b/gone.log", &[]);
        check("c/*", &[]);
        check("*/*", &["a/x.log", "a/y.log", "b/x.log"]);
        assert!(check_ok("/var/log/*.log") && !check_ok("var/log") && !check_ok("/a/../b"));
    }

    fn check_ok(glob: &str) -> bool {
        super::check(glob).is_ok()
    }
}
