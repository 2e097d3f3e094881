//! Tables: who may reach what.

use std::net::IpAddr;

use super::guard::{CheckedUrl, Guard, GuardError, HostPattern, Origin, check_header};

fn patterns(list: &[&str]) -> Vec<HostPattern> {
    list.iter().map(|text| HostPattern::parse(text).unwrap()).collect()
}

fn operator() -> Guard {
    Guard::new(Origin::Operator { allow_loopback: false })
}

fn with_loopback() -> Guard {
    Guard::new(Origin::Operator { allow_loopback: true })
}

fn untrusted() -> Guard {
    Guard::new(Origin::Untrusted)
}

#[test]
fn who_may_reach_what() {
    // URL; then what an operator, one who allowed loopback, and a model get: `+` allowed, `i` inside, `n` never, `u` no
    // URL.
    for (url, expected) in [
        ("https://example.com/", "+++"),
        ("http://8.8.8.8:8080/", "+++"),
        ("http://[2606:4700::1111]/", "+++"),
        ("http://nas.local/", "+++"),
        ("http://10.0.0.1/", "++i"),
        ("http://172.16.0.1/", "++i"),
        ("http://192.168.1.1/", "++i"),
        ("http://100.64.0.1/", "++i"),
        ("http://[fd00::1]/", "++i"),
        ("http://[::ffff:192.168.1.1]/", "++i"),
        ("http://[64:ff9b::c0a8:101]/", "++i"),
        ("http://[2002:c0a8:101::]/", "++i"),
        ("http://localhost/", "i+i"),
        ("http://LOCALHOST./", "i+i"),
        ("http://a.b.localhost/", "i+i"),
        ("http://127.0.0.1/", "i+i"),
        ("http://127.255.0.1/", "i+i"),
        ("http://[::1]/", "i+i"),
        ("http://[0:0:0:0:0:0:0:1]/", "i+i"),
        ("http://[::ffff:127.0.0.1]/", "i+i"),
        ("http://[::ffff:7f00:1]/", "i+i"),
        ("http://[::127.0.0.1]/", "i+i"),
        ("http://[64:ff9b::7f00:1]/", "i+i"),
        ("http://[2002:7f00:1::]/", "i+i"),
        ("http://[2001:0:7f00:1::]/", "nnn"),
        ("http://169.254.169.254/latest/meta-data/", "nnn"),
        ("http://169.254.1.1/", "nnn"),
        ("http://[fe80::1]/", "nnn"),
        ("http://[::ffff:169.254.169.254]/", "nnn"),
        ("http://[64:ff9b::a9fe:a9fe]/", "nnn"),
        ("http://[2002:a9fe:a9fe::1]/", "nnn"),
        ("http://[fd00:ec2::254]/", "nnn"),
        ("http://metadata.google.internal/", "nnn"),
        ("http://METADATA.google.internal./computeMetadata/", "nnn"),
        ("http://metadata.google.com/", "nnn"),
        ("http://0.0.0.0/", "nnn"),
        ("http://0.0.0.1/", "nnn"),
        ("http://[::]/", "nnn"),
        ("http://224.0.0.1/", "nnn"),
        ("http://255.255.255.255/", "nnn"),
        ("http://240.0.0.1/", "nnn"),
        ("http://192.0.2.1/", "nnn"),
        ("http://[ff02::1]/", "nnn"),
        ("http://[2001:db8::1]/", "nnn"),
        ("http://2130706433/", "uuu"),
        ("http://0x7f000001/", "uuu"),
        ("http://0177.0.0.1/", "uuu"),
        ("http://127.1/", "uuu"),
        ("http://127.0.0.1%2f@example.com/", "++u"),
        ("http://%31%32%37.0.0.1/", "uuu"),
        ("http://127。0。0。1/", "uuu"),
        ("http://[::1%25lo]/", "uuu"),
        ("http://user:secret@example.com/", "++u"),
        ("http://example.com@127.0.0.1/", "i+u"),
        ("gopher://example.com/", "uuu"),
        ("file:///etc/passwd", "uuu"),
        ("", "uuu"),
    ] {
        let letter = |result: Result<CheckedUrl, GuardError>| match result {
            Ok(_) => '+',
            Err(GuardError::Inside { .. }) => 'i',
            Err(GuardError::Never { .. }) => 'n',
            Err(GuardError::Url { .. } | GuardError::Userinfo) => 'u',
            Err(other) => panic!("{url}: {other}"),
        };
        let found: String =
            [operator(), with_loopback(), untrusted()].iter().map(|guard| letter(guard.check_url(url))).collect();
        assert_eq!(found, expected, "{url}");
    }
}

#[test]
fn a_name_is_judged_by_the_addresses_that_it_leads_to() {
    let check = |guard: &Guard, url: &str, address: &str, expected: bool| {
        let ip: IpAddr = address.parse().unwrap();
        assert_eq!(guard.check_url(url).unwrap().rule().allows(ip), expected, "{url} {address}");
    };
    let listed = untrusted().allow_inside(&patterns(&["wiki.lan", "*.home.arpa", "192.168.7.0/24"]), "web.x");
    for (address, plain, model, wiki) in [
        ("93.184.216.34", true, true, true),
        ("192.168.1.1", true, false, true),
        ("192.168.7.9", true, false, true),
        ("fd12::1", true, false, true),
        ("127.0.0.1", false, false, true),
        ("::1", false, false, true),
        ("::ffff:127.0.0.1", false, false, true),
        ("169.254.169.254", false, false, false),
        ("fe80::1", false, false, false),
        ("0.0.0.0", false, false, false),
    ] {
        check(&operator(), "http://name.example/", address, plain);
        check(&untrusted(), "http://name.example/", address, model);
        check(&listed, "http://wiki.lan/", address, wiki);
        check(&listed, "http://deep.home.arpa/", address, wiki);
        check(&listed, "http://home.arpa/", address, wiki);
    }
    // Another name gets the listed network, and nothing else.
    check(&listed, "http://name.example/", "192.168.7.9", true);
    check(&listed, "http://name.example/", "::ffff:192.168.7.9", true);
    check(&listed, "http://name.example/", "192.168.8.9", false);
    check(&listed, "http://evil-wiki.lan/", "192.168.1.1", false);
    check(&listed, "http://wiki.lan.evil.example/", "192.168.1.1", false);
    check(&listed, "http://xhome.arpa/", "192.168.1.1", false);
    assert!(listed.allows("192.168.7.1".parse().unwrap()));
    assert!(!listed.allows("192.168.8.1".parse().unwrap()));
    assert!(!listed.allows("127.0.0.1".parse().unwrap()));
}

#[test]
fn a_list_of_hosts_shuts_out_the_others() {
    let guard = operator().only(&patterns(&["api.example.com", "*.example.org", "10.1.0.0/16", "[fd00::5]"]));
    for (url, allowed) in [
        ("https://api.example.com/", true),
        ("https://API.example.com./", true),
        ("https://example.com/", false),
        ("https://x.api.example.com/", false),
        ("https://example.org/", true),
        ("https://a.b.example.org/", true),
        ("https://badexample.org/", false),
        ("http://10.1.2.3/", true),
        ("http://10.2.2.3/", false),
        ("http://[fd00::5]/", true),
        ("http://[fd00::6]/", false),
        ("http://8.8.8.8/", false),
    ] {
        match guard.check_url(url) {
            Ok(_) => assert!(allowed, "{url}"),
            Err(GuardError::NotListed { .. }) => assert!(!allowed, "{url}"),
            Err(other) => panic!("{url}: {other}"),
        }
    }
    // Listed does not mean harmless.
    let local = operator().only(&patterns(&["localhost", "169.254.169.254"]));
    assert!(matches!(local.check_url("http://localhost/"), Err(GuardError::Inside { .. })));
    assert!(matches!(local.check_url("http://169.254.169.254/"), Err(GuardError::Never { .. })));
    let open = untrusted().allow_inside(&patterns(&["0.0.0.0/0", "::/0", "metadata.google.internal"]), "web.x");
    for never in ["http://169.254.169.254/", "http://metadata.google.internal/", "http://0.0.0.0/", "http://[fe80::1]/"]
    {
        assert!(matches!(open.check_url(never), Err(GuardError::Never { .. })), "{never}");
    }
    assert!(open.check_url("http://127.0.0.1/").is_ok() && open.check_url("http://[fd00::1]/").is_ok());
}

#[test]
fn redirects_are_judged_like_urls() {
    let guard = untrusted();
    let from = guard.check_url("https://example.com/a/b").unwrap();
    for (location, expected) in [
        ("/c", Some("https://example.com/c")),
        ("c", Some("https://example.com/a/c")),
        ("//other.example/x", Some("https://other.example/x")),
        ("http://other.example", Some("http://other.example/")),
        ("http://127.0.0.1/", None),
        ("//127.0.0.1/", None),
        ("//localhost:8080/", None),
        ("http://169.254.169.254/latest", None),
        ("http://[::ffff:10.0.0.1]/", None),
        ("http://2130706433/", None),
        ("http://user@example.com/", None),
        ("file:///etc/passwd", None),
        ("javascript:x", None),
        ("\\\\127.0.0.1\\", Some("https://example.com/a/%5C%5C127.0.0.1%5C")),
    ] {
        let found = guard.check_redirect(&from, location).ok().map(|url| url.text());
        assert_eq!(found.as_deref(), expected, "{location}");
    }
}

#[test]
fn entries_of_lists_are_read_strictly() {
    for good in
        ["example.com", "*.example.com", "localhost", "127.0.0.1", "::1", "[::1]", "10.0.0.0/8", "fd00::/8", "a_b"]
    {
        assert!(HostPattern::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "*",
        "*.",
        "http://x",
        "x:80",
        "10.0.0.0/33",
        "fd00::/129",
        "10.0.0/8",
        "x/8",
        "127.1",
        "a b",
        "*.1.2.3.4",
        "ä",
    ] {
        assert!(HostPattern::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let text = |guard: &Guard, url: &str| guard.check_url(url).err().unwrap().to_string();
    assert!(text(&untrusted(), "http://10.0.0.1/").contains("web.fetch.allow_private"));
    assert!(text(&operator(), "http://localhost/").contains("allow_loopback = true"));
    assert!(text(&operator().only(&patterns(&["a"])), "http://b/").contains("mcp.url_allowlist"));
    let refused = text(&untrusted(), "http://user:secret@10.0.0.1/?key=secret");
    assert!(!refused.contains("secret"), "{refused}");
    let shown = format!("{:?}", operator().check_url("http://user:secret@nas/?key=secret").unwrap());
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn header_lines_are_tokens_and_values_on_one_line() {
    for (name, value, good) in [
        ("Authorization", "Bearer x", true),
        ("X-Key", "", true),
        ("X-Key", "ümlaut", true),
        ("", "x", false),
        ("X Key", "x", false),
        ("X-Key:", "x", false),
        ("X\r\nY", "x", false),
        ("Xä", "x", false),
        ("Host", "x", false),
        ("content-length", "1", false),
        ("Transfer-Encoding", "chunked", false),
        ("CONNECTION", "close", false),
        ("X-Key", "a\r\nHost: b", false),
        ("X-Key", "a\nb", false),
        ("X-Key", "a\0b", false),
    ] {
        assert_eq!(check_header(name, value).is_ok(), good, "{name:?} {value:?}");
    }
}
