//! Secrets in log lines: what stands behind a telling word is not shown.
//!
//! This is a net with wide meshes, not a promise: programs log secrets in every form. It catches the usual ones,
//! `password=...`, `token: ...`, `Authorization: Bearer ...`, `scheme://user:password@host`.

/// Words whose value is hidden, in lower case; a name that ends in one counts as well (`db_password`).
const TELLING: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "bearer",
    "credential",
    "pin",
];

const HIDDEN: &str = "[hidden]";

/// The line with the usual secrets replaced.
pub(crate) fn redact(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut hide_next = false;
    for word in line.split_inclusive([' ', ',', ';', '&']) {
        let (body, end) = split_end(word);
        // A scheme stands between the word and the secret: `Authorization: Bearer abc`.
        let scheme = ["bearer", "basic", "token"].contains(&body.to_ascii_lowercase().as_str());
        if hide_next && !body.is_empty() && !scheme {
            shown.push_str(HIDDEN);
            hide_next = false;
        } else {
            let (text, next) = word_shown(body);
            shown.push_str(&text);
            hide_next = next || (hide_next && (scheme || body.is_empty())) || body.eq_ignore_ascii_case("bearer");
        }
        shown.push_str(end);
    }
    shown
}

fn split_end(word: &str) -> (&str, &str) {
    let body = word.trim_end_matches([' ', ',', ';', '&']);
    word.split_at(body.len())
}

/// One word as it may be shown, and whether the next one is a value to hide.
fn word_shown(word: &str) -> (String, bool) {
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((user, host)) = rest.split_once('@')
        && user.contains(':')
    {
        return (format!("{scheme}://{HIDDEN}@{host}"), false);
    }
    let Some(split) = word.find(['=', ':']) else { return (word.to_owned(), false) };
    let (name, value) = word.split_at(split);
    let tail = name.rsplit(['?', '"', '\'', '{', '(', '[']).find(|part| !part.is_empty()).unwrap_or(name);
    let plain = tail.trim_matches(['"', '\'']).to_ascii_lowercase();
    let tells = plain == "authorization"
        || TELLING.iter().any(|telling| {
            plain.strip_suffix(telling).is_some_and(|before| !before.ends_with(|c: char| c.is_ascii_alphanumeric()))
        });
    if !tells {
        return (word.to_owned(), false);
    }
    if value.trim_matches(['=', ':', '"', '\'']).is_empty() {
        return (word.to_owned(), true);
    }
    let sign = value.get(..1).unwrap_or("=");
    (format!("{name}{sign}{HIDDEN}"), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_secrets_are_hidden_and_nothing_else() {
        let check = |line: &str, expected: &str| assert_eq!(redact(line), expected);
        check("login password=hunter2 ok", "login password=[hidden] ok");
        check("DB_PASSWORD: hunter2, next", "DB_PASSWORD: [hidden], next");
        check("Authorization: Bearer abc.def", "Authorization: Bearer [hidden]");
        check("sent bearer abc", "sent bearer [hidden]");
        check("GET /x?token=abc&y=1 200", "GET /x?token=[hidden]&y=1 200");
        check(r#"{"api_key":"abc","n":1}"#, r#"{"api_key":[hidden],"n":1}"#);
        check("postgres://me:pw@db/x failed", "postgres://[hidden]@db/x failed");
        check("sshd[7]: Failed password for root from 10.0.0.1", "sshd[7]: Failed password for root from 10.0.0.1");
        check("12:00:01 kernel: I/O error, dev sda", "12:00:01 kernel: I/O error, dev sda");
        check("spin=3 mapping=x https://example.org/", "spin=3 mapping=x https://example.org/");
        check("", "");
        check("  ,; token= ", "  ,; token= ");
    }
}
