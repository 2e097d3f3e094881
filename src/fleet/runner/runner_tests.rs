//! The runners against a scripted model.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::llm::{Phase, ToolCall, ToolSpec, Usage};
use crate::rt::lock;
use crate::tools::{Tool, ToolContext, ToolError};

/// What the model does in one call.
enum Does {
    Says(&'static str),
    Calls(&'static str, Vec<(&'static str, &'static str)>),
    Fails(LlmError),
    Cancels(Cancel),
}

/// Answers from a script, and keeps what it was asked.
#[derive(Default)]
struct Scripted {
    script: Mutex<VecDeque<Does>>,
    asked: Mutex<Vec<(Scene, Vec<Message>, usize)>>,
}

impl Scripted {
    fn new(script: Vec<Does>) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(script.into()), asked: Mutex::default() })
    }

    fn prompts(&self) -> Vec<Vec<Message>> {
        lock(&self.asked).iter().map(|(_, messages, _)| messages.clone()).collect()
    }
}

impl Model for Scripted {
    fn ask(&self, scene: &Scene, request: Request<'_>, _: &Cancel) -> Result<Completion, LlmError> {
        lock(&self.asked).push((scene.clone(), request.messages.to_vec(), request.tools.len()));
        let usage = Usage { input_tokens: 100, output_tokens: 10, ..Usage::default() };
        let says = |text: &str| Completion { text: text.to_owned(), usage, ..Completion::default() };
        match lock(&self.script).pop_front().expect("a step for each call") {
            Does::Says(text) => Ok(says(text)),
            Does::Calls(text, calls) => {
                let call = |(at, (name, arguments)): (usize, (&str, &str))| ToolCall {
                    id: format!("call_{at}"),
                    name: name.to_owned(),
                    arguments: arguments.to_owned(),
                };
                Ok(Completion { tool_calls: calls.into_iter().enumerate().map(call).collect(), ..says(text) })
            }
            Does::Fails(error) => Err(error),
            Does::Cancels(cancel) => {
                cancel.cancel();
                Err(LlmError::Cancelled)
            }
        }
    }
}

/// A tool that answers by a function.
struct Fake {
    spec: ToolSpec,
    answer: fn(&Value, &ToolContext<'_>) -> Result<String, ToolError>,
}

impl Tool for Fake {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        true
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        (self.answer)(arguments, context)
    }
}

fn tool(name: &str, answer: fn(&Value, &ToolContext<'_>) -> Result<String, ToolError>) -> Arc<dyn Tool> {
    let spec = ToolSpec { name: name.to_owned(), description: String::new(), parameters: json!({"type": "object"}) };
    Arc::new(Fake { spec, answer })
}

fn tools() -> ToolSet {
    ToolSet::new(vec![
        tool("host_cpu", |_, _| {
            Ok(json!({"used_percent": 97, "cores": 4, "findings": [{"level": "critical", "what": "CPU use", "value": 97,
                      "unit": "%", "threshold": "cpu_used_percent: critical from 95 %"}]})
            .to_string())
        }),
        tool("host_processes", |_, _| {
            Ok(json!({"by": "cpu", "processes": [{"name": "ffmpeg", "cpu_percent": 380}], "findings": []}).to_string())
        }),
        tool("fails", |_, _| Err(ToolError::new("no such thing"))),
        tool("panics", |_, _| panic!("expected by the test")),
        tool("long", |_, _| Ok("é".repeat(40_000))),
        tool("waits", |_, context| {
            // Cancelled by the test as soon as it runs; anything else is the deadline.
            while !context.cancel.is_set() && std::time::Instant::now() < context.deadline {
                std::thread::yield_now();
            }
            Err(ToolError::new("cancelled"))
        }),
    ])
}

type Told = Vec<(Stage, String, Metadata)>;

fn runners(model: &Arc<Scripted>) -> Runners {
    Runners::new(Settings::default(), Some(Arc::clone(model) as Arc<dyn Model>), tools())
}

fn run(runners: &Runners, mode: &str, plugin: &str, cancel: &Cancel) -> (Result<String, RunError>, Told) {
    let mut told = Told::new();
    let mut callback = |text: &str, stage: Stage, metadata: Metadata| told.push((stage, text.to_owned(), metadata));
    let params = Map::from_iter([("descriptions".to_owned(), json!("cpu::cpu_usage Critical: 97 %"))]);
    let result = runners.run_streaming(mode, plugin, "localhost", &params, &mut callback, cancel);
    (result, told)
}

/// What was told after the look that makes the baseline.
fn after_baseline(told: &Told) -> Vec<(Stage, &str)> {
    let start = told.iter().position(|(stage, ..)| *stage == Stage::Thinking).unwrap();
    // Times differ from run to run.
    told[start..]
        .iter()
        .map(|(stage, text, _)| (*stage, text.rsplit_once(", ").map_or(text.as_str(), |cut| cut.0)))
        .collect()
}

#[test]
fn a_run_tells_its_rounds_its_calls_and_its_report() {
    let model = Scripted::new(vec![
        Does::Calls("First the processors.", vec![("host_cpu", ""), ("fails", "{\"a\":1}")]),
        Does::Calls("", vec![("nothing", "{}"), ("panics", "{}"), ("host_cpu", "[]"), ("host_cpu", "{")]),
        Does::Says("ffmpeg keeps it busy."),
    ]);
    let (result, told) = run(&runners(&model), "diagnose", "cpu", &Cancel::new());
    assert_eq!(result.unwrap(), "ffmpeg keeps it busy.");
    let told = after_baseline(&told);
    assert_eq!(told[0], (Stage::Thinking, "[Round 1] AI thinking..."));
    assert_eq!(told[1], (Stage::Answer, "First the processors."));
    assert_eq!(told[2], (Stage::ToolCall, "[Tool] host_cpu "));
    assert_eq!(told[3], (Stage::ToolCall, "[Tool] fails {\"a\":1}"));
    let mut ends = [told[4].1, told[5].1];
    ends.sort_unstable();
    assert_eq!(ends[0], "[Tool done] fails (error, 20B");
    assert!(ends[1].starts_with("[Tool done] host_cpu (ok, "));
    assert_eq!(told[6], (Stage::Thinking, "[Round 2] AI thinking..."));
    assert_eq!(told.last(), Some(&(Stage::Answer, "ffmpeg keeps it busy.")));
    let prompts = model.prompts();
    let results: Vec<&str> = prompts[2].iter().filter(|m| m.role == Role::Tool).map(|m| m.content.as_str()).collect();
    assert!(results[0].starts_with('{'));
    assert_eq!(results[1], "error: no such thing");
    assert_eq!(results[2], "error: there is no tool named \"nothing\" here");
    assert!(results[3].contains("crashed"));
    assert!(results[4].contains("JSON object") && results[5].contains("not valid JSON"));
    // The prompt holds the alert and what the planner found, and the run has a scene.
    let system = &prompts[0][0].content;
    assert!(system.contains("cpu::cpu_usage Critical: 97 %") && system.contains("`ffmpeg` keeps the processors busy"));
    let scene = lock(&model.asked)[0].0.clone();
    assert_eq!((scene.name, scene.plugin.as_str(), scene.target.as_str()), ("diagnose", "cpu", "localhost"));
    assert!(scene.run_id.starts_with("diagnose_cpu_"));
}

#[test]
fn calls_carry_what_the_audit_and_the_page_need() {
    let model = Scripted::new(vec![Does::Calls("", vec![("host_cpu", "{}")]), Does::Says("Done.")]);
    let (_, told) = run(&runners(&model), "diagnose", "cpu", &Cancel::new());
    let start = told.iter().position(|(stage, ..)| *stage == Stage::Thinking).unwrap();
    let call = &told[start + 1].2;
    assert_eq!((call.tool.as_deref(), call.round, call.tool_ok), (Some("host_cpu"), Some(1), None));
    assert_eq!((call.tokens_in, call.tokens_out), (Some(100), Some(10)));
    let end = &told[start + 2].2;
    assert_eq!((end.tool.as_deref(), end.tool_ok), (Some("host_cpu"), Some(true)));
    assert!(end.duration_ms.is_some());
    let last = &told.last().unwrap().2;
    assert_eq!((last.round, last.tokens_in, last.tokens_out), (Some(2), Some(200), Some(20)));
}

#[test]
fn the_last_round_demands_the_report() {
    let settings = Settings { rounds_max: 3, ..Settings::default() };
    let calls = || Does::Calls("", vec![("host_cpu", "{}")]);
    let model = Scripted::new(vec![calls(), calls(), Does::Calls("What I know.", vec![("host_cpu", "{}")])]);
    let runners = Runners::new(settings, Some(Arc::clone(&model) as Arc<dyn Model>), tools());
    assert_eq!(run(&runners, "diagnose", "cpu", &Cancel::new()).0.unwrap(), "What I know.");
    let asked = lock(&model.asked);
    assert_eq!(asked[2].1.last().unwrap().content, prompt::REPORT_NOW);
    assert_eq!((asked[1].2 > 0, asked[2].2), (true, 0));
}

#[test]
fn a_silent_model_is_asked_once_more_and_a_repeating_one_is_stopped() {
    let again = || Does::Calls("", vec![("host_cpu", "{}")]);
    let model = Scripted::new(vec![again(), again(), again(), again(), Does::Says(" "), Does::Says("")]);
    let (result, _) = run(&runners(&model), "diagnose", "cpu", &Cancel::new());
    assert_eq!(result.unwrap(), "");
    let prompts = model.prompts();
    let refused = prompts[4].iter().filter(|m| m.content.contains("this very call was made before")).count();
    assert_eq!(refused, 1);
    assert_eq!(prompts[5].last().unwrap().content, prompt::ANSWER_NOW);
}

#[test]
fn small_windows_are_kept() {
    let settings = Settings { context_tokens: 8_192, ..Settings::default() };
    let long = || Does::Calls("", vec![("long", "{}")]);
    let model = Scripted::new(vec![long(), Does::Says("Fine.")]);
    let runners = Runners::new(settings, Some(Arc::clone(&model) as Arc<dyn Model>), tools());
    assert_eq!(run(&runners, "diagnose", "cpu", &Cancel::new()).0.unwrap(), "Fine.");
    for prompt in model.prompts() {
        assert!(budget::tokens(&prompt) < 8_192 * 8 / 10, "{}", budget::tokens(&prompt));
    }
    // 80,000 bytes were cut at 32 KiB, then to what the window holds.
    let prompts = model.prompts();
    assert!(prompts[1].iter().any(|m| m.role == Role::Tool && m.content.contains("[cut: the conversation")));
}

#[test]
fn a_prompt_that_the_model_finds_too_long_is_shortened() {
    let too_long =
        || Does::Fails(LlmError::Status { status: 400, message: "context length exceeded".into(), retry_after: None });
    let model = Scripted::new(vec![Does::Calls("", vec![("long", "{}")]), too_long(), Does::Says("Fine.")]);
    assert_eq!(run(&runners(&model), "diagnose", "cpu", &Cancel::new()).0.unwrap(), "Fine.");
    let prompts = model.prompts();
    assert!(budget::tokens(&prompts[2]) <= budget::tokens(&prompts[1]) / 2);
}

#[test]
fn without_a_model_the_planner_answers() {
    for model in [None, Some(Scripted::new(vec![Does::Fails(refused())]))] {
        let has_model = model.is_some();
        let runners = Runners::new(Settings::default(), model.map(|model| model as Arc<dyn Model>), tools());
        let (result, told) = run(&runners, "diagnose", "cpu", &Cancel::new());
        let report = result.unwrap();
        assert!(report.starts_with("`ffmpeg` keeps the processors busy: 380 % of one core ("), "{report}");
        assert_eq!(told.last().map(|(stage, text, _)| (*stage, text.as_str())), Some((Stage::Answer, report.trim())));
        assert_eq!(told.iter().any(|(_, text, _)| text.starts_with("The model cannot be asked")), has_model);
    }
}

fn refused() -> LlmError {
    LlmError::Timeout { phase: Phase::Connect, after: Duration::from_secs(1) }
}

#[test]
fn only_what_is_known_is_inspected() {
    let runners = Runners::new(Settings::default(), None, tools());
    let (result, told) = run(&runners, "inspect", "redis", &Cancel::new());
    let RunError::Failed(why) = result.unwrap_err() else { panic!("not cancelled") };
    assert!(why.contains("\"redis\" cannot be inspected here: known are system, cpu") && told.is_empty(), "{why}");
    assert!(run(&runners, "diagnose", "redis", &Cancel::new()).0.is_ok(), "an alert of somebody's own check");
    assert!(run(&runners, "reboot", "cpu", &Cancel::new()).0.is_err());
}

#[test]
fn a_cancel_reaches_the_model_and_the_tools() {
    let cancel = Cancel::new();
    let model = Scripted::new(vec![Does::Cancels(cancel.clone())]);
    assert_eq!(run(&runners(&model), "diagnose", "cpu", &cancel).0, Err(RunError::Cancelled));
    for calls in [vec![("waits", "{}")], vec![("waits", "{}"), ("host_cpu", "{}"), ("waits", "{\"n\":2}")]] {
        let cancel = Cancel::new();
        let model = Scripted::new(vec![Does::Calls("", calls)]);
        let runners = Runners::new(
            Settings { tool_timeout: Duration::from_secs(30), ..Settings::default() },
            Some(model as Arc<dyn Model>),
            tools(),
        );
        let from_callback = cancel.clone();
        // From another thread: the callback runs on the one that makes the calls.
        let (begun_tx, begun_rx) = crossbeam_channel::bounded::<()>(1);
        let threads = Threads::new();
        threads
            .spawn("cancels", 64 * 1024, move || {
                let _ = begun_rx.recv();
                from_callback.cancel();
            })
            .unwrap();
        let mut callback = |text: &str, _: Stage, _: Metadata| {
            if text.starts_with("[Tool] waits") {
                let _ = begun_tx.try_send(());
            }
        };
        let result = runners.run_streaming("diagnose", "cpu", "", &Map::new(), &mut callback, &cancel);
        assert_eq!(result, Err(RunError::Cancelled));
        assert!(threads.join_all(Duration::from_secs(30)).is_empty());
    }
}

fn chat(runners: &Runners, history: Vec<Message>) -> Box<dyn ChatHandle> {
    let opts = ChatSessionOpts { history, ..ChatSessionOpts::default() };
    runners.new_session(opts, &mut |_, _, _| {}, &Cancel::new()).unwrap()
}

#[test]
fn a_chat_remembers_and_a_failed_turn_leaves_no_trace() {
    let model = Scripted::new(vec![
        Does::Calls("Let me see.", vec![("host_cpu", "{}")]),
        Does::Says("Busy."),
        Does::Says("Still busy."),
    ]);
    let mut handle =
        chat(&runners(&model), vec![Message::text(Role::User, "Hi"), Message::text(Role::Assistant, "Ho")]);
    let mut told = Vec::new();
    let mut callback = |text: &str, stage: Stage, _: Metadata| told.push((stage, text.to_owned()));
    assert_eq!(handle.handle_message("busy?", &mut callback, &Cancel::new()).unwrap(), "Busy.");
    let stages: Vec<Stage> = told.iter().map(|(stage, _)| *stage).collect();
    let names: Vec<&str> = stages.iter().map(|stage| stage.name()).collect();
    assert_eq!(names.join(" "), "thinking thinking answer tool_call tool_result thinking thinking");
    assert_eq!(told[0].1, "[Round 1] thinking...");
    assert!(told[1].1.starts_with("[Round 1 done] "));
    let cancelled = Cancel::new();
    cancelled.cancel();
    assert_eq!(handle.handle_message("lost", &mut |_, _, _| {}, &cancelled), Err(RunError::Cancelled));
    assert_eq!(handle.handle_message("and now?", &mut |_, _, _| {}, &Cancel::new()).unwrap(), "Still busy.");
    let prompts = model.prompts();
    let last: Vec<&str> = prompts[2].iter().map(|message| message.content.as_str()).collect();
    assert_eq!((last[1], last[2], last[3], last[4]), ("Hi", "Ho", "busy?", "Let me see."));
    assert_eq!((last[6], last[7], last.len()), ("Busy.", "and now?", 8));
    assert!(last[0].contains("`ffmpeg` keeps the processors busy"), "{}", last[0]);
}

#[test]
fn without_its_model_a_chat_is_answered_by_the_planner() {
    let model = Scripted::new(vec![Does::Calls("Let me see.", vec![("host_cpu", "{}")]), Does::Fails(refused())]);
    let mut handle = chat(&runners(&model), Vec::new());
    let mut told = String::new();
    let mut callback = |text: &str, _: Stage, _: Metadata| told.push_str(text);
    let reply = handle.handle_message("how is the processor doing?", &mut callback, &Cancel::new()).unwrap();
    assert!(!reply.is_empty() && !reply.starts_with("[incomplete]"), "{reply}");
    assert!(told.contains("the built-in planner looks instead"), "{told}");
}

#[test]
fn a_chat_that_uses_all_its_rounds_says_so() {
    let settings = Settings { chat_rounds_max: 2, ..Settings::default() };
    let model = Scripted::new(vec![Does::Calls("", vec![("host_cpu", "{}")]), Does::Says("Half of it.")]);
    let runners = Runners::new(settings, Some(Arc::clone(&model) as Arc<dyn Model>), tools());
    let reply = chat(&runners, Vec::new()).handle_message("all?", &mut |_, _, _| {}, &Cancel::new()).unwrap();
    assert_eq!(reply, "[incomplete] Half of it.");
}

#[test]
fn a_chat_without_a_model_is_answered_by_the_planner() {
    let runners = Runners::new(Settings::default(), None, tools());
    let mut handle = chat(&runners, Vec::new());
    let reply = handle.handle_message("how busy is the cpu?", &mut |_, _, _| {}, &Cancel::new()).unwrap();
    assert!(reply.starts_with("1 thing needs attention: CPU use 97 %."), "{reply}");
    let reply = handle.handle_message("which process?", &mut |_, _, _| {}, &Cancel::new()).unwrap();
    assert!(reply.starts_with("`ffmpeg` uses most of the CPU"), "{reply}");
}

#[test]
fn tools_answer_to_the_names_of_the_reference_too() {
    let calls = vec![("cpu_overview", "{}"), ("top_cpu_processes", "{\"limit\":\"3\"}"), ("docker_ps", "{}")];
    let model = Scripted::new(vec![Does::Calls("", calls), Does::Says("Fine.")]);
    assert_eq!(run(&runners(&model), "diagnose", "cpu", &Cancel::new()).0.unwrap(), "Fine.");
    let prompts = model.prompts();
    let results: Vec<&str> = prompts[1].iter().filter(|m| m.role == Role::Tool).map(|m| m.content.as_str()).collect();
    assert!(results[0].contains("used_percent") && results[1].contains("ffmpeg"));
    assert_eq!(results[2], "error: there is no tool named \"docker_ps\" here", "host_docker is not offered here");
}
