//! Pages, good and hostile, and what becomes of them.

use super::markdown::convert;
use crate::net::url::Url;

#[test]
fn pages_become_markdown() {
    let base = Url::parse("https://example.com/docs/page").unwrap();
    for (html, expected) in [
        ("<h1>A</h1><p>b <b>c</b> d</p>", "# A\n\nb **c** d"),
        ("a\n  b<br>c<br/>d", "a b\nc\nd"),
        ("<p>a<p>b", "a\n\nb"),
        ("x<script>alert('<p>')</script>y<style>p{}</style><nav><a href=/>Home</a></nav>z", "xyz"),
        ("<div><nav>a<nav>b</nav>c</nav>d</div>", "d"),
        ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>e", "- a\n- b\n  - c\n- d\n\ne"),
        ("<ol><li>a</li>\n<li>b</li></ol>", "1. a\n2. b"),
        ("see <a href='../x?a=1&amp;b=2'>the <i>page</i></a>.", "see [the *page*](https://example.com/x?a=1&b=2)."),
        ("<a href='#top'>up</a> <a>no</a> <a href='javascript:x'>js</a> <a href=/y></a>|", "up no js |"),
        ("<a href=/1>a<a href=/2>b</a>", "[a](https://example.com/1)[b](https://example.com/2)"),
        ("<a href=/1><h2>Title</h2><p>More</p></a>", "[## Title More](https://example.com/1)"),
        ("<pre><code>if a &lt; b {\n    c\n}</code></pre>d", "```\nif a < b {\n    c\n}\n```\n\nd"),
        ("run <code>ls -l</code> now", "run `ls -l` now"),
        ("a <b> </b><i></i>b", "a b"),
        ("<img src=x alt='A cat'><img alt=''>", "[image: A cat]"),
        ("a<hr>b", "a\n\n---\n\nb"),
        ("<blockquote><p>a<p>b</blockquote>c", "> a\n\n> b\n\nc"),
        (
            "<table><tr><th>Name<th>Size<tr><td>a|b<td><p>1<p>2</table>end",
            "| Name | Size |\n| --- | --- |\n| a\\|b | 1 2 |\n\nend",
        ),
        ("<table><tr><td><p>One</p><p>Two</p></td></tr></table>", "One\n\nTwo"),
        (
            "<table><tr><td>x<table><tr><td>a<td>b<tr><td>c<td>d</table></td><td>y</table>",
            "x\n\n| a | b |\n| --- | --- |\n| c | d |\ny",
        ),
        ("caf&eacute; &#x1F99D; &lt;b&gt;", "café 🦝 <b>"),
        ("a\u{7}b\u{1}c\u{2}d\u{1b}[31m", "abcd[31m"),
        ("1 < 2 and <unknown>so</unknown> on", "1 < 2 and so on"),
        ("</p></table></ul></pre>a", "a"),
        ("<b>never <i>closed", "**never *closed"),
        ("", ""),
    ] {
        assert_eq!(convert(html, Some(&base)).text, expected, "{html}");
    }
    let page = convert("<title>\n The  &quot;Page&quot;\n</title><body>x", None);
    assert_eq!((page.title.as_str(), page.text.as_str()), ("The \"Page\"", "x"));
}

#[test]
fn the_main_part_is_enough() {
    let main = "word ".repeat(60);
    let page = convert(&format!("<header>Menu</header><main><h1>T</h1>{main}</main><footer>Imprint</footer>"), None);
    assert!(page.text.starts_with("# T\n\nword") && !page.text.contains("Menu") && !page.text.contains("Imprint"));
    let page = convert("<header>Menu</header><main></main><p>x", None);
    assert_eq!(page.text, "Menu\n\nx");
}

#[test]
fn hostile_pages_cost_no_more_than_others() {
    for part in [
        "<table>",
        "<a href=x>",
        "<b>",
        "<ul><li>",
        "<",
        "<a \"",
        "&",
        "<!--",
        "<script>",
        "</",
        "<blockquote>x",
        "<td>",
        "<main>",
    ] {
        let page = convert(&part.repeat(200_000 / part.len()), None);
        assert!(page.text.len() < 4_000_000, "{part}: {}", page.text.len());
    }
    let deep = format!("{}x{}", "<table><tr><td>".repeat(5000), "</table>".repeat(5000));
    assert_eq!(convert(&deep, None).text, "x");
}

#[test]
fn marks_links_and_tables_may_be_nested_in_any_wrong_way() {
    let base = Url::parse("https://e.example/").unwrap();
    for (html, expected) in [
        ("<i><a href=x></i>€uro</a>", "[€uro](https://e.example/x)"),
        ("<b></b><table><tr><td>€<td>b<tr></table>", "€ b"),
        ("x <i><table></i>€</table>", "x *\n\n*€"),
        ("<i><main></i>€</main>", "*\n*€"),
    ] {
        assert_eq!(convert(html, Some(&base)).text, expected, "{html}");
    }
}

#[test]
fn no_page_panics_or_grows_without_measure() {
    const PARTS: &[&str] = &[
        "<a href=x>",
        "</a>",
        "<i>",
        "</i>",
        "<b>",
        "</b>",
        "<code>",
        "</code>",
        "<pre>",
        "</pre>",
        "<table>",
        "</table>",
        "<tr>",
        "<td>",
        "</td>",
        "<main>",
        "</main>",
        "<ul>",
        "<ol>",
        "<li>",
        "</ul>",
        "<blockquote>",
        "</blockquote>",
        "<h2>",
        "</h2>",
        "<p>",
        "<br>",
        "<hr>",
        "<div>",
        "</div>",
        "<nav>",
        "</nav>",
        "<title>",
        "</title>",
        "<script>",
        "</script>",
        "<img alt='ü€'>",
        "<!-- ü -->",
        "<",
        "&euro;",
        "&amp",
        "€",
        "ü",
        "🦝",
        " ",
        "\n",
        "*",
        "**",
        "`",
        "```",
        "|",
        "a",
        "word",
        "\u{1}",
        "\u{2}",
        "\u{a0}",
        "\u{2028}",
    ];
    let bases = [None, Some(Url::parse("https://e.example/ä/b").unwrap())];
    // A plain generator (xorshift): the same pages in every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    for round in 0..6000 {
        let count = random(if round % 100 == 0 { 2000 } else { 40 });
        // Few kinds at a time: what belongs together meets more often.
        let first = random(PARTS.len());
        let kinds = 2 + random(PARTS.len());
        let html: String = (0..count).map(|_| PARTS[(first + random(kinds) * 7) % PARTS.len()]).collect();
        let page = convert(&html, bases[round % 2].as_ref());
        assert!(page.text.len() <= 200 + 40 * html.len(), "{} of {}: {html}", page.text.len(), html.len());
    }
}

#[test]
fn short_links_below_a_long_address_do_not_fill_the_memory() {
    let base = Url::parse(&format!("https://e.example/{}/", "x".repeat(8000))).unwrap();
    let page = convert(&"<a href=y>z</a>".repeat(20_000), Some(&base));
    assert!(page.text.len() < 2_500_000, "{}", page.text.len());
    assert!(page.text.ends_with("zzz"), "the words stay");
}
