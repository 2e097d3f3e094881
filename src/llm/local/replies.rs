//! Answers that need no tool.

use crate::llm::local::wish::Say;

const ABILITIES: &str = "\
- **the whole machine**: \"how is this machine doing?\", \"why is it slow?\"
- **CPU, memory, disks, temperature**: \"is the disk full?\", \"what eats my RAM?\"
- **network**: \"what is my IP?\", \"is the network ok?\"
- **services and processes**: \"is nginx running?\", \"top processes\"
- **logs and restarts**: \"any errors in the logs?\", \"did it reboot?\"
";

const NOTES: &str = "\
- **notes**, which I ask you about first: \"remember that the door code is 1234\", \"what do you remember?\", \"forget the \
door code\"
";

const FOLLOW_UPS: &str =
    "\nThen go on with \"which process?\", \"and memory?\", \"why?\", \"since when?\" or \"more\".\n";

const REAL_MODEL: &str = "\
\nFor everything else I need a real language model. Name one in Holt's settings, or in `holt.toml`, e.g. one that runs \
in your own house:

```toml
[llm]
default_provider = \"ollama\"
default_model = \"llama3.2\"

[llm.ollama]
base_url = \"http://127.0.0.1:11434\"
```

Any OpenAI-compatible endpoint works as well: `default_provider = \"openai\"` with `[llm.openai]` and its `base_url` \
and `api_key`.
";

/// The answer.
pub(super) fn reply(say: Say) -> String {
    match say {
        Say::Greeting => {
            "Hello! I am Holt's built-in helper: I look after this machine, without any cloud. Ask \"how is this machine \
             doing?\" or \"help\".\n"
                .to_owned()
        }
        Say::Thanks => "You are welcome.\n".to_owned(),
        Say::Bye => "Good-bye!\n".to_owned(),
        Say::Help => format!(
            "I am Holt's built-in helper. I look at this machine with read-only tools, without any cloud or key. Ask me \
             about\n\n{ABILITIES}{NOTES}{FOLLOW_UPS}{REAL_MODEL}"
        ),
        Say::Refused => format!(
            "I cannot do that: I only look, I change nothing. I did not run anything. What I can do is look at\n\n\
             {ABILITIES}{REAL_MODEL}"
        ),
        Say::Unknown => format!(
            "I did not understand that, and I would rather say so than guess: I am Holt's built-in helper, not a language \
             model. I can answer questions about\n\n{ABILITIES}{NOTES}{REAL_MODEL}"
        ),
    }
}

/// The answer when an agent was not given the tools that a wish needs.
pub(super) fn without_tools(wanted: &[&str]) -> String {
    let names: Vec<String> = wanted.iter().map(|name| format!("`{name}`")).collect();
    format!(
        "I understand the question, but this agent was not given the tools to answer it ({}). Offer them to the agent, or \
         ask one that has them.\n",
        names.join(", ")
    )
}
