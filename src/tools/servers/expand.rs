//! References to variables in a tool server's configuration (contract engine 8.1). Pure.

use std::collections::BTreeMap;

use crate::config::Env;

/// Why a text cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    name: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "variable {} holds a secret of the hub and is not given to tool servers", self.name)
    }
}

/// `$NAME` and `${NAME}` from the hub's environment, as in values of `env`; a variable that is not set is empty.
pub(super) fn shell_like(text: &str, process: &Env) -> Result<String, Refused> {
    expand(text, true, |name| process.get(name))
}

/// `${NAME}` as in URLs and headers: from the tool's own variables, then from the hub's; not set is empty. What was put
/// in is added to `inserted`: it may be secret.
pub(super) fn placeholders(
    text: &str,
    own: &BTreeMap<String, String>,
    process: &Env,
    inserted: &mut Vec<String>,
) -> Result<String, Refused> {
    expand(text, false, |name| {
        let value = own.get(name).map(String::as_str).or_else(|| process.get(name));
        inserted.extend(value.map(str::to_owned));
        value
    })
}

/// Secrets of the hub itself, which no configuration of a tool may read (contract engine 8.1, and Holt's own).
fn is_refused(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let Some(rest) = name.strip_prefix("DENKEEPER_").or_else(|| name.strip_prefix("HOLT_")) else { return false };
    rest.ends_with("SECRET") || rest.contains("PASSWORD") || rest.ends_with("_KEY") || rest.ends_with("_TOKEN")
}

fn expand<'a>(text: &str, bare: bool, mut value: impl FnMut(&str) -> Option<&'a str>) -> Result<String, Refused> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let braced = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let (name, after) = match braced {
            Some((name, after)) if is_name(name) => (name, after),
            _ if bare => {
                let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
                behind.split_at(end)
            }
            _ => ("", behind),
        };
        rest = after;
        if !is_name(name) {
            out.push('$');
            out.push_str(name);
            continue;
        }
        if is_refused(name) {
            return Err(Refused { name: name.to_owned() });
        }
        out.push_str(value(name).unwrap_or(""));
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_where_the_contract_says_so() {
        let process = Env::of([("A", "1"), ("LONG_NAME", "two"), ("HOLT_LOG_LEVEL", "debug")]);
        let shell = |text: &str| shell_like(text, &process).unwrap();
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$A", "1"),
            ("${A}x$A-$LONG_NAME.", "1x1-two."),
            ("$MISSING|${MISSING}|", "||"),
            ("100$", "100$"),
            ("$5 $-", "$5 $-"),
            ("${bad name} ${", "${bad name} ${"),
            ("$HOLT_LOG_LEVEL", "debug"),
        ] {
            assert_eq!(shell(text), expected, "{text}");
        }
        let own = BTreeMap::from([("A".to_owned(), "own".to_owned())]);
        let mut inserted = Vec::new();
        let filled = placeholders("$A ${A} ${LONG_NAME} ${NO}", &own, &process, &mut inserted).unwrap();
        assert_eq!((filled.as_str(), inserted), ("$A own two ", vec!["own".to_owned(), "two".to_owned()]));
    }

    #[test]
    fn secrets_of_the_hub_are_refused() {
        let process = Env::of([]);
        for name in [
            "DENKEEPER_API_AUTH_SESSION_SECRET",
            "denkeeper_x_secret",
            "DENKEEPER_PASSWORD_HASH",
            "DENKEEPER_DB_KEY",
            "DENKEEPER_OIDC_CLIENT_SECRET",
            "HOLT_API_AUTH_SESSION_SECRET",
            "HOLT_LLM_OPENAI_API_KEY",
            "HOLT_TELEGRAM_TOKEN",
        ] {
            let text = format!("x${{{name}}}");
            assert!(shell_like(&text, &process).is_err(), "{name}");
            assert!(placeholders(&text, &BTreeMap::new(), &process, &mut Vec::new()).is_err(), "{name}");
        }
        assert!(shell_like("${GITHUB_TOKEN}", &process).is_ok());
    }
}
