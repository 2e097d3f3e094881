//! What the API is, for programs: `GET /api/v1/openapi.json`, made of the table of routes and of `routes.txt`; and for
//! language models, `GET /llms.txt`.

pub(super) mod notation;

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::api::login::json_line;
use crate::api::message::{Reply, response};
use crate::api::openapi::notation::{Answer, Doc, schema};
use crate::api::routes::{Call, Guard, ROUTES, Route};
use crate::api::server::Ctx;
use crate::auth;
use crate::rt::order::gather;

/// `routes.txt`, compressed by the build.
static TEXT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/routes.gz"));

const LLMS: &str = "# Holt\n\n\
    This is a Holt hub: it keeps AI agents and machines of a home or an edge site. Agents answer messages, call tools \
    (after approval, where that is asked for) and run on schedules; machines report their state and alerts.\n\n\
    ## How to use it\n\n\
    - [API description](/api/v1/openapi.json): OpenAPI 3.1. Needs an API key: `Authorization: Bearer dk_...`.\n\
    - MCP server: POST /api/v1/mcp (streamable HTTP), the same key. Its tools are those that the key may use.\n\
    - Chat: POST /api/v1/chat with `{\"message\": \"...\"}`; with `Accept: text/event-stream` as events.\n\
    - [Health](/api/v1/health): open.\n\n\
    People make keys in the dashboard (/) or with `holt keys create`.\n";

/// The text behind [`notation::read`].
pub(super) fn text() -> Result<String, ApiError> {
    let mut text = String::new();
    GzDecoder::new(TEXT).read_to_string(&mut text).map_err(|error| ApiError::internal(&error))?;
    Ok(text)
}

/// What this hub is, in words.
pub(super) fn llms(_ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(Reply::Full(response(200, "text/plain; charset=utf-8", LLMS.as_bytes().to_vec())))
}

/// The description of all routes.
pub(super) fn document(_ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let text = text()?;
    Ok(Reply::Full(json_line(200, &described(&text))))
}

fn described(text: &str) -> Value {
    let (types, docs) = notation::read(text);
    let mut paths = Map::new();
    for route in ROUTES {
        let doc = docs.iter().find(|doc| doc.method == route.method && doc.path == route.pattern);
        let path = paths.entry(route.pattern.replace("...}", "}")).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route, doc);
    }
    let schemas: Map<String, Value> =
        gather(types.into_iter().filter_map(|(name, kind)| Some((name.to_owned(), schema(kind)?))));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holt", "version": env!("CARGO_PKG_VERSION"),
            "description": "Errors of every route: 400 bad input, 401 no valid credential, 403 a missing scope, 404, \
                            405, 409, 413, 429 too many requests (Retry-After), 500 (its id is in the log), 503 not \
                            configured or busy, 507 the disk is full.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Error": {
                "description": "An error",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key"},
                "login": {"type": "apiKey", "in": "cookie", "name": auth::cookie::COOKIE_NAME},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
                "machine": {"type": "apiKey", "in": "header", "name": "X-Agent-Token"},
            },
        },
    })
}

fn operation(route: &Route, doc: Option<&Doc<'_>>) -> Value {
    let pattern = route.pattern;
    let words: Vec<&str> =
        pattern.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let own = words.strip_prefix(&["api", "v1"]).unwrap_or(&words);
    let method = route.method.to_ascii_lowercase();
    let mut operation = json!({
        "operationId": format!("{method}_{}", own.join("_")), "tags": own.first().map_or_else(Vec::new, |tag| vec![*tag]),
        "security": security(route), "responses": {"default": {"$ref": "#/components/responses/Error"}},
    });
    let mut parameters: Vec<Value> = parameters(pattern)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if let Some(doc) = doc {
        operation["summary"] = json!(doc.summary);
        for (name, kind) in query(doc) {
            parameters.push(json!({"name": name, "in": "query", "schema": kind}));
        }
        if let Some(kind) = schema(doc.body) {
            operation["requestBody"] = json!({
                "required": !doc.body_is_optional, "content": {"application/json": {"schema": kind}},
            });
        }
        for answer in &doc.answers {
            operation["responses"][answer.status] = described_answer(answer);
        }
    }
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    operation
}

/// Names of a pattern's parameters.
pub(super) fn parameters(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('{').skip(1).filter_map(|rest| rest.split(['}', '.']).next())
}

/// The fields of a query with their schemas.
pub(super) fn query(doc: &Doc<'_>) -> Vec<(String, Value)> {
    match schema(doc.query).as_mut().and_then(|schema| schema.get_mut("properties")).map(Value::take) {
        Some(Value::Object(fields)) => fields.into_iter().collect(),
        _ => Vec::new(),
    }
}

fn described_answer(answer: &Answer<'_>) -> Value {
    let mut described = json!({ "description": answer.summary });
    for body in &answer.bodies {
        match schema(body) {
            Some(kind) => described["content"]["application/json"] = json!({ "schema": kind }),
            None => described["content"][body] = json!({"schema": {"type": "string"}}),
        }
    }
    described
}

/// Each alternative names one scope: any of them is enough.
fn security(route: &Route) -> Value {
    let (scopes, schemes): (&[&str], &[&str]) = match route.guard {
        Guard::Open if route.pattern.starts_with("/api/v1/agent/") => return json!([{"machine": []}]),
        Guard::Open => return json!([]),
        Guard::Scope(scopes) => (scopes, &["key", "login"]),
        Guard::Socket(scopes) => (scopes, &["key", "login", "query"]),
    };
    let mut ways = Vec::new();
    for scheme in schemes {
        for scope in scopes {
            let names: Vec<&str> = Some(*scope).filter(|scope| *scope != auth::ANY_SCOPE).into_iter().collect();
            ways.push(json!({ *scheme: names }));
        }
    }
    Value::Array(ways)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_described_and_every_description_is_well_formed() {
        let text = text().unwrap();
        let (types, docs) = notation::read(&text);
        for route in ROUTES {
            let described = docs.iter().filter(|doc| doc.method == route.method && doc.path == route.pattern).count();
            assert_eq!(described, 1, "routes.txt on {} {}", route.method, route.pattern);
        }
        let mut kinds: Vec<&str> = types.iter().map(|(_, kind)| *kind).collect();
        for doc in &docs {
            assert!(!doc.summary.is_empty(), "{} {}", doc.method, doc.path);
            kinds.extend([doc.query, doc.body].iter().filter(|kind| !kind.is_empty()));
            kinds.extend(doc.answers.iter().flat_map(|answer| &answer.bodies).filter(|body| !body.contains('/')));
        }
        for kind in kinds {
            let found = schema(kind);
            assert!(found.is_some(), "{kind}");
            for name in found.unwrap().to_string().split("#/components/schemas/").skip(1) {
                let name = name.split('"').next().unwrap();
                assert!(types.iter().any(|(known, _)| *known == name), "{name} in {kind}");
            }
        }
        for (name, _) in &types {
            assert!(text.matches(&format!("@{name}")).count() > 1 || *name == "Error", "{name} is used nowhere");
        }
    }

    #[test]
    fn parameters_are_found() {
        let check = |pattern: &str, names: &[&str]| assert_eq!(parameters(pattern).collect::<Vec<_>>(), names);
        check("/a", &[]);
        check("/a/{id}/b", &["id"]);
        check("/kv/{agent}/{key...}", &["agent", "key"]);
    }
}
