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
