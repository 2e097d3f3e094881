//! Paths as they should have been written.

/// The path without `//`, `/./` and `/../` (raw, not escaped), if it has any (contract 1.4).
pub(super) fn cleaned(path: &str) -> Option<String> {
    let dirty = path.contains("//") || path.split('/').any(|segment| segment == "." || segment == "..");
    if !dirty {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{slash}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_paths_are_cleaned() {
        for (path, expected) in [
            ("/a/b", None),
            ("/a/%2e%2e/b", None),
            ("/a//b", Some("/a/b")),
            ("/a/./b/", Some("/a/b/")),
            ("/../../etc", Some("/etc")),
            ("//evil.example", Some("/evil.example")),
            ("/a/..", Some("/")),
        ] {
            assert_eq!(cleaned(path).as_deref(), expected, "{path}");
        }
    }
}
