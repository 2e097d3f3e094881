//! The page over the wire: the embedded one, and a directory that an operator names (contract 13.1).

use std::io::Read;

use crate::support::hub::Builder;
use crate::support::{Answer, Hub};

const EMBEDDED_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

fn facts(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.header("content-type"), answer.header("cache-control"))
}

#[test]
fn the_embedded_page_comes_with_immutable_assets_compressed_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let plain = hub.client();
    let zipped = plain.with("Accept-Encoding", "br, gzip");
    let page = plain.get("/");
    assert_eq!(facts(&page), (200, "text/html; charset=utf-8", "no-cache"));
    assert_eq!(page.header("content-security-policy"), EMBEDDED_CSP);
    assert!(!page.text().contains("style=") && !page.text().contains("<script>"), "the policy forbids inline code");
    let text = page.text();
    let assets: Vec<&str> = text.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!(assets.len() >= 3, "{text}");
    for asset in assets {
        let answer = plain.get(asset);
        assert_eq!((answer.status, answer.header("cache-control")), (200, FOR_EVER), "{asset}");
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), ("", "Accept-Encoding"), "{asset}");
        let compressed = zipped.get(asset);
        assert_eq!(compressed.header("content-encoding"), "gzip", "{asset}");
        assert_eq!(compressed.header("cache-control"), FOR_EVER, "{asset}");
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(&compressed.body[..]).read_to_end(&mut inflated).unwrap();
        assert!(inflated == answer.body && compressed.body.len() <= answer.body.len(), "{asset}");
        let kind = answer.header("content-type").to_owned();
        let expected = match asset.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            "webmanifest" => "application/manifest+json",
            other => panic!("a file of another kind: {other}"),
        };
        assert_eq!(kind, expected, "{asset}");
    }
    // Whatever else is asked for is the page; an asset that is no more must not be kept under its name.
    for path in ["/any/where", "/assets/none.js", "/assets/0000/app.js", "/assets/", "/%2e%2e/etc/passwd"] {
        let answer = plain.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_ne!(answer.header("cache-control"), FOR_EVER, "{path}");
    }
    assert_eq!(plain.send("POST", "/any", "").status, 200);
    let moved = plain.get("/index.html");
    assert_eq!((moved.status, moved.header("location"), moved.header("cache-control")), (301, "./", "no-cache"));
}

#[test]
fn a_directory_is_served_by_the_contracts_rules() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("dist");
    std::fs::create_dir_all(page.join("assets")).unwrap();
    std::fs::write(page.join("index.html"), "<html>home</html>").unwrap();
    std::fs::write(page.join("favicon.png"), "png").unwrap();
    std::fs::write(page.join("assets/app-1a2b.js"), "0123456789").unwrap();
    std::fs::write(page.join("assets/app-1a2b.css"), "body{}").unwrap();
    std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret.txt"), page.join("link.txt")).unwrap();
    let (html, dist) = ("text/html; charset=utf-8", page.to_str().unwrap());
    let by_file = Builder::new(dir.path()).config(&format!("[api]\nweb_dir = '{dist}'"));
    let other = tempfile::tempdir().unwrap();
    let by_variable = Builder::new(other.path()).env("HOLT_WEB_DIR", dist);
    for hub in [by_file.start(), by_variable.start()] {
        let client = hub.client();
        let home = client.get("/");
        assert_eq!(facts(&home), (200, html, "no-cache"));
        assert_eq!(home.text(), "<html>home</html>");
        let policy = home.header("content-security-policy");
        assert!(policy.contains("script-src 'self' 'sha256-zUPPTEnvtjvdvwuKJCe566E6T5EMQcYu/0++p6xjjBs='"), "{policy}");
        assert!(
            policy.contains("style-src 'self' 'unsafe-inline'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!((home.header("x-frame-options"), home.header("x-content-type-options")), ("DENY", "nosniff"));
        assert_eq!(facts(&client.get("/assets/app-1a2b.js")), (200, "text/javascript; charset=utf-8", FOR_EVER));
        assert_eq!(facts(&client.get("/assets/app-1a2b.css")), (200, "text/css; charset=utf-8", FOR_EVER));
        assert_eq!(facts(&client.get("/favicon.png?v=1")), (200, "image/png", "no-cache"));
        for path in [
            "/no/such/page",
            "/assets/",
            "/assets/gone.js",
            "/favicon.png/",
            "/link.txt",
            "/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/assets/%2e%2e/%2e%2e/secret.txt",
            "/a%00b",
        ] {
            let answer = client.get(path);
            assert_eq!(
                (facts(&answer), answer.text().as_str()),
                ((200, html, "no-cache"), "<html>home</html>"),
                "{path}"
            );
        }
        for (path, to) in [("/index.html", "./"), ("/assets", "assets/")] {
            let answer = client.get(path);
            assert_eq!(
                (answer.status, answer.header("location"), answer.header("cache-control")),
                (301, to, "no-cache"),
                "{path}"
            );
        }
        // Ranges and conditions.
        let part = client.with("Range", "bytes=2-4").get("/assets/app-1a2b.js");
        assert_eq!((part.status, part.text().as_str(), part.header("content-range")), (206, "234", "bytes 2-4/10"));
        let beyond = client.with("Range", "bytes=99-").get("/assets/app-1a2b.js");
        assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */10"));
        let date = client.get("/favicon.png").header("last-modified").to_owned();
        let known = client.with("If-Modified-Since", &date).get("/favicon.png");
        assert_eq!((known.status, known.body.len(), known.header("cache-control")), (304, 0, "no-cache"));
        let head = client.send("HEAD", "/assets/app-1a2b.js", "");
        assert_eq!((head.status, head.header("content-length")), (200, "10"));
        // The API is not shadowed, and a changed file is seen at once.
        assert_eq!(client.get("/api/v1/health").json()["status"], "ok");
        assert_eq!(client.get("/api/v1/none").status, 404);
        std::fs::write(page.join("favicon.png"), "new png").unwrap();
        assert_eq!(client.get("/favicon.png").text(), "new png");
    }
}

#[test]
fn a_directory_without_an_index_says_so_and_a_missing_one_is_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).env("HOLT_WEB_DIR", empty.path().to_str().unwrap()).start();
    assert_eq!(hub.client().get("/").status, 404);
    drop(hub);
    let mut command = Builder::new(dir.path()).env("HOLT_WEB_DIR", "/no/such/directory").command();
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("web_dir") || text.contains("WEB_DIR"), "{text}");
    assert!(text.contains("/no/such/directory"), "{text}");
}
