//! The embedded page: compressed at build time, inflated for the few clients that do not accept gzip.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::api::WebHandler;
use crate::api::message::{Req, Response, response};
use crate::web::{FOR_EVER, REVALIDATE, content_type, moved, with_header};

mod built {
    include!(concat!(env!("OUT_DIR"), "/assets.rs"));
}

/// Serves the page that is part of the binary.
pub struct EmbeddedPage;

impl WebHandler for EmbeddedPage {
    fn serve(&self, req: &Req) -> Response {
        if req.path == "/index.html" {
            return moved("./");
        }
        let asset = req.path.strip_prefix("/assets/").and_then(|rest| {
            let (versioned, name) = match rest.split_once('/') {
                Some((version, name)) => (version == built::VERSION, name),
                None => (false, rest),
            };
            built::FILES.iter().find(|(known, _)| *known == name).map(|file| (file, versioned))
        });
        match asset {
            Some(((name, compressed), versioned)) => {
                file(req, name, compressed, if versioned { FOR_EVER } else { REVALIDATE })
            }
            None => match built::FILES.iter().find(|(name, _)| *name == "index.html") {
                Some((name, compressed)) => file(req, name, compressed, REVALIDATE),
                None => response(404, "text/plain; charset=utf-8", b"no page is built in\n".to_vec()),
            },
        }
    }

    fn content_security_policy(&self) -> &'static str {
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    }
}

fn file(req: &Req, name: &str, compressed: &[u8], cache: &str) -> Response {
    let gzip = req.headers.iter().any(|(header, value)| {
        header.eq_ignore_ascii_case("accept-encoding")
            && value.split(',').any(|coding| {
                let mut parts = coding.split(';').map(str::trim);
                parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && !parts.any(|q| q == "q=0")
            })
    });
    let answer = if gzip {
        with_header(response(200, content_type(name), compressed.to_vec()), "Content-Encoding", "gzip")
    } else {
        let mut plain = Vec::new();
        if GzDecoder::new(compressed).read_to_end(&mut plain).is_err() {
            log::error!("the embedded file {name} is damaged");
        }
        response(200, content_type(name), plain)
    };
    with_header(with_header(answer, "Vary", "Accept-Encoding"), "Cache-Control", cache)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Headers;
    use tiny_http::Method;

    fn get(path: &str, headers: &[(&str, &str)]) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let req = Req::local(Method::Get, path, Headers::from_pairs(headers), Vec::new());
        let response = EmbeddedPage.serve(&req);
        let lines = response.headers().iter().map(|h| (h.field.to_string(), h.value.to_string())).collect();
        (response.status_code().0, lines, response.into_reader().into_inner())
    }

    fn header<'a>(lines: &'a [(String, String)], name: &str) -> &'a str {
        lines.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn the_page_names_its_files_by_version_and_they_are_kept() {
        let (status, lines, body) = get("/", &[]);
        assert_eq!((status, header(&lines, "Cache-Control")), (200, "no-cache"));
        let page = String::from_utf8(body).unwrap();
        let versioned = format!("/assets/{}/", built::VERSION);
        assert!(page.contains(&versioned));
        for (name, compressed) in built::FILES {
            let (_, lines, body) = get(&format!("{versioned}{name}"), &[("Accept-Encoding", "br, gzip;q=0.8")]);
            assert_eq!(header(&lines, "Content-Encoding"), "gzip");
            assert_eq!(header(&lines, "Cache-Control"), FOR_EVER);
            assert_eq!(body, *compressed);
        }
        assert_eq!(get("/#/anything", &[]).0, 200);
        assert_eq!(get("/some/place", &[]).2, page.into_bytes());
        assert_eq!(get("/index.html", &[]).0, 301);
        assert_eq!(header(&get("/", &[("Accept-Encoding", "gzip;q=0")]).1, "Content-Encoding"), "");
    }

    #[test]
    fn the_page_fits_its_budget() {
        let total: usize = built::FILES.iter().map(|(_, compressed)| compressed.len()).sum();
        assert!(total <= 90 * 1024, "{total} bytes");
    }
}
