//! From a wish to tool calls: which tools, with which arguments, each once.

use serde_json::{Map, Value, json};

use crate::llm::local::sections::MACHINES;
use crate::llm::local::wish::{By, Look, Topic};

/// A tool and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) tool: &'static str,
    pub(super) arguments: Value,
}

/// The bounds of the tools' own schemas.
const LINES_MAX: u64 = 200;
const PROCESSES_MAX: u64 = 50;

/// Linux keeps 15 bytes of a process name.
const COMM_BYTES_MAX: usize = 15;

/// The calls for a wish, in the order in which the report speaks of them.
pub(super) fn plan(look: &Look) -> Vec<Planned> {
    let mut calls: Vec<Planned> = Vec::new();
    for topic in &look.topics {
        for call in calls_of(*topic, look) {
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
    }
    calls
}

fn calls_of(topic: Topic, look: &Look) -> Vec<Planned> {
    let plain =
        |names: &[&'static str]| names.iter().map(|tool| Planned { tool, arguments: json!({}) }).collect::<Vec<_>>();
    match topic {
        Topic::Overview => plain(&[
            "host_cpu",
            "host_memory",
            "host_disk",
            "host_temperature",
            "host_network",
            "host_services",
            "host_uptime",
        ]),
        Topic::Slow => {
            let mut calls = plain(&["host_cpu", "host_memory", "host_disk", "host_temperature"]);
            calls.push(processes(By::Cpu, look));
            calls
        }
        Topic::Cpu => plain(&["host_cpu"]),
        Topic::Memory => plain(&["host_memory"]),
        Topic::Disk => plain(&["host_disk"]),
        Topic::Network | Topic::Address => plain(&["host_network"]),
        Topic::Uptime => plain(&["host_uptime"]),
        Topic::Services => plain(&["host_services"]),
        Topic::Temperature => plain(&["host_temperature"]),
        Topic::Processes(by) => vec![processes(by, look)],
        Topic::Service => service(look),
        Topic::Logs => vec![logs(look)],
        Topic::Machines => plain(&[MACHINES]),
    }
}

fn processes(by: By, look: &Look) -> Planned {
    let mut arguments = Map::new();
    arguments.insert("by".to_owned(), json!(if by == By::Cpu { "cpu" } else { "memory" }));
    if let Some(count) = look.count {
        arguments.insert("count".to_owned(), json!(count.min(PROCESSES_MAX)));
    }
    Planned { tool: "host_processes", arguments: Value::Object(arguments) }
}

/// systemd knows best; where it is absent, a process of that name is the next best answer.
fn service(look: &Look) -> Vec<Planned> {
    let Some(unit) = &look.unit else { return vec![Planned { tool: "host_services", arguments: json!({}) }] };
    let name = unit.trim_end_matches(".service").trim_end_matches(".timer");
    // The daemon of these is not called like its unit.
    let name = match name {
        "postgresql" => "postgres",
        "home-assistant" => "hass",
        _ => name,
    };
    let comm: String = name.chars().take(COMM_BYTES_MAX).collect();
    vec![
        Planned { tool: "host_services", arguments: json!({"unit": unit}) },
        Planned { tool: "host_processes", arguments: json!({"name": comm}) },
    ]
}

/// Errors of the last day unless somebody said otherwise: a log in full answers nothing.
fn logs(look: &Look) -> Planned {
    let mut arguments = Map::new();
    let since = look.since.as_deref().unwrap_or("24h");
    arguments.insert("since".to_owned(), json!(since));
    if let Some(unit) = &look.unit {
        arguments.insert("unit".to_owned(), json!(unit));
    } else if look.count.is_none() {
        arguments.insert("priority".to_owned(), json!("err"));
    }
    arguments.insert("lines".to_owned(), json!(look.count.unwrap_or(30).min(LINES_MAX)));
    Planned { tool: "host_logs", arguments: Value::Object(arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::local::followup::{remember, understand_after};
    use crate::llm::local::note::Note;
    use crate::llm::local::wish::{Say, Wish};

    /// `conversation` is messages separated by `|`; the last one is planned. Tools without `host_`, with the
    /// arguments that matter.
    fn check(conversation: &str, expected: &str) {
        let mut messages: Vec<&str> = conversation.split('|').collect();
        let text = messages.pop().unwrap();
        let last = messages.into_iter().fold(None, remember);
        let found = match understand_after(text, last.as_ref()) {
            Wish::Say(say) => format!("({say:?})"),
            Wish::Note(Note::Get { guess: true, .. }) => "(Unknown)".to_owned(),
            Wish::Note(note) => format!("({note:?})"),
            Wish::Look(look) => plan(&look).iter().map(show).collect::<Vec<_>>().join(" "),
        };
        assert_eq!(found, expected, "{conversation}");
    }

    fn show(call: &Planned) -> String {
        let arguments = call.arguments.as_object().unwrap();
        let skip = |name: &str, value: &Value| {
            (name, value.as_str()) == ("since", Some("24h"))
                || name == "priority"
                || (name, value.as_u64()) == ("lines", Some(30))
        };
        let shown: Vec<String> = arguments
            .iter()
            .filter(|(name, value)| !skip(name, value))
            .map(|(_, value)| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        let name = call.tool.trim_start_matches("host_");
        if shown.is_empty() { name.to_owned() } else { format!("{name}:{}", shown.join(",")) }
    }

    const OVERVIEW: &str = "cpu memory disk temperature network services uptime";
    /// With the machines that joined.
    const ALL: &str = "cpu memory disk temperature network services uptime machines_list";
    const SLOW: &str = "cpu memory disk temperature processes:cpu";

    #[test]
    fn wishes_about_the_machine_as_a_whole() {
        check("How is this machine doing?", OVERVIEW);
        check("how is this pi", OVERVIEW);
        for text in [
            "how is my server",
            "is everything ok?",
            "status",
            "give me a health check",
            "How are you?",
            "what's wrong with the pi",
            "wie geht es dem Server?",
            "Alles in Ordnung?",
            "hello, how is the box today",
            "Zustand?",
            "any problems?",
            "please check the machine",
            "run a health check",
            "overveiw",
            "Wie geht's?",
            "how are my machines?",
            "Wie geht es den Maschinen?",
            "status of all servers",
        ] {
            check(text, ALL);
        }
        for text in ["are my machines online?", "which machines are offline"] {
            check(text, "machines_list");
        }
        check("are the disks of my machines full", "disk machines_list");
        for text in [
            "why is it slow",
            "Why is my server so slow?",
            "everything is laggy",
            "warum ist der Rechner so langsam?",
            "der pi ruckelt",
            "it takes forever",
        ] {
            check(text, SLOW);
        }
    }

    #[test]
    fn wishes_about_one_thing() {
        for (text, expected) in [
            ("How busy is the CPU?", "cpu"),
            ("cpu", "cpu"),
            ("what is the load average", "cpu"),
            ("Wie ist die CPU-Auslastung?", "cpu"),
            ("how much memory is free?", "memory"),
            ("is the ram full?", "memory"),
            ("memmory", "memory"),
            ("Wie viel Arbeitsspeicher ist frei?", "memory"),
            ("is it swapping?", "memory"),
            ("is the disk full?", "disk"),
            ("how much space is left", "disk"),
            ("is the dsik full", "disk"),
            ("Ist die Festplatte voll?", "disk"),
            ("Wie viel Platz habe ich noch?", "disk"),
            ("is the sd card full?", "disk"),
            ("is the network ok?", "network"),
            ("who is using the network", "network"),
            ("open ports?", "network"),
            ("geht das Internet?", "network"),
            ("why is the internet so slow", "network"),
            ("what is my IP", "network"),
            ("Wie ist meine IP-Adresse?", "network"),
            ("did it reboot", "uptime"),
            ("how long has it been running?", "uptime"),
            ("Seit wann läuft der Rechner?", "uptime"),
            ("which kernel is this", "uptime"),
            ("uptime", "uptime"),
            ("why did it reboot?", "uptime logs"),
            ("did it crash last night?", "logs:14h"),
            ("how hot is it", "temperature"),
            ("Wie warm ist der Pi?", "temperature"),
            ("whats the temprature", "temperature"),
            ("any failed services?", "services"),
            ("Laufen alle Dienste?", "services"),
            ("is everything running?", "services"),
            ("any errors in the logs", "logs"),
            ("any errors?", "logs"),
            ("Gibt es Fehler im Log?", "logs"),
            ("show me the errors of the last 2 hours", "logs:2h"),
            ("show the last 100 log lines", "logs:100"),
            ("logs from today", "logs"),
            ("cpu and memory please", "cpu memory"),
            ("how full are disk and memory", "memory disk"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn wishes_about_processes_and_services() {
        for (text, expected) in [
            ("what eats my RAM", "processes:memory memory"),
            ("who is hogging the cpu?", "processes:cpu cpu"),
            ("was frisst meinen Speicher?", "processes:memory memory"),
            ("which process uses the most memory", "processes:memory memory"),
            ("top processes", "processes:cpu"),
            ("top 5 processes by memory", "processes:memory,5 memory"),
            ("Welche Prozesse laufen?", "processes:cpu"),
            ("what is running?", "processes:cpu"),
            ("is nginx running", "services:nginx processes:nginx"),
            ("Läuft nginx?", "services:nginx processes:nginx"),
            ("is my docker ok", "services:docker processes:docker"),
            ("is the ssh daemon up?", "services:ssh processes:ssh"),
            ("is foobar-daemon running?", "services:foobar-daemon processes:foobar-daemon"),
            ("status of backup.timer", "services:backup.timer processes:backup"),
            ("nginx logs", "logs:nginx"),
            ("errors in the nginx log of the last hour", "logs:1h,nginx"),
            ("is it running?", "(Unknown)"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn follow_ups_refer_to_what_was_looked_at() {
        for (conversation, expected) in [
            ("how busy is the cpu|which process?", "processes:cpu"),
            ("how busy is the cpu|welcher Prozess?", "processes:cpu"),
            ("how much memory is free|which process?", "processes:memory"),
            ("how much memory is free|who is it", "processes:memory"),
            ("cpu|and memory?", "memory"),
            ("und die cpu?|und der Speicher?", "memory"),
            ("what eats my cpu|and memory?", "processes:memory memory"),
            ("is the disk full|what about memory|which process", "processes:memory"),
            ("memory|what about disk?", "disk"),
            ("cpu|why?", "processes:cpu cpu"),
            ("memory|warum?", "processes:memory memory"),
            ("how is this machine|why?", "processes:cpu processes:memory disk logs"),
            ("is nginx running|why?", "logs:nginx services:nginx processes:nginx"),
            ("is nginx running|since when?", "services:nginx processes:nginx"),
            ("is nginx running|and docker?", "services:docker processes:docker"),
            ("cpu|since when?", "cpu uptime"),
            ("memory|seit wann?", "uptime"),
            ("logs|more", "logs:100"),
            ("logs|and in the last 10 minutes?", "logs:10m"),
            ("top processes|more", "processes:cpu,50"),
            ("cpu|more", "cpu processes:cpu,50"),
            ("disk|and now?", "disk"),
            ("disk|thanks|again", "disk"),
            ("how is it going|write me a poem|more", "processes:cpu,50 processes:memory,50 logs:100"),
            ("why is it slow|which process?", "processes:cpu"),
            ("cpu|thanks!", "(Thanks)"),
            ("cpu|reboot it", "(Refused)"),
            ("which process?", "processes:cpu"),
            ("why?", "(Unknown)"),
            ("more", "(Unknown)"),
        ] {
            check(conversation, expected);
        }
    }

    #[test]
    fn what_cannot_be_answered_calls_nothing() {
        for (text, say) in [
            ("write me a poem", Say::Unknown),
            ("write a poem about my server's memory", Say::Unknown),
            ("Schreib mir ein Gedicht", Say::Unknown),
            ("what is the capital of France?", Say::Unknown),
            ("how is the weather", Say::Unknown),
            ("tell me a joke", Say::Unknown),
            ("delete all files", Say::Refused),
            ("rm -rf /", Say::Refused),
            ("please reboot the machine", Say::Refused),
            ("could you restart nginx", Say::Refused),
            ("free up space, kannst du die Logs löschen", Say::Refused),
            ("Server neu starten", Say::Refused),
            ("kill the process", Say::Refused),
            ("hi", Say::Greeting),
            ("Hello there!", Say::Greeting),
            ("Guten Morgen", Say::Greeting),
            ("help", Say::Help),
            ("what can you do?", Say::Help),
            ("Was kannst du?", Say::Help),
            ("", Say::Help),
            ("?!", Say::Help),
            ("thanks", Say::Thanks),
            ("Vielen Dank!", Say::Thanks),
            ("good night", Say::Bye),
            ("what's the meaning of life", Say::Unknown),
            ("who won the world cup?", Say::Unknown),
            ("can you recommend a movie", Say::Unknown),
            ("what is 2+2", Say::Unknown),
            ("remind me to buy bread tomorrow", Say::Unknown),
            ("translate 'memory' to French", Say::Unknown),
            ("Wer ist Bundeskanzler?", Say::Unknown),
            ("asdfghjkl", Say::Unknown),
            ("🦀🦀🦀", Say::Help),
        ] {
            check(text, &format!("({say:?})"));
        }
    }

    #[test]
    fn planned_arguments_are_complete_and_within_the_schemas() {
        let logs = &plan(&Look { count: Some(5000), ..Look::at(&[Topic::Logs]) })[0];
        assert_eq!(logs.arguments, json!({"since": "24h", "lines": 200}));
        let errors = &plan(&Look::at(&[Topic::Logs]))[0];
        assert_eq!(errors.arguments, json!({"since": "24h", "priority": "err", "lines": 30}));
        let named =
            plan(&Look { unit: Some("a-very-long-unit-name.service".to_owned()), ..Look::at(&[Topic::Service]) });
        assert_eq!(named[1].arguments, json!({"name": "a-very-long-uni"}));
    }
}
