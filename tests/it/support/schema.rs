//! Checks answers against the hub's own description: every field described, none missing, none of another type.

use serde_json::Value;

/// The description of a hub's API.
pub struct Description(pub Value);

/// A route of the description.
#[derive(Clone, Debug)]
pub struct Operation {
    pub method: String,
    pub path: String,
    /// Any of them is enough; one empty text when any credential will do.
    pub scopes: Vec<String>,
    pub is_open: bool,
    /// All of its description.
    pub body: Value,
}

impl Description {
    pub fn operations(&self) -> Vec<Operation> {
        let mut all = Vec::new();
        for (path, methods) in self.0["paths"].as_object().unwrap() {
            for (method, body) in methods.as_object().unwrap() {
                let ways = body["security"].as_array().unwrap();
                let keys: Vec<&Value> = ways.iter().filter_map(|way| way.get("key")).collect();
                let scopes = keys.iter().map(|way| way[0].as_str().unwrap_or("").to_owned()).collect();
                let is_open = ways.is_empty() || ways.iter().any(|way| way.get("machine").is_some());
                let method = method.to_ascii_uppercase();
                all.push(Operation { method, path: path.clone(), scopes, is_open, body: body.clone() });
            }
        }
        all
    }

    /// What is wrong with a value, one line each.
    pub fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(schema, value, "", &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str() {
            let named =
                self.0.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is not described"));
            return self.check(named, value, at, faults);
        }
        if let Some(kinds) = schema["anyOf"].as_array() {
            let best = kinds.iter().map(|kind| self.faults(kind, value)).min_by_key(Vec::len).unwrap();
            faults.extend(best.into_iter().map(|fault| format!("{at}{fault}")));
            return;
        }
        let fits = match schema["type"].as_str() {
            None => true,
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("null") => value.is_null(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            Some(other) => panic!("unknown type {other}"),
        };
        if !fits {
            faults.push(format!("{at}: {value} is not {}", schema["type"]));
            return;
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            faults.push(format!("{at}: {value} is none of {words:?}"));
        }
        if schema["format"] == "date-time" && value.as_str().unwrap().parse::<jiff::Timestamp>().is_err() {
            faults.push(format!("{at}: {value} is not a time"));
        }
        if let Some(items) = value.as_array().filter(|_| schema.get("items").is_some()) {
            for (index, item) in items.iter().enumerate() {
                self.check(&schema["items"], item, &format!("{at}[{index}]"), faults);
            }
        }
        let Some(fields) = value.as_object() else { return };
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                faults.push(format!("{at}.{} is missing", name.as_str().unwrap()));
            }
        }
        for (name, field) in fields {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(kind), _) | (None, Some(kind)) => self.check(kind, field, &at, faults),
                (None, None) if schema.get("properties").is_some() => faults.push(format!("{at} is not described")),
                (None, None) => {}
            }
        }
    }
}
