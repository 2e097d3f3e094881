//! Models of all providers (contract 4.3; engine 9.4).

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::login::json_line;
use crate::api::message::{Reply, Response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::llm::{Catalog, Listing};
use crate::rt::order::Order;

/// The names of all models. Providers that do not answer are left out.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let missing = || ApiError::new(503, "not_configured", "model listing not available");
    let catalog = ctx.deps.model_lister.as_ref().ok_or_else(missing)?;
    answer(catalog, None, |lists| {
        let mut names: Vec<&str> = lists.iter().flat_map(|list| &list.models).map(|model| model.id.as_str()).collect();
        names.order();
        names.dedup();
        json_line(200, &json!({ "models": names }))
    })
}

/// What is known of each model, of all providers or of `?provider=`.
///
/// `weekly_tokens` is 0: how popular a model is elsewhere is not asked for.
pub(super) fn details(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let missing = || ApiError::new(503, "not_configured", "model details not available");
    let catalog = ctx.deps.model_detail_lister.as_ref().ok_or_else(missing)?;
    let only = call.req.query_param("provider").filter(|name| !name.is_empty());
    let budgets = ctx.deps.cost_tracker.clone();
    answer(catalog, only, move |lists| {
        let mut shapes: Vec<(&str, Value)> = Vec::new();
        for (list, model) in lists.iter().flat_map(|list| list.models.iter().map(move |model| (list, model))) {
            // What the provider says of itself counts before the table.
            let known = || budgets.as_ref()?.prices().lookup(&model.id).map(|price| (price.input, price.output));
            let (input, output) = match (model.input_per_mtok, model.output_per_mtok) {
                (None, None) if list.is_free => (Some(0.0), Some(0.0)),
                (None, None) => known().unzip(),
                told => told,
            };
            let shape = json!({
                "id": model.id, "name": model.name, "provider": list.provider,
                "input_per_mtok": input, "output_per_mtok": output,
                "supports_tools": model.supports_tools, "weekly_tokens": 0,
            });
            shapes.push((&model.id, shape));
        }
        // Stable: of two providers with one id the first configured counts.
        shapes.order_by_key(|(id, _)| *id);
        shapes.dedup_by_key(|(id, _)| *id);
        let shapes: Vec<Value> = shapes.into_iter().map(|(_, shape)| shape).collect();
        let models = if shapes.is_empty() { Value::Null } else { Value::Array(shapes) };
        json_line(200, &json!({ "models": models }))
    })
}

/// At once from fresh lists, else later: no worker waits for a provider.
fn answer(
    catalog: &Arc<Catalog>,
    only: Option<String>,
    render: impl Fn(&[Arc<Listing>]) -> Response + Send + 'static,
) -> Result<Reply, ApiError> {
    if let Some(lists) = catalog.fresh(only.as_deref()) {
        return Ok(Reply::Full(render(&lists)));
    }
    if catalog.is_busy() {
        let busy = ApiError::new(503, "busy", "too many lists of models are being asked for; try again");
        return Err(busy.with_header("Retry-After", "5"));
    }
    let catalog = Arc::clone(catalog);
    // Without a thread the responder is dropped, and answers 500.
    Ok(Reply::Later(Box::new(move |responder| catalog.ask(only, move |lists| responder.respond(render(&lists))))))
}
