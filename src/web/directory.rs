//! A directory as the page (`api.web_dir`): the file, fallback and cache rules of contract 13.1, so that the
//! reference's own dashboard runs unchanged.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::strtime;

use crate::api::WebHandler;
use crate::api::message::{Req, Response, percent_decode, response};
use crate::web::{FOR_EVER, REVALIDATE, content_type, moved, with_header};

/// Larger files are not a dashboard's.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
const HTTP_DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// Serves a directory tree.
pub struct DirectoryPage {
    root: PathBuf,
}

impl DirectoryPage {
    /// A page from `root`; fails when it is no directory.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(std::io::Error::new(std::io::ErrorKind::NotADirectory, "not a directory"));
        }
        Ok(Self { root })
    }

    /// The file behind a path, if it is one below the root: no `..`, no way out through a link.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let mut file = self.root.clone();
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let segment = percent_decode(segment, false)?;
            if segment == "." || segment == ".." || segment.contains(['/', '\\', '\0']) {
                return None;
            }
            file.push(segment);
        }
        let file = file.canonicalize().ok()?;
        file.starts_with(&self.root).then_some(file)
    }

    fn index(&self, req: &Req) -> Response {
        match self.find("index.html").and_then(|file| send(req, &file, REVALIDATE)) {
            Some(response) => response,
            None => response(404, "text/plain; charset=utf-8", b"api.web_dir has no index.html\n".to_vec()),
        }
    }
}

impl WebHandler for DirectoryPage {
    fn serve(&self, req: &Req) -> Response {
        if req.path == "/index.html" {
            return moved("./");
        }
        if req.path.ends_with('/') {
            return self.index(req);
        }
        match self.find(&req.path) {
            Some(found) if found.is_dir() => {
                let name = req.path.rsplit('/').next().unwrap_or("");
                moved(&format!("{name}/"))
            }
            Some(found) => {
                let cache = if req.path.starts_with("/assets/") { FOR_EVER } else { REVALIDATE };
                send(req, &found, cache).unwrap_or_else(|| self.index(req))
            }
            None => self.index(req),
        }
    }

    fn content_security_policy(&self) -> &'static str {
        "default-src 'self'; script-src 'self' 'sha256-zUPPTEnvtjvdvwuKJCe566E6T5EMQcYu/0++p6xjjBs='; \
         style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    }
}

/// The file, whole or the part asked for, or 304; None when it cannot be read.
fn send(req: &Req, path: &Path, cache: &str) -> Option<Response> {
    let mut file = File::open(path).ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        return None;
    }
    let modified = about.modified().ok().and_then(unix_s);
    let kind = content_type(path.to_str().unwrap_or(""));
    let unchanged =
        req.headers.get("if-modified-since").and_then(parse_date).zip(modified).is_some_and(|(known, is)| is <= known);
    let answer = if unchanged {
        response(304, kind, Vec::new())
    } else {
        match req.headers.get("range").map(|range| parse_range(range, about.len())) {
            Some(Range::Part(from, to)) => {
                let mut body = vec![0; usize::try_from(to - from + 1).ok()?];
                file.seek(SeekFrom::Start(from)).ok()?;
                file.read_exact(&mut body).ok()?;
                with_header(response(206, kind, body), "Content-Range", &format!("bytes {from}-{to}/{}", about.len()))
            }
            Some(Range::Unsatisfiable) => {
                with_header(response(416, kind, Vec::new()), "Content-Range", &format!("bytes */{}", about.len()))
            }
            Some(Range::Whole) | None => {
                let mut body = Vec::new();
                file.take(FILE_BYTES_MAX).read_to_end(&mut body).ok()?;
                with_header(response(200, kind, body), "Accept-Ranges", "bytes")
            }
        }
    };
    let answer = with_header(answer, "Cache-Control", cache);
    Some(match modified.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
        Some(time) => with_header(answer, "Last-Modified", &strtime::format(HTTP_DATE, time).ok()?),
        None => answer,
    })
}

enum Range {
    Part(u64, u64),
    Unsatisfiable,
    /// Several ranges, or something else that may be ignored (RFC 9110 section 14.2).
    Whole,
}

fn parse_range(text: &str, length: u64) -> Range {
    let Some((from, to)) =
        text.strip_prefix("bytes=").filter(|spec| !spec.contains(',')).and_then(|spec| spec.split_once('-'))
    else {
        return Range::Whole;
    };
    let (from, to) = match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => (from, to.min(length.saturating_sub(1))),
        (Ok(from), Err(_)) if to.trim().is_empty() => (from, length.saturating_sub(1)),
        (Err(_), Ok(last)) if from.trim().is_empty() && last > 0 => {
            (length.saturating_sub(last), length.saturating_sub(1))
        }
        _ => return Range::Whole,
    };
    if from >= length { Range::Unsatisfiable } else { Range::Part(from, to) }
}

fn parse_date(text: &str) -> Option<i64> {
    let broken = strtime::parse(HTTP_DATE, text.trim()).ok()?;
    let civil = broken.to_datetime().ok()?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_second())
}

fn unix_s(time: SystemTime) -> Option<i64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|elapsed| i64::try_from(elapsed.as_secs()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Headers;
    use tiny_http::Method;

    fn page() -> (tempfile::TempDir, DirectoryPage) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("dist");
        std::fs::create_dir_all(root.join("assets")).unwrap();
        std::fs::write(root.join("index.html"), "<html>home</html>").unwrap();
        std::fs::write(root.join("assets/app-1a2b.js"), "0123456789").unwrap();
        std::fs::write(root.join("favicon.png"), "png").unwrap();
        std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret.txt"), root.join("link.txt")).unwrap();
        let page = DirectoryPage::new(&root).unwrap();
        (dir, page)
    }

    fn get(page: &DirectoryPage, path: &str, headers: &[(&str, &str)]) -> (u16, String, String, String) {
        let req = Req::local(Method::Get, path, Headers::from_pairs(headers), Vec::new());
        let response = page.serve(&req);
        let line = |name: &str| {
            response
                .headers()
                .iter()
                .find(|h| h.field.as_str().as_str().eq_ignore_ascii_case(name))
                .map(|h| h.value.to_string())
                .unwrap_or_default()
        };
        let (cache, location) = (line("Cache-Control"), line("Location") + &line("Content-Range"));
        let status = response.status_code().0;
        (status, cache, location, String::from_utf8(response.into_reader().into_inner()).unwrap())
    }

    #[test]
    fn files_fallbacks_and_caches_are_as_the_contract_says() {
        let (_dir, page) = page();
        let check = |path: &str, status: u16, cache: &str, place: &str, body: &str| {
            let (found_status, found_cache, found_place, found_body) = get(&page, path, &[]);
            assert_eq!(
                (found_status, &*found_cache, &*found_place, &*found_body),
                (status, cache, place, body),
                "{path}"
            );
        };
        check("/", 200, REVALIDATE, "", "<html>home</html>");
        check("/assets/app-1a2b.js", 200, FOR_EVER, "", "0123456789");
        check("/favicon.png", 200, REVALIDATE, "", "png");
        check("/no/such/page", 200, REVALIDATE, "", "<html>home</html>");
        check("/index.html", 301, REVALIDATE, "./", "");
        check("/assets", 301, REVALIDATE, "assets/", "");
        check("/assets/", 200, REVALIDATE, "", "<html>home</html>");
        check("/favicon.png/", 200, REVALIDATE, "", "<html>home</html>");
        for out in ["/link.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/assets/%2e%2e/%2e%2e/secret.txt", "/a%00b"]
        {
            check(out, 200, REVALIDATE, "", "<html>home</html>");
        }
    }

    #[test]
    fn ranges_and_dates_are_honoured() {
        let (_dir, page) = page();
        let part = |range: &str| {
            let (status, _, place, body) = get(&page, "/assets/app-1a2b.js", &[("Range", range)]);
            (status, place, body)
        };
        assert_eq!(part("bytes=2-4"), (206, "bytes 2-4/10".into(), "234".into()));
        assert_eq!(part("bytes=7-"), (206, "bytes 7-9/10".into(), "789".into()));
        assert_eq!(part("bytes=-2"), (206, "bytes 8-9/10".into(), "89".into()));
        assert_eq!(part("bytes=10-"), (416, "bytes */10".into(), String::new()));
        assert_eq!(part("bytes=0-1,3-4").0, 200);
        assert_eq!(part("lines=1-2").0, 200);
        let since = |date: &str| get(&page, "/favicon.png", &[("If-Modified-Since", date)]).0;
        assert_eq!(since("Fri, 01 Jan 2100 00:00:00 GMT"), 304);
        assert_eq!(since("Thu, 01 Jan 1970 00:00:00 GMT"), 200);
        assert_eq!(since("yesterday"), 200);
    }
}
