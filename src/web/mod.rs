//! The page: embedded in the binary, or a directory that an operator names (contract 13.1). No threads, no state.

mod assets;
mod directory;

use crate::api::message::{Response, header, response};

pub use assets::EmbeddedPage;
pub use directory::DirectoryPage;

/// How long a browser may keep an answer.
const REVALIDATE: &str = "no-cache";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The type of a file by its extension.
fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or("") {
        "html" | "htm" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "txt" => "text/plain; charset=utf-8",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn with_header(mut response: Response, name: &str, value: &str) -> Response {
    if let Some(header) = header(name, value) {
        response.add_header(header);
    }
    response
}

/// 301 to a relative place.
fn moved(to: &str) -> Response {
    with_header(
        with_header(response(301, "text/plain; charset=utf-8", Vec::new()), "Location", to),
        "Cache-Control",
        REVALIDATE,
    )
}
