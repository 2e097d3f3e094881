//! The result of a tool as text for a model (MCP 2025-11-25, "Tool Result"). No I/O.

use serde_json::Value;

use super::mask::cut;
use crate::limits;

/// What a call came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub text: String,
    /// The tool itself says that it failed.
    pub is_error: bool,
}

/// Text parts joined by line ends, everything else described; structured content where there is no text.
pub(super) fn outcome(result: &Value) -> Outcome {
    let mut text = String::new();
    let parts = result.get("content").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut has_text = false;
    for part in parts {
        if text.len() >= limits::MCP_RESULT_BYTES_MAX {
            break;
        }
        has_text |= part.get("type").and_then(Value::as_str) == Some("text");
        let shown = describe(part);
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(cut(&shown, limits::MCP_RESULT_BYTES_MAX));
    }
    if !has_text && let Some(structured) = result.get("structuredContent").filter(|value| !value.is_null()) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&structured.to_string());
    }
    // Results of before 2024-11-05 are not content; better raw than lost.
    if parts.is_empty() && text.is_empty() && result.get("content").is_none() && !result.is_null() {
        text = result.to_string();
    }
    text.truncate(cut(&text, limits::MCP_RESULT_BYTES_MAX).len());
    Outcome { text, is_error: result.get("isError").and_then(Value::as_bool).unwrap_or(false) }
}

fn describe(part: &Value) -> String {
    let field = |name: &str| part.get(name).and_then(Value::as_str).unwrap_or("");
    match field("type") {
        "text" => field("text").to_owned(),
        kind @ ("image" | "audio") => {
            let size = shown_size(field("data").len() / 4 * 3);
            format!("[{kind} {}, {size}]", or_unknown(field("mimeType")))
        }
        "resource" => resource(part.get("resource").unwrap_or(&Value::Null)),
        "resource_link" => {
            let mut shown = format!("[resource {}", or_unknown(field("uri")));
            for detail in [field("title"), field("name"), field("description"), field("mimeType")] {
                if !detail.is_empty() {
                    shown.push_str(", ");
                    shown.push_str(cut(detail, 500));
                }
            }
            shown + "]"
        }
        kind => format!("[content of type {}]", or_unknown(cut(kind, 100))),
    }
}

/// A resource that came along: its text, if it has one.
fn resource(resource: &Value) -> String {
    let field = |name: &str| resource.get(name).and_then(Value::as_str);
    let uri = or_unknown(field("uri").unwrap_or(""));
    let mime = or_unknown(field("mimeType").unwrap_or(""));
    match (field("text"), field("blob")) {
        (Some(text), _) => format!("[resource {uri}]\n{text}"),
        (None, Some(blob)) => format!("[resource {uri}, {mime}, {}]", shown_size(blob.len() / 4 * 3)),
        (None, None) => format!("[resource {uri}, {mime}]"),
    }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { cut(text, 2000) }
}

fn shown_size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_content_becomes_text() {
        let check = |result: Value, text: &str| {
            assert_eq!(outcome(&result), Outcome { text: text.to_owned(), is_error: false }, "{result}");
        };
        check(json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), "a\nb");
        check(json!({"content": []}), "");
        check(json!({"content": [], "structuredContent": {"n": 1}}), "{\"n\":1}");
        check(json!({"content": [{"type": "text", "text": "t"}], "structuredContent": {"n": 1}}), "t");
        let image = "A".repeat(16 * 1024);
        check(
            json!({"content": [{"type": "image", "mimeType": "image/png", "data": image}]}),
            "[image image/png, 12 KiB]",
        );
        check(json!({"content": [{"type": "audio", "data": "AAAA"}]}), "[audio unknown, 3 bytes]");
        check(
            json!({"content": [{"type": "resource", "resource": {"uri": "file:///x", "text": "inside"}}]}),
            "[resource file:///x]\ninside",
        );
        check(
            json!({"content": [{"type": "resource", "resource": {"uri": "u", "mimeType": "a/b", "blob": "AAAA"}}]}),
            "[resource u, a/b, 3 bytes]",
        );
        check(
            json!({"content": [{"type": "resource_link", "uri": "u", "name": "n", "mimeType": "a/b"}]}),
            "[resource u, n, a/b]",
        );
        check(json!({"content": [{"type": "hologram"}, 7]}), "[content of type hologram]\n[content of type unknown]");
        check(json!({"toolResult": 7}), "{\"toolResult\":7}");
        check(json!({"content": "odd"}), "");
        check(Value::Null, "");
        assert!(outcome(&json!({"content": [], "isError": true})).is_error);
    }

    #[test]
    fn results_are_bounded() {
        let many = vec![json!({"type": "text", "text": "ü".repeat(300_000)}); 9];
        assert!(outcome(&json!({"content": many})).text.len() <= limits::MCP_RESULT_BYTES_MAX);
    }
}
