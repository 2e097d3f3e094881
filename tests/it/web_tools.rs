//! Tools for the web and for earlier conversations, called by a scripted model against scripted sites.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::site::answer;
use crate::support::ws::kinds;
use crate::support::{Client, Hub, Model, Site, Socket};

const AUTONOMOUS: &str = "[session]\ntier = \"autonomous\"";
/// What home networks need for their own pages.
const ALLOW_LOCAL: &str = "[web.fetch]\nallow_private = [\"127.0.0.1\"]";

/// The result of one call, or the text of its error.
fn call(client: &Client, tool: &str, arguments: Value) -> Result<Value, String> {
    let turn = client.chat(json!({"message": format!("tool {tool} {arguments}")})).json();
    let said = turn["response"].as_str().unwrap_or_else(|| panic!("no answer: {turn}"));
    let result = said.strip_prefix("done: ").unwrap_or_else(|| panic!("no result: {said}"));
    match result.strip_prefix("Tool error: ") {
        Some(error) => Err(error.to_owned()),
        None => Ok(serde_json::from_str(result).unwrap()),
    }
}

fn fetch(client: &Client, url: &str) -> Result<Value, String> {
    call(client, "web_fetch", json!({"url": url}))
}

#[track_caller]
fn refused(client: &Client, url: &str, part: &str) {
    let error = fetch(client, url).expect_err(url);
    assert!(error.contains(part), "{url}: {error}");
}

fn start(dir: &std::path::Path, model: &Model, config: &str) -> (Hub, Client) {
    let hub = Builder::new(dir).model(model).config(config).start();
    let admin = hub.admin();
    (hub, admin)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn pages(head: &str, _: &str, out: &mut TcpStream) -> std::io::Result<()> {
    const HTML: &str = "Content-Type: text/html; charset=utf-8\r\n";
    const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\n";
    let path = head.split(' ').nth(1).unwrap_or("");
    if let Some(target) = path.strip_prefix("/to?") {
        return answer(out, 302, &format!("Location: {target}\r\n"), b"elsewhere");
    }
    match path {
        "/page" => {
            let html = "<title>A &amp; B</title><nav>menu</nav><h1>Wiki</h1><p>See <a href='/x?y=1'>this</a>: käse.";
            answer(out, 200, HTML, html.as_bytes())
        }
        "/latin1" => answer(out, 200, "Content-Type: text/html\r\n", b"<meta charset=iso-8859-1><p>K\xe4se"),
        "/broken" => answer(out, 200, HTML, b"<b><table><td>un<closed <a href='x>y</p></div>&#xZZ; <script>x"),
        "/untyped" => answer(out, 200, "", b"<!DOCTYPE html><title>T</title>Hello"),
        "/untyped-data" => answer(out, 200, "", b"\x7fELF\0\0\0"),
        "/png" => answer(out, 200, "Content-Type: image/png\r\n", b"\x89PNG....\0\0"),
        "/long" => answer(out, 200, TEXT, "ä1".repeat(7000).as_bytes()),
        "/gzip" => answer(out, 200, &format!("{TEXT}Content-Encoding: gzip\r\n"), &gzip(b"packed text")),
        "/bomb" => answer(out, 200, &format!("{TEXT}Content-Encoding: gzip\r\n"), &gzip(&vec![b'a'; 50_000_000])),
        "/brotli" => answer(out, 200, &format!("{TEXT}Content-Encoding: br\r\n"), b"xxxx"),
        "/error" => answer(out, 503, TEXT, b"internal details"),
        "/hop" => answer(out, 301, "Location: /hop\r\n", b""),
        "/garbage" => out.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        "/cut" => out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nonly this"),
        "/endless" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")?;
            loop {
                out.write_all(&[b'x'; 8192])?;
            }
        }
        "/stall" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nbegin")?;
            out.read_to_end(&mut Vec::new()).map(|_| ())
        }
        "/endless-head" => {
            out.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                out.write_all(&[b"X-A: ".as_slice(), &[b'a'; 4096], b"\r\n"].concat())?;
            }
        }
        _ => answer(out, 404, TEXT, b"nothing here"),
    }
}

#[test]
fn pages_become_text_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let (model, site) = (Model::start(), Site::start(pages));
    let (_hub, admin) = start(dir.path(), &model, &format!("{AUTONOMOUS}\n{ALLOW_LOCAL}\nuser_agent = \"Test/9\""));
    let page = fetch(&admin, &site.url("/page#part")).unwrap();
    assert_eq!((&page["title"], &page["url"]), (&json!("A & B"), &json!(site.url("/page"))));
    assert_eq!(page["content"], format!("# Wiki\n\nSee [this]({}): käse.", site.url("/x?y=1")));
    assert_eq!((&page["has_more"], &page["start_index"], &page["truncated"]), (&json!(false), &json!(0), &Value::Null));
    assert_eq!(page["total_length"], page["content"].as_str().unwrap().len());
    let sent = site.requests().remove(0).to_ascii_lowercase();
    assert!(sent.contains("user-agent: test/9\r\n") && !sent.contains("authorization") && !sent.contains("cookie"));
    assert_eq!(sent.matches("\r\nhost: ").count(), 1);

    for (path, content) in [
        ("/latin1", "Käse"),
        ("/untyped", "Hello"),
        ("/gzip", "packed text"),
        ("/untyped-data", "[binary data, of unknown type, 7 bytes: cannot be shown as text]"),
        ("/png", "[binary data, image/png, 10 bytes: cannot be shown as text]"),
        ("/to?/to?/gzip", "packed text"),
    ] {
        assert_eq!(fetch(&admin, &site.url(path)).unwrap()["content"], content, "{path}");
    }
    assert!(fetch(&admin, &site.url("/broken")).unwrap()["content"].as_str().unwrap().contains("un"));

    // 21,000 bytes in parts of 8000 at most, cut between characters.
    let (mut start, mut text) = (0, String::new());
    loop {
        let part = call(&admin, "web_fetch", json!({"url": site.url("/long"), "start_index": start})).unwrap();
        assert_eq!((&part["start_index"], &part["total_length"]), (&json!(start), &json!(21_000)));
        text.push_str(part["content"].as_str().unwrap());
        if part["has_more"] == false {
            break;
        }
        start = part["next_index"].as_u64().unwrap();
    }
    assert!(text == "ä1".repeat(7000), "{} bytes", text.len());
    let beyond = call(&admin, "web_fetch", json!({"url": site.url("/long"), "start_index": 99_999})).unwrap();
    assert_eq!((&beyond["content"], &beyond["has_more"]), (&json!(""), &json!(false)));
    let inside = call(&admin, "web_fetch", json!({"url": site.url("/long"), "start_index": 1})).unwrap();
    assert_eq!(inside["start_index"], 0, "not in the middle of a character");
}

#[test]
fn hostile_sites_cost_little_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (model, site) = (Model::start(), Site::start(pages));
    let config = format!("{AUTONOMOUS}\n{ALLOW_LOCAL}\nmax_size_bytes = 100000\ntimeout = \"2s\"");
    let (hub, admin) = start(dir.path(), &model, &config);
    for path in ["/endless", "/bomb"] {
        let page = fetch(&admin, &site.url(path)).unwrap();
        assert_eq!((&page["total_length"], &page["has_more"]), (&json!(100_000), &json!(true)), "{path}");
        assert_eq!(page["truncated"], "only the first 100000 bytes were read: there is more");
    }
    assert!(hub.status_kib("VmHWM") < 64 * 1024, "a bomb must not be unpacked");
    for (path, part) in [
        ("/stall", "did not answer in time"),
        ("/cut", "ended the connection in the middle"),
        ("/garbage", "did not answer as a web server does"),
        ("/endless-head", "http://127.0.0.1"),
        ("/error", "HTTP status 503"),
        ("/nothing", "HTTP status 404"),
        ("/hop", "more than 5 redirects"),
        ("/brotli", "encoding"),
    ] {
        refused(&admin, &site.url(path), part);
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    refused(&admin, &format!("http://{closed}/"), "cannot be reached");
    for (arguments, part) in [
        (json!({}), "\"url\" must be a text"),
        (json!({"url": 5}), "\"url\" must be a text"),
        (json!({"url": "http://a/", "start_index": -1}), "whole number from 0"),
        (json!({"url": "http://a/", "method": "POST"}), "unknown argument \"method\""),
    ] {
        let error = call(&admin, "web_fetch", arguments.clone()).unwrap_err();
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

#[test]
fn a_cancelled_turn_leaves_a_silent_site() {
    let dir = tempfile::tempdir().unwrap();
    let (model, site) = (Model::start(), Site::start(pages));
    let (_hub, admin) = start(dir.path(), &model, &format!("{AUTONOMOUS}\n{ALLOW_LOCAL}"));
    let mut socket = Socket::open(&admin);
    socket.chat("s", &format!("tool web_fetch {}", json!({"url": site.url("/stall")})));
    site.wait_for("/stall");
    assert_eq!(admin.post("/api/v1/sessions/s/stop", "").status, 202);
    let frames = socket.turn();
    assert_eq!(frames.last().unwrap()["code"], "cancelled", "{:?}", kinds(&frames));
}

#[test]
fn a_model_reaches_nothing_inside() {
    let dir = tempfile::tempdir().unwrap();
    let (model, site) = (Model::start(), Site::start(pages));
    let (hub, admin) = start(dir.path(), &model, AUTONOMOUS);
    let port = site.address.rsplit(':').next().unwrap().to_owned();
    for (host, part) in [
        ("127.0.0.1", "web.fetch.allow_private"),
        ("127.8.8.8", "web.fetch.allow_private"),
        ("localhost", "web.fetch.allow_private"),
        ("LocalHost.", "web.fetch.allow_private"),
        ("x.localhost", "web.fetch.allow_private"),
        ("[::1]", "web.fetch.allow_private"),
        ("[::ffff:127.0.0.1]", "web.fetch.allow_private"),
        ("[::ffff:7f00:1]", "web.fetch.allow_private"),
        ("[64:ff9b::7f00:1]", "web.fetch.allow_private"),
        ("10.0.0.1", "web.fetch.allow_private"),
        ("192.168.1.1", "web.fetch.allow_private"),
        ("[fd00::1]", "web.fetch.allow_private"),
        ("0.0.0.0", "always refused"),
        ("[::]", "always refused"),
        ("169.254.169.254", "always refused"),
        ("[::ffff:a9fe:a9fe]", "always refused"),
        ("metadata.google.internal", "always refused"),
        ("[fe80::1]", "always refused"),
        ("2130706433", "four decimal numbers"),
        ("0x7f.1", "four decimal numbers"),
        ("0177.0.0.1", "four decimal numbers"),
        ("127.1", "four decimal numbers"),
        ("127.0.0.1@example.com", "user name"),
    ] {
        refused(&admin, &format!("http://{host}:{port}/page"), part);
    }
    for url in ["file:///etc/passwd", "gopher://127.0.0.1/", "data:text/plain,x", "/page", "http:///page"] {
        assert!(fetch(&admin, url).is_err(), "{url}");
    }
    // Names that lead to this machine are judged by their addresses.
    for name in ["ip6-localhost", "ip6-loopback", "localhost.localdomain"] {
        let found: Vec<IpAddr> =
            (name, 80).to_socket_addrs().map_or_else(|_| Vec::new(), |list| list.map(|address| address.ip()).collect());
        if found.iter().all(|ip| ip.is_loopback()) && !found.is_empty() {
            refused(&admin, &format!("http://{name}:{port}/page"), "resolves to");
        }
    }
    refused(&admin, &format!("http://{}/api/v1/health", hub.address), "web.fetch.allow_private");
    assert!(site.requests().is_empty(), "nothing was connected: {:?}", site.requests());
}

#[test]
fn a_redirect_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (model, site) = (Model::start(), Site::start(pages));
    let secret = Site::start(pages);
    let (_hub, admin) = start(dir.path(), &model, &format!("{AUTONOMOUS}\n{ALLOW_LOCAL}"));
    let port = secret.address.rsplit(':').next().unwrap().to_owned();
    for target in [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("http://localhost:{port}/page"),
        format!("http://[::1]:{port}/page"),
        format!("//127.0.0.2:{port}/page"),
        format!("http://2130706433:{port}/page"),
        "http://10.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        refused(&admin, &site.url(&format!("/to?{target}")), "redirects to a place that is refused");
        refused(&admin, &site.url(&format!("/to?/to?{target}")), "redirects to a place that is refused");
    }
    assert!(secret.requests().is_empty());
    // The one that is listed may be reached, also in its other spelling.
    let there = fetch(&admin, &site.url(&format!("/to?http://{}/page", secret.address))).unwrap();
    assert_eq!(there["url"], secret.url("/page"));
    assert!(fetch(&admin, &format!("http://[::ffff:127.0.0.1]:{port}/page")).is_err() || secret.requests().len() == 2);
}

fn with_robots(head: &str, body: &str, out: &mut TcpStream) -> std::io::Result<()> {
    match head.split(' ').nth(1).unwrap_or("") {
        "/robots.txt" => answer(out, 200, "Content-Type: text/plain\r\n", b"User-agent: holt\nDisallow: /private\n"),
        "/private" | "/open" => answer(out, 200, "Content-Type: text/plain\r\n", b"text"),
        _ => pages(head, body, out),
    }
}

#[test]
fn sites_that_want_no_robots_are_left_alone_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (model, site) = (Model::start(), Site::start(with_robots));
    let config = format!("{AUTONOMOUS}\n{ALLOW_LOCAL}\nrespect_robots_txt = true\nrespect_agents_txt = true");
    let (_hub, admin) = start(dir.path(), &model, &config);
    refused(&admin, &site.url("/private"), "asks robots to leave this page alone");
    refused(&admin, &site.url("/to?/private"), "asks robots to leave this page alone");
    assert_eq!(fetch(&admin, &site.url("/open")).unwrap()["content"], "text");
    assert_eq!(fetch(&admin, &site.url("/open")).unwrap()["content"], "text");
    let asked = |path: &str| site.requests().iter().filter(|head| head.starts_with(&format!("GET {path} "))).count();
    assert_eq!((asked("/robots.txt"), asked("/agents.txt"), asked("/private"), asked("/open")), (1, 1, 0, 2));
}

fn engines(head: &str, body: &str, out: &mut TcpStream) -> std::io::Result<()> {
    const JSON: &str = "Content-Type: application/json\r\n";
    let path = head.split(' ').nth(1).unwrap_or("");
    let results: Vec<Value> = (1..=20)
        .map(|n| json!({"title": format!("T{n}"), "url": format!("https://e.example/{n}"), "content": "c"}))
        .collect();
    let results = json!({ "results": results }).to_string();
    if path.starts_with("/lite/?q=empty") {
        return answer(out, 202, "", b"<html>a puzzle</html>");
    }
    if path.starts_with("/lite/?q=none") {
        return answer(out, 200, "", b"<html>no hits</html>");
    }
    if path.starts_with("/lite/?q=") {
        let html = "<a class='result-link' href='//duckduckgo.com/l/?uddg=https%3A%2F%2Fa.example%2F&amp;rut=1'>One</a>\
            <td class='result-snippet'>first</td><a class='result-link' href='https://b.example/'>Two</a>";
        return answer(out, 200, "Content-Type: text/html\r\n", html.as_bytes());
    }
    if path.starts_with("/?q=empty") {
        let instant = json!({"Heading": "H", "AbstractURL": "https://h.example/", "AbstractText": "instant"});
        return answer(out, 200, JSON, instant.to_string().as_bytes());
    }
    if path.starts_with("/?q=") {
        return answer(out, 500, JSON, b"{}");
    }
    match path {
        "/search?q=forbidden&format=json" => answer(out, 403, "", b""),
        "/search?q=garbage&format=json" => answer(out, 200, "", b"<html>"),
        "/search?q=away&format=json" => answer(out, 302, "Location: http://169.254.169.254/\r\n", b""),
        "/search" if !body.contains("query") => answer(out, 400, "", b""),
        _ if path.starts_with("/search") => answer(out, 200, JSON, results.as_bytes()),
        _ => answer(out, 404, "", b""),
    }
}

#[test]
fn searches_ask_the_configured_service() {
    let (model, site) = (Model::start(), Site::start(engines));
    let search = |client: &Client, arguments: Value| call(client, "web_search", arguments);
    let service = |provider: &str, more: &str| {
        let dir = tempfile::tempdir().unwrap();
        let config =
            format!("[web.search]\nprovider = \"{provider}\"\nbase_url = \"http://{}/\"\n{more}", site.address);
        let (hub, admin) = start(dir.path(), &model, &format!("{AUTONOMOUS}\n{config}"));
        (dir, hub, admin)
    };
    let (_dir, hub, duck) = service("duckduckgo", "");
    let found = search(&duck, json!({"query": "a & b"})).unwrap();
    let first = json!({"title": "One", "url": "https://a.example/", "snippet": "first"});
    let second = json!({"title": "Two", "url": "https://b.example/", "snippet": ""});
    assert_eq!(found, json!({"provider": "duckduckgo", "result_count": 2, "results": [first, second]}));
    site.wait_for("GET /lite/?q=a%20%26%20b ");
    let instant = search(&duck, json!({"query": "empty"})).unwrap();
    assert_eq!(instant["results"][0]["snippet"], "instant");
    let error = search(&duck, json!({"query": "broken lite"})).map(|found| found["result_count"].clone());
    assert_eq!(error, Ok(json!(2)));
    assert!(search(&duck, json!({"query": " "})).unwrap_err().contains("\"query\" must be a text"));
    assert!(search(&duck, json!({"query": "x", "max_results": 0})).unwrap_err().contains("whole number"));
    drop(hub);

    let (_dir, hub, searx) = service("searxng", "max_results = 3");
    assert_eq!(search(&searx, json!({"query": "x"})).unwrap()["result_count"], 3);
    let ten = search(&searx, json!({"query": "x", "max_results": 20})).unwrap();
    assert_eq!((&ten["result_count"], &ten["results"][9]["title"]), (&json!(10), &json!("T10")));
    for (query, part) in [("forbidden", "json under search.formats"), ("garbage", "JSON"), ("away", "status 302")] {
        assert!(search(&searx, json!({"query": query})).unwrap_err().contains(part), "{query}");
    }
    drop(hub);

    let (_dir, hub, tavily) = service("tavily", "api_key = \"tvly-secret\"");
    assert_eq!(search(&tavily, json!({"query": "x", "max_results": 2})).unwrap()["result_count"], 2);
    let sent = site.requests().into_iter().find(|request| request.starts_with("POST /search ")).unwrap();
    assert!(sent.to_ascii_lowercase().contains("authorization: bearer tvly-secret\r\n"), "{sent}");
    assert!(sent.ends_with(r#"{"max_results":2,"query":"x"}"#), "{sent}");
    assert!(!hub.log_contains("tvly-secret"));
}

#[test]
fn who_has_the_tools() {
    let model = Model::start();
    let offered = |config: &str| {
        let dir = tempfile::tempdir().unwrap();
        let (_hub, admin) = start(dir.path(), &model, config);
        admin.chat(json!({"message": "say hello"}));
        let request = model.requests().pop().unwrap();
        let tools = request["tools"].as_array().unwrap().clone();
        let names: Vec<String> =
            tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect();
        ["web_fetch", "web_search", "conversation_search"].map(|name| names.iter().any(|known| known == name))
    };
    assert_eq!(offered(AUTONOMOUS), [true, true, true]);
    assert_eq!(offered("[session]\ntier = \"restricted\""), [false, false, true]);
    assert_eq!(offered(&format!("{AUTONOMOUS}\n[web]\nenabled = false")), [false, false, true]);
}

#[test]
fn settings_of_the_web_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    for (config, part) in [
        ("[web.fetch]\nallow_private = [\"http://nas/\"]", "web.fetch.allow_private: \"http://nas/\""),
        ("[web.fetch]\nmax_size_bytes = 10", "web.fetch.max_size_bytes"),
        ("[web.fetch]\ntimeout = \"soon\"", "web.fetch.timeout"),
        ("[web.search]\nprovider = \"searxng\"", "web.search.base_url"),
        ("[web.search]\nprovider = \"tavily\"", "web.search.api_key"),
        ("[web.search]\nprovider = \"bing\"", "web.search.provider"),
        ("[web.search]\nmax_results = 21", "web.search.max_results"),
        ("[web.search]\nbase_url = \"ftp://x\"", "web.search.base_url"),
        ("[audit]\nretention = \"never\"", "audit.retention"),
    ] {
        let output = Builder::new(dir.path()).config(config).command().output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(part), "{config}: {error}");
    }
}

#[test]
fn earlier_conversations_are_searched_by_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let (hub, admin) = start(dir.path(), &model, AUTONOMOUS);
    let other = admin.new_key("other", &["chat"]);
    let mine = admin.chat(json!({"message": "say the boiler was serviced in Märch 2025"})).json();
    other.chat(json!({"message": "say the boiler of my neighbour"}));
    let find = |client: &Client, query: &str| call(client, "conversation_search", json!({"query": query})).unwrap();
    let found = find(&admin, "BOILER marc");
    // The question and the answer of the first conversation; never what others said.
    let hits: Vec<&Value> = found["results"].as_array().unwrap().iter().filter(|hit| hit["current"] == false).collect();
    assert_eq!(hits.len(), 2, "{found}");
    assert!(hits.iter().all(|hit| hit["conversation_id"] == mine["session_id"]));
    assert!(!found.to_string().contains("neighbour"));
    assert!(hits[0]["snippet"].as_str().unwrap().contains("boiler was serviced"));
    assert!(find(&other, "neighbour").to_string().contains("neighbour"));
    for odd in ["\"", "a* OR b", "NEAR(x y)", "-boiler", "content:x", "%"] {
        assert!(find(&admin, odd)["results"].is_array(), "{odd}");
    }
    let id = mine["session_id"].as_str().unwrap();
    assert_eq!(admin.delete(&format!("/api/v1/sessions/{id}")).status, 204);
    let after = find(&admin, "serviced");
    assert!(after["results"].as_array().unwrap().iter().all(|hit| hit["conversation_id"] != id), "{after}");
    drop(hub);
}

#[test]
fn an_agent_looks_after_tool_servers() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let (hub, admin) = start(dir.path(), &model, AUTONOMOUS);
    assert_eq!(call(&admin, "tool_list", json!({})), Ok(json!([])));
    let mut server = crate::support::tool_server::config(&[("PASSWORD", "hush-hush-hush")]);
    server["name"] = json!("helper");
    let added = call(&admin, "tool_add", server).unwrap();
    assert_eq!((&added["name"], &added["status"]), (&json!("helper"), &json!("connected")));
    let listed = call(&admin, "tool_list", json!({})).unwrap();
    assert!(listed[0]["tool_names"].as_array().unwrap().contains(&json!("echo")), "{listed}");
    assert!(!added.to_string().contains("hush-hush") && !listed.to_string().contains("hush-hush"));
    let file = || std::fs::read_to_string(dir.path().join("holt.toml")).unwrap();
    assert!(file().contains("[tools.helper]") && file().contains("untrusted = true"));
    assert_eq!(call(&admin, "tool_restart", json!({"name": "helper"})).unwrap()["status"], "connected");
    // An operator who sends it again answers for it.
    let tools = admin.new_key("operator", &["tools:read", "tools:write"]);
    let known = tools.get("/api/v1/tools/helper").json();
    assert_eq!(known["untrusted"], true);
    assert_eq!(tools.send("PUT", "/api/v1/tools/helper", &known.to_string()).status, 200);
    assert!(file().contains("[tools.helper]") && !file().contains("untrusted"));
    assert_eq!(call(&admin, "tool_remove", json!({"name": "helper"})), Ok(json!({"ok": true})));
    assert_eq!(call(&admin, "tool_list", json!({})), Ok(json!([])));
    for (tool, arguments, part) in [
        ("tool_remove", json!({"name": "helper"}), "not found"),
        ("tool_restart", json!({"name": "helper"}), "not found"),
        ("tool_add", json!({"name": "x"}), "command"),
        ("tool_add", json!({"name": "a b", "command": "true"}), "alphanumeric"),
        ("tool_add", json!({"name": "x", "command": "/nonexistent/program"}), "starting tool"),
        ("tool_add", json!({"name": "x", "transport": "sse", "url": "http://127.0.0.1:1/"}), "operator can allow"),
        ("tool_add", json!({"name": "x", "transport": "sse", "url": "http://169.254.169.254/"}), "always refused"),
        ("tool_add", json!({"name": "x", "command": "true", "env": {"A": 1}}), "\"env\" must be"),
        ("tool_add", json!({"name": "x", "command": "true", "disabled": true}), "unknown argument"),
    ] {
        let error = call(&admin, tool, arguments.clone()).unwrap_err();
        assert!(error.contains(part), "{tool} {arguments}: {error}");
    }
    let auditor = admin.new_key("auditor", &["audit:read"]);
    let failed = auditor.get("/api/v1/audit?action=tool_server.add&result=failed").json();
    let details: Vec<&str> =
        failed["entries"].as_array().unwrap().iter().map(|entry| entry["detail"].as_str().unwrap()).collect();
    assert!(details.contains(&"start_failed, command \"/nonexistent/program\""), "{details:?}");
    let found = auditor.get("/api/v1/audit?action=tool_server.&result=ok").json();
    let actions: Vec<&str> =
        found["entries"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["tool_server.remove", "tool_server.update", "tool_server.restart", "tool_server.add"]);
    assert_eq!(found["entries"][0]["actor"], "agent:default");
    let everything = auditor.get("/api/v1/audit?limit=500").text();
    assert!(!everything.contains("hush-hush") && !hub.log_contains("hush-hush"));
    assert_eq!(
        call(&admin, "set_fallback", json!({"rules": [{"trigger": "rate_limit", "action": "wait_and_retry"}]})),
        Ok(json!({"ok": true, "rules": 1}))
    );
}
