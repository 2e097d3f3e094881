//! `POST /api/v1/mcp`: the hub as a tool server (Model Context Protocol, streamable HTTP without sessions).
//!
//! A tool is a route under another name: its input is the route's description, its scope the route's, and a call of it
//! a call of the route's handler. Nothing is kept between two requests, so GET and DELETE are 405, as the protocol has
//! it for servers without streams and sessions.

use serde_json::{Map, Value, json};
use tiny_http::Method;

use crate::api::error::ApiError;
use crate::api::guard::{self, origin_refused};
use crate::api::login::json_line;
use crate::api::mcp_progress;
use crate::api::mcp_tools::{TOOLS, Tool};
use crate::api::message::{Reply, Req, Responder, Response, json_response};
use crate::api::openapi::notation::{self, Doc};
use crate::api::openapi::{self, parameters, query};
use crate::api::routes::{Call, Params, ROUTES, Route};
use crate::api::server::Ctx;
use crate::auth::{AuthError, Identity};
use crate::mcp::PROTOCOLS;
use crate::rt::Headers;
use crate::rt::json::quoted;
use crate::store::random_hex;

/// How a client says that it takes a stream of events.
const EVENTS: &str = "text/event-stream";

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// Takes one message of a client.
pub(super) fn serve(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let headers = &call.req.headers;
    // Not only with a cookie: a page that guesses at local servers must not reach their tools.
    if !ctx.origins.origin_allowed(headers) {
        return Err(origin_refused());
    }
    if headers.get("mcp-protocol-version").is_some_and(|version| !PROTOCOLS.contains(&version)) {
        return Ok(refuse(400, &Value::Null, INVALID_REQUEST, "this protocol version is not spoken here"));
    }
    let Ok(message) = serde_json::from_slice::<Value>(&call.req.body) else {
        return Ok(refuse(400, &Value::Null, PARSE_ERROR, "the body is not JSON"));
    };
    let (id, method) = (message.get("id").cloned().unwrap_or_default(), message.get("method").and_then(Value::as_str));
    let Some(method) = method else {
        let is_answer = message.get("result").is_some() || message.get("error").is_some();
        return Ok(if is_answer {
            accepted()
        } else {
            refuse(400, &Value::Null, INVALID_REQUEST, "one JSON-RPC message is expected; no batches")
        });
    };
    if !(id.is_string() || id.is_number()) {
        return Ok(accepted());
    }
    let params = message.get("params").cloned().unwrap_or_default();
    Ok(match method {
        "initialize" => result(&id, &hello(&params)),
        "ping" => result(&id, &json!({})),
        "tools/list" => result(&id, &json!({ "tools": list(call)? })),
        "tools/call" => called(ctx, call, id, params)?,
        _ => refuse(200, &id, METHOD_NOT_FOUND, "no such method"),
    })
}

fn hello(params: &Value) -> Value {
    let wanted = params["protocolVersion"].as_str();
    let version = PROTOCOLS.iter().find(|known| Some(**known) == wanted).unwrap_or(&PROTOCOLS[0]);
    json!({
        "protocolVersion": version, "capabilities": {"tools": {}},
        "serverInfo": {"name": "holt", "title": "Holt", "version": env!("CARGO_PKG_VERSION")},
        "instructions": "Agents, machines and alerts of a Holt hub. Tools are those that your key may use.",
    })
}

/// The tools that the caller may use.
fn list(call: &Call<'_>) -> Result<Vec<Value>, ApiError> {
    let caller = caller(call)?;
    let text = openapi::text()?;
    let (types, docs) = notation::read(&text);
    let mut shapes = Vec::new();
    for tool in TOOLS {
        let Some((route, doc)) = find(tool, &docs).filter(|(route, _)| guard::holds(caller, route.guard)) else {
            continue;
        };
        let about = if tool.about.is_empty() { doc.summary } else { tool.about };
        shapes.push(json!({
            "name": tool.name, "description": about, "inputSchema": input(tool, route, doc, &types),
            "annotations": {"readOnlyHint": route.method == "GET", "destructiveHint": route.method == "DELETE"},
        }));
    }
    Ok(shapes)
}

fn find<'a, 'b>(tool: &Tool, docs: &'b [Doc<'a>]) -> Option<(&'static Route, &'b Doc<'a>)> {
    let is_meant = |pattern: &str| pattern.strip_prefix("/api/v1/") == Some(tool.path);
    let route = ROUTES.iter().find(|route| route.method == tool.method && is_meant(route.pattern))?;
    let doc = docs.iter().find(|doc| doc.method == route.method && doc.path == route.pattern)?;
    Some((route, doc))
}

/// Path, query and body in one object.
fn input(tool: &Tool, route: &Route, doc: &Doc<'_>, types: &[(&str, &str)]) -> Value {
    let mut schema = notation::schema(doc.body).unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let mut required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, kind) in query(doc) {
        schema["properties"][name] = kind;
    }
    for name in parameters(route.pattern) {
        schema["properties"][name] = json!({"type": "string"});
        required.push(json!(name));
    }
    for (name, _) in tool.fixed {
        required.retain(|known| known != name);
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.remove(*name);
        }
    }
    schema["required"] = Value::Array(required);
    resolve(&mut schema, types);
    schema
}

/// Puts named types where they are named: a tool's input stands alone.
fn resolve(schema: &mut Value, types: &[(&str, &str)]) {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let named = name.and_then(|name| types.iter().find(|(known, _)| *known == name));
    if let Some(named) = named.and_then(|(_, kind)| notation::schema(kind)) {
        *schema = named;
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(|field| resolve(field, types)),
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, types)),
        _ => {}
    }
}

/// Calls the handler of the tool's route as its caller; what it answers is the result, and so is its refusal.
fn called(ctx: &Ctx, call: &Call<'_>, id: Value, mut params: Value) -> Result<Reply, ApiError> {
    let caller = caller(call)?;
    let name = params["name"].as_str().unwrap_or_default();
    let text = openapi::text()?;
    let (_, docs) = notation::read(&text);
    let found = TOOLS.iter().find(|tool| tool.name == name).and_then(|tool| Some((tool, find(tool, &docs)?)));
    let Some((tool, (route, doc))) = found else {
        return Ok(refuse(200, &id, INVALID_PARAMS, &format!("there is no tool {}", quoted(name))));
    };
    let arguments = match params.get_mut("arguments").map(Value::take) {
        Some(Value::Object(arguments)) => arguments,
        None | Some(Value::Null) => Map::new(),
        Some(_) => return Ok(refuse(200, &id, INVALID_PARAMS, "arguments must be an object")),
    };
    // Only turns of agents take so long that somebody wants to know how they go.
    let token = params["_meta"]["progressToken"].take();
    let takes_events = call.req.headers.get("accept").is_some_and(|types| types.contains(EVENTS));
    let told = takes_events && tool.path == "chat" && (token.is_string() || token.is_number());
    let mut message_id = Value::Null;
    let made = if guard::holds(caller, route.guard) {
        ask(call.req, tool, route, doc, arguments, told).and_then(|(req, params)| {
            if told {
                let body: Value = serde_json::from_slice(&req.body).unwrap_or_default();
                message_id = body["message_id"].clone();
            }
            (route.handler)(ctx, &Call { req: &req, params, caller: Some(caller.clone()) })
        })
    } else {
        Err(AuthError::Scope.into())
    };
    Ok(match made {
        Ok(Reply::Stream(mut start)) if told => {
            let session_id = start.session.stream().id();
            start.shape = Some(mcp_progress::shape(ctx.deps.engine.clone(), session_id, id, token, message_id));
            Reply::Stream(start)
        }
        Ok(Reply::Later(begin)) => Reply::Later(Box::new(move |responder: Responder| {
            begin(Responder::new(move |response| responder.respond(outcome(&id, response))));
        })),
        Ok(Reply::Full(response)) => Reply::Full(outcome(&id, response)),
        Ok(Reply::File(_) | Reply::Stream(_) | Reply::Upgrade(_)) => {
            refuse(200, &id, INVALID_REQUEST, "this tool answers with a stream")
        }
        Err(error) => Reply::Full(outcome(&id, error.into_response())),
    })
}

/// The request of the route that a call stands for.
fn ask(
    outer: &Req,
    tool: &Tool,
    route: &'static Route,
    doc: &Doc<'_>,
    mut arguments: Map<String, Value>,
    takes_events: bool,
) -> Result<(Req, Params), ApiError> {
    let mut values = Vec::new();
    for name in parameters(route.pattern) {
        match arguments.remove(name) {
            Some(value) if is_plain(&value) => values.push((name, plain(&value))),
            _ => return Err(ApiError::bad_request(format!("{name} is required, as a text"))),
        }
    }
    let mut target = format!("{}?", route.pattern);
    for (name, _) in query(doc) {
        match arguments.remove(&name) {
            None | Some(Value::Null) => {}
            Some(value) if is_plain(&value) => {
                target.extend([&*name, "=", &*encoded(&plain(&value)), "&"]);
            }
            Some(_) => return Err(ApiError::bad_request(format!("{name} must be a text or a number"))),
        }
    }
    let body = if doc.body.is_empty() {
        if let Some(name) = arguments.keys().next() {
            return Err(ApiError::bad_request(format!("{} is no argument of this tool", quoted(name))));
        }
        Vec::new()
    } else {
        for (name, value) in tool.fixed {
            let value = value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number));
            arguments.insert((*name).to_owned(), value);
        }
        if tool.repeats && !arguments.contains_key("message_id") {
            arguments.insert("message_id".to_owned(), json!(random_hex::<8>()?));
        }
        serde_json::to_vec(&arguments).unwrap_or_default()
    };
    // Where the request comes from stays as it is; how its answer is wanted was said of the whole.
    let mut kept: Vec<(&str, &str)> = outer
        .headers
        .iter()
        .filter(|(name, _)| !["accept", "last-event-id"].contains(&&*name.to_ascii_lowercase()))
        .collect();
    if takes_events {
        kept.push(("accept", EVENTS));
    }
    let method = route.method.parse().unwrap_or(Method::Get);
    let mut req = Req::local(method, &target, Headers::from_pairs(&kept), body);
    (req.peer, req.secure) = (outer.peer, outer.secure);
    Ok((req, Params::of(values)))
}

fn is_plain(value: &Value) -> bool {
    value.is_string() || value.is_number() || value.is_boolean()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

/// A tool's result: what the route answered, as text.
fn outcome(id: &Value, response: Response) -> Response {
    let status = response.status_code().0;
    let body = response.into_reader().into_inner();
    let text = String::from_utf8_lossy(&body);
    let text = if text.is_empty() { "done" } else { text.trim_end() };
    let result = json!({"content": [{"type": "text", "text": text}], "isError": status >= 400});
    json_line(200, &json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn caller<'a>(call: &'a Call<'_>) -> Result<&'a Identity, ApiError> {
    Ok(call.caller.as_ref().ok_or(AuthError::Missing)?)
}

fn result(id: &Value, result: &Value) -> Reply {
    Reply::Full(json_line(200, &json!({"jsonrpc": "2.0", "id": id, "result": result})))
}

fn refuse(status: u16, id: &Value, code: i32, message: &str) -> Reply {
    Reply::Full(json_line(status, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})))
}

fn accepted() -> Reply {
    Reply::Full(json_response(202, Vec::new()))
}
