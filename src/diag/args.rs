//! Arguments of host tools: one table per tool makes the schema that models see and the check of what they send.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::tools::ToolError;

/// What an argument may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Integer {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    /// `90s`, `15m`, `2h`, `7d`, at most 31 days.
    Duration,
    /// A systemd unit name, part of a process name, or a host.
    Name,
    /// A URL; whoever uses it checks it.
    Url,
}

/// One argument; all are optional.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) description: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
enum Arg {
    Integer(u64),
    Text(String),
    Duration(Duration),
}

/// Checked arguments of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Args {
    values: BTreeMap<&'static str, Arg>,
}

/// Longest look back into logs: more is a job for a log store.
const DURATION_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// Longer URLs are no addresses of health checks.
const URL_BYTES_MAX: usize = 1024;

/// systemd's own limit of a unit name.
const NAME_BYTES_MAX: usize = 255;

impl Args {
    /// Checks `arguments` against the table; null counts as no arguments.
    pub(super) fn parse(params: &'static [Param], arguments: &Value) -> Result<Self, ToolError> {
        let empty = Map::new();
        let given = match arguments {
            Value::Null => &empty,
            Value::Object(given) => given,
            _ => return Err(ToolError::new("arguments must be a JSON object")),
        };
        let mut values = BTreeMap::new();
        for (name, value) in given {
            let Some(param) = params.iter().find(|param| param.name == name) else {
                return Err(ToolError::new(unknown_argument(name, params)));
            };
            // Some models send every optional argument, as null.
            if !value.is_null() {
                values.insert(param.name, parse_one(param, value)?);
            }
        }
        Ok(Self { values })
    }

    pub(super) fn integer(&self, name: &str) -> Option<u64> {
        match self.values.get(name) {
            Some(Arg::Integer(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(Arg::Text(value)) => Some(value),
            _ => None,
        }
    }

    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        match self.values.get(name) {
            Some(Arg::Duration(value)) => Some(*value),
            _ => None,
        }
    }
}

/// The JSON schema of a table.
pub(super) fn schema(params: &[Param]) -> Value {
    let mut properties = Map::new();
    for param in params {
        let mut property = match param.kind {
            Kind::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
            Kind::Choice(choices) => json!({"type": "string", "enum": choices}),
            Kind::Duration => json!({"type": "string", "pattern": "^[0-9]{1,7}[smhd]$"}),
            Kind::Name => {
                json!({"type": "string", "maxLength": NAME_BYTES_MAX, "pattern": "^[A-Za-z0-9_@][A-Za-z0-9:_.@-]*$"})
            }
            Kind::Url => json!({"type": "string", "maxLength": URL_BYTES_MAX, "pattern": "^https?://"}),
        };
        if let Value::Object(property) = &mut property {
            property.insert("description".to_owned(), json!(param.description));
        }
        properties.insert(param.name.to_owned(), property);
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn unknown_argument(name: &str, params: &[Param]) -> String {
    let name = crate::diag::report::clean(name, 40);
    if params.is_empty() {
        return format!("unknown argument \"{name}\": this tool takes none");
    }
    let known: Vec<&str> = params.iter().map(|param| param.name).collect();
    format!("unknown argument \"{name}\": known are {}", known.join(", "))
}

fn parse_one(param: &Param, value: &Value) -> Result<Arg, ToolError> {
    let name = param.name;
    match param.kind {
        Kind::Integer { min, max } => {
            value.as_u64().filter(|number| (min..=max).contains(number)).map(Arg::Integer).ok_or_else(|| {
                ToolError::new(format!("argument \"{name}\" must be a whole number from {min} to {max}"))
            })
        }
        Kind::Choice(choices) => value
            .as_str()
            .filter(|text| choices.contains(text))
            .map(|text| Arg::Text(text.to_owned()))
            .ok_or_else(|| ToolError::new(format!("argument \"{name}\" must be one of {}", choices.join(", ")))),
        Kind::Duration => value.as_str().and_then(parse_duration).map(Arg::Duration).ok_or_else(|| {
            ToolError::new(format!("argument \"{name}\" must be a duration such as 90s, 15m, 2h or 7d, at most 31d"))
        }),
        Kind::Url => value
            .as_str()
            .filter(|text| text.len() <= URL_BYTES_MAX && (text.starts_with("http://") || text.starts_with("https://")))
            .map(|text| Arg::Text(text.to_owned()))
            .ok_or_else(|| ToolError::new(format!("argument \"{name}\" must begin with http:// or https://"))),
        Kind::Name => {
            value.as_str().filter(|text| is_name(text)).map(|text| Arg::Text(text.to_owned())).ok_or_else(|| {
                ToolError::new(format!(
                    "argument \"{name}\" must be a plain name: letters, digits and : _ . @ -, not starting with - or ."
                ))
            })
        }
    }
}

/// The names that systemd gives units, less the backslash: nothing that another program could read as an
/// option, a pattern or a path.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":_.@-".contains(&byte);
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(allowed) && !text.starts_with(['-', '.', ':'])
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 7 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return None,
    };
    let duration = Duration::from_secs(digits.parse::<u64>().ok()?.checked_mul(seconds)?);
    (!duration.is_zero() && duration <= DURATION_MAX).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Param] = &[
        Param { name: "lines", kind: Kind::Integer { min: 1, max: 200 }, description: "" },
        Param { name: "by", kind: Kind::Choice(&["cpu", "memory"]), description: "" },
        Param { name: "since", kind: Kind::Duration, description: "" },
        Param { name: "unit", kind: Kind::Name, description: "" },
    ];

    #[test]
    fn every_odd_argument_gets_a_clear_error() {
        let check = |arguments: Value, expected: &str| {
            let message = Args::parse(TABLE, &arguments).map(|_| ()).unwrap_err().message;
            assert!(message.contains(expected), "{arguments}: {message}");
        };
        check(json!([]), "JSON object");
        check(json!("lines"), "JSON object");
        check(json!({"line": 5}), "unknown argument \"line\": known are lines, by, since, unit");
        check(json!({"lines": 0}), "from 1 to 200");
        check(json!({"lines": 201}), "from 1 to 200");
        check(json!({"lines": -1}), "from 1 to 200");
        check(json!({"lines": 2.5}), "from 1 to 200");
        check(json!({"lines": "5"}), "from 1 to 200");
        check(json!({"by": "disk"}), "one of cpu, memory");
        check(json!({"by": 1}), "one of cpu, memory");
        for since in
            ["", "5", "m", "5 m", "-5m", "5x", "0s", "32d", "99999999s", "1h30m", "yesterday", "5m;reboot", "５m"]
        {
            check(json!({ "since": since }), "duration");
        }
        let long = "x".repeat(256);
        let long = long.as_str();
        for unit in ["", "-rf", "--all", "a b", "a;b", "$(x)", "../x", "a/b", "a*", "ü", ".hidden", "a\nb", long] {
            check(json!({ "unit": unit }), "plain name");
        }
    }

    #[test]
    fn good_arguments_are_kept() {
        let args =
            Args::parse(TABLE, &json!({"lines": 200, "by": "memory", "since": "7d", "unit": "getty@tty1.service"}));
        let args = args.unwrap();
        assert_eq!(args.integer("lines"), Some(200));
        assert_eq!(args.text("by"), Some("memory"));
        assert_eq!(args.duration("since"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(args.text("unit"), Some("getty@tty1.service"));
        let none = Args::parse(TABLE, &json!({"lines": null})).unwrap();
        assert_eq!(none.integer("lines"), None);
        assert!(Args::parse(&[], &Value::Null).is_ok());
        assert_eq!(
            Args::parse(&[], &json!({"a": 1})).unwrap_err().message,
            "unknown argument \"a\": this tool takes none"
        );
    }

    #[test]
    fn the_schema_closes_the_object() {
        let schema = schema(TABLE);
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["properties"]["lines"]["maximum"], json!(200));
        assert_eq!(schema["properties"]["by"]["enum"], json!(["cpu", "memory"]));
    }
}
