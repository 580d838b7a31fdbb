use config::Snapshot;
use proptest::prelude::*;

use super::*;

/// The preflight of a tenant with these checks, all of which reject.
fn checks(checks: &[&str]) -> Preflight {
    let checks: Vec<String> = checks
        .iter()
        .map(|check| format!("{{ action: reject, {check} }}"))
        .collect();
    let documents = format!(
        "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: t }}\n\
         spec: {{ defaultStream: m, streams: [ {{ name: m }} ], preflight: {{ checks: [ {} ] }} }}\n",
        checks.join(", ")
    );
    let snapshot = Snapshot::from_documents(&documents).unwrap();
    snapshot.tenant("t").unwrap().preflight.clone()
}

fn found_in_part(preflight: &Preflight, message: &[u8], is_complete: bool) -> Vec<String> {
    let at = message.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.unwrap();
    let content = Content {
        header: &message[..at + 2],
        body: &message[at + 4..],
        is_complete,
    };
    let findings = look_at_content(&content, preflight, "m", Vec::new());
    let found = findings.refused_for.into_iter();
    found.map(|finding| finding.what.into_owned()).collect()
}

fn found(preflight: &Preflight, message: &[u8]) -> Vec<String> {
    found_in_part(preflight, message, true)
}

const HTML: &str = "Content-Type: text/html; charset=utf-8\r\n\r\n";
const QUOTED: &str = "Content-Transfer-Encoding: quoted-printable\r\n\r\n";

#[test]
fn counts_links() {
    let preflight = checks(&["rule: manyLinks, most: 2"]);
    let link = "<a href=\"https://a.example/\">x</a>";
    let alternative = |plain: &str, html: &str| {
        format!(
            "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\n{plain}\r\n--b\r\n{HTML}{html}\r\n--b--\r\n"
        )
    };
    let attached = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Disposition: attachment\r\n{HTML}{}\r\n--b--\r\n",
        link.repeat(3)
    );
    for (message, links) in [
        (
            "X: y\r\n\r\nhttp://a.example HTTPS://b.example".to_owned(),
            None,
        ),
        (
            "X: y\r\n\r\nhttp://a.example HTTPS://b.example (http://c.example)".to_owned(),
            Some(3),
        ),
        (
            "X: y\r\n\r\nhttp:// ftp://a ://b xhttp://c mailto:http".to_owned(),
            None,
        ),
        (
            format!("{QUOTED}htt=\r\np://a https:=\r\n//b http=3A//c"),
            Some(3),
        ),
        (format!("{HTML}{}", link.repeat(2)), None),
        (format!("{HTML}{}", link.repeat(3)), Some(3)),
        (alternative("http://a http://b", &link.repeat(2)), None),
        (alternative("http://a http://b", &link.repeat(4)), Some(4)),
        (alternative("http://a http://b http://c", link), Some(3)),
        (attached, None),
    ] {
        let expected: Vec<String> = links
            .map(|links| format!("it has {links} links, more than 2"))
            .into_iter()
            .collect();
        assert_eq!(found(&preflight, message.as_bytes()), expected, "{message}");
    }
}

#[test]
fn finds_words_of_the_list_and_says_them_as_they_are_there() {
    let preflight = checks(&["rule: spamWords, words: [ Casino, free money, Grüße ]"]);
    for (message, word) in [
        (&b"X: y\r\n\r\nall is well\r\n"[..], None),
        (b"Subject: CASINO tonight\r\n\r\n", Some("Casino")),
        (
            b"Subject: =?utf-8?q?fr=65e_money?=\r\n\r\n",
            Some("free money"),
        ),
        (
            b"Subject: =?utf-8?B?Y2Fz?= =?utf-8?B?aW5v?=\r\n\r\n",
            Some("Casino"),
        ),
        (
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\nfree mo=\r\nney",
            Some("free money"),
        ),
        (
            b"Content-Transfer-Encoding: base64\r\n\r\nY2Fza\r\nW5v",
            Some("Casino"),
        ),
        (
            b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nGR\xdc\xdfE",
            Some("Gr\\u{fc}\\u{df}e"),
        ),
        (
            b"Content-Type: text/plain; charset=windows-1252\r\n\r\n\x93Gr\xfc\xdfe\x94",
            Some("Gr\\u{fc}\\u{df}e"),
        ),
        (
            "Content-Type: text/plain; charset=utf-8\r\n\r\nGrüsse".as_bytes(),
            Some("Gr\\u{fc}\\u{df}e"),
        ),
        (
            b"Content-Type: text/html\r\n\r\n<p>free <b>mo</b>ney</p>",
            Some("free money"),
        ),
        (
            b"Content-Type: text/html\r\n\r\n<p title=casino><style>casino</style>x</p>",
            None,
        ),
        (b"Content-Type: application/pdf\r\n\r\ncasino", None),
        (b"X-Casino: casino\r\n\r\ncasinos", None),
    ] {
        let expected: Vec<String> = word
            .map(|word| format!("it says \"{word}\""))
            .into_iter()
            .collect();
        let text = String::from_utf8_lossy(message);
        assert_eq!(found(&preflight, message), expected, "{text}");
    }
}

#[test]
fn each_list_of_words_is_searched_for() {
    let preflight = checks(&[
        "rule: spamWords, words: [ one ]",
        "rule: spamWords, words: [ two ]",
        "rule: spamWords, words: [ three ]",
    ]);
    let message = b"Subject: three\r\n\r\none\r\n";
    assert_eq!(
        found(&preflight, message),
        ["it says \"one\"", "it says \"three\""]
    );
}

#[test]
fn finds_generic_text_in_subject_and_text() {
    let preflight = checks(&["rule: genericText"]);
    for (message, expected) in [
        (
            "Subject: News for {{name}}\r\n\r\n",
            Some("it has a placeholder like {{name}}"),
        ),
        (
            "X: y\r\n\r\nDear customer,",
            Some("it says \"dear customer\""),
        ),
        (
            "Content-Transfer-Encoding: quoted-printable\r\n\r\nHi %FIRST=\r\nNAME%",
            Some("it has a placeholder like %NAME%"),
        ),
        (
            "Content-Type: text/html\r\n\r\n<p>Dear&nbsp;<b>Customer</b></p>",
            Some("it says \"dear customer\""),
        ),
        (
            "Content-Type: text/html\r\n\r\n<style>a{{b:c}}</style>Dear Jane",
            None,
        ),
        ("Subject: News\r\n\r\nDear Jane, all is well.", None),
    ] {
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(found(&preflight, message.as_bytes()), expected, "{message}");
    }
}

#[test]
fn images_want_text_beside_them() {
    let preflight = checks(&["rule: tooLittleText, least: 10"]);
    let message = |html: &str| format!("{HTML}{html}").into_bytes();
    let little = message("<title>a long title of it</title><img src=x alt='many words'> short");
    assert_eq!(
        found(&preflight, &little),
        ["its HTML has 5 letters beside 1 images, fewer than 10"]
    );
    for html in ["<img src=x><p>ten letters and more</p>", "<p>short</p>"] {
        assert!(found(&preflight, &message(html)).is_empty(), "{html}");
    }
    assert!(found_in_part(&preflight, &little, false).is_empty());
}

#[test]
fn says_what_is_broken() {
    let preflight = checks(&["rule: brokenMime"]);
    let message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n";
    assert_eq!(found(&preflight, message), ["a multipart is not closed"]);
    assert!(found_in_part(&preflight, message, false).is_empty());
    assert!(found(&preflight, b"X: y\r\n\r\nx\r\n").is_empty());
}

#[test]
fn what_was_warned_of_before_weighs_too() {
    let mut preflight = checks(&["rule: genericText"]);
    preflight.checks[0].action = config::CheckAction::Warn;
    preflight.checks[0].weight = 2;
    preflight.reject_at = Some(3);
    let earlier = vec![Finding {
        rule: "noSubject",
        weight: 1,
        what: "it has no subject".into(),
    }];
    let content = Content {
        header: b"",
        body: b"Dear user",
        is_complete: true,
    };
    let of = |earlier: Vec<Finding>| look_at_content(&content, &preflight, "m", earlier);
    assert_eq!(of(Vec::new()).refusal(), None);
    assert_eq!(of(Vec::new()).warnings.len(), 1);
    assert_eq!(
        of(earlier).refusal().as_deref(),
        Some("Message refused: it has no subject (noSubject), it says \"dear user\" (genericText)")
    );
}

proptest! {
    #[test]
    fn whatever_comes_is_answered_in_printable_ascii(
        header in "(Subject: |Content-Type: text/html|Content-Transfer-Encoding: base64|\r\n|\\PC){0,10}",
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let preflight = checks(&[
            "rule: spamWords, words: [ ü, a, 無 ]", "rule: genericText", "rule: manyLinks, most: 0",
            "rule: tooLittleText", "rule: brokenMime",
        ]);
        let content = Content { header: header.as_bytes(), body: &body, is_complete: true };
        let findings = look_at_content(&content, &preflight, "m", Vec::new());
        for finding in findings.refused_for {
            let is_printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
            prop_assert!(finding.what.bytes().all(is_printable), "{}", finding.what);
        }
    }
}
