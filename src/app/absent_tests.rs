//! A server with nothing but what it cannot do without: every route of what is missing says so (contract 13.3).

use std::sync::Arc;

use crate::api::message::{Reply, Req};
use crate::api::routes::ROUTES;
use crate::api::{Deps, Server};
use crate::app::App;
use crate::auth::scope::VALID_SCOPES;
use crate::config::{Env, Flags, load};
use crate::rt::Headers;
use crate::store::KeyStore;

/// Beginnings of patterns whose routes need something that can be missing.
const NEED: &[&str] = &[
    "/api/v1/setup",
    "/api/v1/browser/",
    "/api/v1/plugins",
    "/api/v1/server/restart",
    "/api/v1/llm/providers/{name}/test",
    "/api/v1/keys",
    "/api/v1/costs",
    "/api/v1/models",
    "/api/v1/approvals",
    "/api/v1/auto-approve",
    "/api/v1/tools",
    "/api/v1/kv",
    "/api/v1/machines",
    "/api/v1/alerts",
    "/api/v1/silences",
    "/api/v1/schedules",
    "/api/v1/agent/",
];
/// Of these, those that need something else first, or nothing.
const BUT: &[&str] = &[
    "POST /api/v1/setup/account",
    "POST /api/v1/approvals/{id}/button",
    "POST /api/v1/machines/{id}/sessions",
    "GET /api/v1/tools/oauth/callback",
];

/// Enough of a body for every one of them.
const BODY: &str = r#"{"name":"x","command":"x","agent":"default","tool":"x","matchers":{"check":"x"},"for":"1h",
    "value":"x","schedule":"@daily","disabled_tools":[],"scopes":["chat"]}"#;

fn bare(of: &Deps) -> Deps {
    let mut bare = of.clone();
    (bare.key_store, bare.kv_store, bare.cost_tracker, bare.approvals) = (None, None, None, None);
    (bare.model_lister, bare.model_detail_lister, bare.lifecycle, bare.fleet) = (None, None, None, None);
    (bare.alerts, bare.gateway, bare.oidc_provider, bare.web_handler) = (None, None, None, None);
    (bare.scheduler, bare.oauth) = (None, None);
    bare
}

#[test]
fn what_is_missing_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let flags =
        Flags { data_dir: Some(dir.path().to_owned()), listen: Some("127.0.0.1:0".to_owned()), ..Flags::default() };
    let app = App::start(load(&flags, &Env::of([])).unwrap()).unwrap().app;
    let deps = bare(&app.server.ctx().deps);
    let scopes: Vec<String> = VALID_SCOPES.iter().map(|&scope| scope.to_owned()).collect();
    let (_, key) = KeyStore::new(Arc::clone(&deps.db)).create("all", &scopes).unwrap();
    let server = Server::new(deps).unwrap();
    let bearer = format!("Bearer {key}");
    let mut wrong = Vec::new();
    for route in ROUTES {
        let path: Vec<&str> =
            route.pattern.split('/').map(|part| if part.starts_with('{') { "default" } else { part }).collect();
        let headers = Headers::from_pairs(&[("Host", "localhost"), ("Authorization", &bearer)]);
        let req = Req::local(route.method.parse().unwrap(), &path.join("/"), headers, BODY.as_bytes().to_vec());
        let needs = NEED.iter().any(|part| route.pattern.starts_with(part))
            && !BUT.contains(&&*format!("{} {}", route.method, route.pattern));
        let status = match server.http_handler(&req) {
            Reply::Full(response) => response.status_code().0,
            _ => 0,
        };
        if (status == 503) != needs {
            wrong.push(format!("{} {}: {status}", route.method, route.pattern));
        }
    }
    drop(server);
    app.stop();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
