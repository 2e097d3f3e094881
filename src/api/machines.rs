//! Machines over REST: who they are, what they told, and who may take part (contract agent-link 8).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{decode, json_line, ok};
use crate::api::message::{Reply, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::config::parse_go_duration;
use crate::fleet::hub::{Fleet, Live};
use crate::limits;
use crate::rt::clock;
use crate::rt::fields::typed;
use crate::store::StoreError;
use crate::store::join_codes::{JoinCode, join_code};
use crate::store::machine_readings::Reading;
use crate::store::machine_sessions::MachineSession;
use crate::store::machines::{Machine, MachineState};

/// Hours of readings when the client does not say.
const HOURS: i64 = 24;

#[derive(Default)]
struct ChangeBody {
    display_name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    expected_off: Option<bool>,
}

typed!(ChangeBody { display_name, labels, expected_off });

#[derive(Default)]
struct CodeBody {
    name: String,
    labels: BTreeMap<String, String>,
    ttl: String,
}

typed!(CodeBody { name, labels, ttl });

/// All machines, by name.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let open = open_counts(ctx)?;
    let machines: Vec<Value> = fleet.machines().list()?.iter().map(|machine| shape(fleet, &open, machine)).collect();
    Ok(ok(&json!({"machines": machines})))
}

/// One machine.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    Ok(ok(&shape(fleet, &open_counts(ctx)?, &machine(fleet, call)?)))
}

/// Changes what people give a machine: name, labels, whether it is meant to be off.
pub(super) fn change(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let id = machine(fleet, call)?.id;
    let body: ChangeBody = decode(&call.req.body, "invalid JSON body")?;
    if body.display_name.as_ref().is_some_and(|name| name.len() > limits::MACHINE_TEXT_BYTES_MAX) {
        return Err(ApiError::bad_request(format!(
            "display_name must be at most {} bytes",
            limits::MACHINE_TEXT_BYTES_MAX
        )));
    }
    check_labels(body.labels.as_ref())?;
    let name = body.display_name.as_deref().map(str::trim);
    fleet.machines().set(&id, name, body.labels.as_ref(), body.expected_off).map_err(missing)?;
    note(ctx, call, "machine.change", &id, "");
    now(ctx, fleet, &id)
}

/// Removes a machine with its readings; it may join again.
pub(super) fn forget(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let machine = machine(fleet, call)?;
    fleet.machines().forget(&machine.id).map_err(missing)?;
    note(ctx, call, "machine.forget", &machine.id, machine.name());
    fleet.follow_changes();
    Ok(Reply::Full(no_content()))
}

/// Lets a machine that waits take part.
pub(super) fn approve(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let machine = machine(fleet, call)?;
    let by = call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default();
    let other = || ApiError::new(409, "not_pending", "the machine does not wait for approval");
    fleet.machines().approve(&machine.id, &by).map_err(|error| or_conflict(error, other))?;
    note(ctx, call, "machine.approve", &machine.id, &format!("{} code {}", machine.name(), machine.token_code));
    now(ctx, fleet, &machine.id)
}

/// Ends a machine's part; its connection is closed within a second.
pub(super) fn revoke(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let machine = machine(fleet, call)?;
    let other = || ApiError::new(409, "revoked", "the machine is revoked already");
    fleet.machines().revoke(&machine.id).map_err(|error| or_conflict(error, other))?;
    note(ctx, call, "machine.revoke", &machine.id, machine.name());
    fleet.follow_changes();
    now(ctx, fleet, &machine.id)
}

/// Has a new token handed out over the link.
pub(super) fn rotate(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let machine = machine(fleet, call)?;
    let other = || ApiError::new(409, "no_own_token", "the machine is not approved, or has no token of its own");
    fleet.machines().rotate(&machine.id).map_err(|error| or_conflict(error, other))?;
    note(ctx, call, "machine.rotate", &machine.id, machine.name());
    fleet.follow_changes();
    now(ctx, fleet, &machine.id)
}

/// What heartbeats told, oldest first.
pub(super) fn readings(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let machine = machine(fleet, call)?;
    let most = i64::try_from(limits::MACHINE_READINGS_KEPT.as_secs() / 3600).unwrap_or(HOURS);
    let hours = match call.req.query_param("hours").filter(|text| !text.is_empty()) {
        None => HOURS,
        Some(text) => text
            .parse()
            .ok()
            .filter(|hours| (1..=most).contains(hours))
            .ok_or_else(|| ApiError::bad_request(format!("hours must be from 1 to {most}")))?,
    };
    let since = clock::unix_ms() - hours * 3_600_000;
    let readings: Vec<Value> = fleet.readings().list(&machine.id, since)?.iter().map(reading).collect();
    Ok(ok(&json!({"machine_id": machine.id, "readings": readings})))
}

/// The newest sessions on a machine.
pub(super) fn sessions(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let machine = machine(fleet, call)?;
    let rows = fleet.session_rows().list(&machine.id, limits::MACHINE_SESSIONS_LISTED)?;
    let sessions: Vec<Value> = rows.iter().map(session).collect();
    Ok(ok(&json!({"machine_id": machine.id, "sessions": sessions})))
}

/// All join codes, newest first, without their secrets.
pub(super) fn codes(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let codes: Vec<Value> = ctx.fleet()?.codes().list()?.iter().map(code).collect();
    Ok(ok(&json!({"join_codes": codes})))
}

/// A new join code; it is shown once.
pub(super) fn add_code(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let body: CodeBody = decode(&call.req.body, "invalid JSON body")?;
    if body.name.len() > limits::MACHINE_TEXT_BYTES_MAX {
        return Err(ApiError::bad_request(format!("name must be at most {} bytes", limits::MACHINE_TEXT_BYTES_MAX)));
    }
    check_labels(Some(&body.labels))?;
    let ttl = match body.ttl.as_str() {
        "" => limits::JOIN_CODE_TTL,
        text => parse_go_duration(text)
            .filter(|ttl| (Duration::from_secs(1)..=limits::JOIN_CODE_TTL_MAX).contains(ttl))
            .ok_or_else(|| ApiError::bad_request("ttl must be a duration such as \"1h\", at most 720h"))?,
    };
    let by = call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default();
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let (made, secret) = fleet.codes().create(body.name.trim(), &body.labels, ttl_ms, &by)?;
    note(ctx, call, "machine.join_code", &made.id, &made.name);
    let typed = join_code(&secret, &fleet.key().fingerprint());
    let command = format!("holt agent --hub {} --join {typed}", server(ctx, call));
    let mut body = code(&made);
    body["code"] = json!(typed);
    body["command"] = json!(command);
    Ok(Reply::Full(json_line(201, &body)))
}

/// Removes a join code.
pub(super) fn remove_code(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    ctx.fleet()?.codes().delete(id).map_err(|error| match error {
        StoreError::NotFound => ApiError::not_found("no such join code"),
        other => other.into(),
    })?;
    note(ctx, call, "machine.join_code.delete", id, "");
    Ok(Reply::Full(no_content()))
}

fn machine(fleet: &Fleet, call: &Call<'_>) -> Result<Machine, ApiError> {
    fleet.machines().find(call.params.get("id")).map_err(missing)
}

fn missing(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound => unknown(),
        other => other.into(),
    }
}

fn unknown() -> ApiError {
    ApiError::not_found("no such machine")
}

fn or_conflict(error: StoreError, conflict: impl FnOnce() -> ApiError) -> ApiError {
    match error {
        StoreError::NotFound => conflict(),
        other => other.into(),
    }
}

fn check_labels(labels: Option<&BTreeMap<String, String>>) -> Result<(), ApiError> {
    let Some(labels) = labels else { return Ok(()) };
    let max = limits::MACHINE_TEXT_BYTES_MAX;
    let fits = |(name, value): (&String, &String)| !name.is_empty() && name.len() <= max && value.len() <= max;
    if labels.len() > limits::MACHINE_LABELS_MAX || !labels.iter().all(fits) {
        let text = format!("labels: at most {}, each name and value at most {max} bytes", limits::MACHINE_LABELS_MAX);
        return Err(ApiError::bad_request(text));
    }
    Ok(())
}

/// Where the machine is to connect to: as the client reached us, unless the configuration knows better.
fn server(ctx: &Ctx, call: &Call<'_>) -> String {
    if let Some(url) = &ctx.deps.settings.current().api.external_url {
        return url.trim_end_matches('/').to_owned();
    }
    let is_https = ctx.origins.is_https(&call.req.headers, call.req.peer.ip(), call.req.secure);
    let scheme = if is_https { "https" } else { "http" };
    format!("{scheme}://{}", call.req.headers.get("host").unwrap_or("HUB"))
}

fn time(ms: i64) -> Value {
    if ms == 0 { Value::Null } else { json!(clock::rfc3339(ms)) }
}

/// The answer to a change.
fn now(ctx: &Ctx, fleet: &Fleet, id: &str) -> Result<Reply, ApiError> {
    Ok(ok(&shape(fleet, &open_counts(ctx)?, &fleet.machines().get(id)?.ok_or_else(unknown)?)))
}

/// Open alerts by machine, as the list of alerts has them: a heartbeat knows of them earlier or later.
fn open_counts(ctx: &Ctx) -> Result<HashMap<String, [i64; 3]>, ApiError> {
    Ok(ctx.deps.alerts.as_ref().map(|alerts| alerts.store().open_counts()).transpose()?.unwrap_or_default())
}

fn shape(fleet: &Fleet, open: &HashMap<String, [i64; 3]>, machine: &Machine) -> Value {
    let [critical, warning, info] = open.get(&machine.id).copied().unwrap_or_default();
    let live = fleet.live(&machine.id);
    let connected = live.is_some();
    let live = live.unwrap_or_else(|| Live {
        last_seen_at: machine.last_seen_at,
        heartbeat: Some(machine.heartbeat.clone())
            .filter(|heartbeat| heartbeat.as_object().is_some_and(|it| !it.is_empty())),
        ..Live::default()
    });
    let mut shape = json!({
        "id": machine.id,
        "agent": format!("machine:{}", machine.id),
        "name": machine.name(),
        "display_name": machine.display_name,
        "state": machine.state.name(),
        "presence": machine.presence.name(),
        "presence_at": time(machine.presence_at),
        "connected": connected,
        "connected_at": time(live.connected_at),
        "last_seen_at": time(live.last_seen_at.max(machine.last_seen_at)),
        "expected_off": machine.expected_off,
        "down_reported": machine.down_reported != 0,
        "shared_token": machine.is_shared,
        "rotating": machine.is_rotating,
        "hostname": machine.hostname,
        "ip": machine.ip,
        "address": machine.address,
        "os": machine.os,
        "arch": machine.arch,
        "agent_version": machine.agent_version,
        "plugins": machine.plugins,
        "labels": machine.all_labels(),
        "own_labels": machine.own_labels,
        "heartbeat": live.heartbeat,
        "open_alerts": {"critical": critical, "warning": warning, "info": info},
        "turns": live.turns,
        "created_at": time(machine.created_at),
        "created_by": machine.created_by,
    });
    if machine.state == MachineState::Pending {
        shape["code"] = json!(machine.token_code);
    }
    shape
}

fn reading(reading: &Reading) -> Value {
    json!({
        "at": clock::rfc3339(reading.at), "cpu_pct": reading.cpu_pct, "mem_pct": reading.mem_pct,
        "disk_pct": reading.disk_pct, "load1": reading.load1, "temp_c": reading.temp_c,
    })
}

fn session(row: &MachineSession) -> Value {
    json!({
        "id": row.id, "type": row.kind, "identity": row.identity, "conversation_id": row.conversation_id,
        "state": row.state, "error": row.error, "code": row.code, "tokens_in": row.tokens_in,
        "tokens_out": row.tokens_out, "started_at": time(row.started_at), "ended_at": row.ended_at.map(time),
    })
}

fn code(code: &JoinCode) -> Value {
    json!({
        "id": code.id, "name": code.name, "labels": code.labels, "created_by": code.created_by,
        "created_at": time(code.created_at), "expires_at": time(code.expires_at),
        "machine_id": code.machine_id, "used_at": code.used_at.map(time),
    })
}
