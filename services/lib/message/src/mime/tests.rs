use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

const ALL: Wanted = Wanted {
    texts: true,
    broken: true,
};

/// The texts of a message as lines, and what is wrong with it.
fn read_part(message: &[u8], is_complete: bool) -> (Vec<String>, Option<BrokenMime>) {
    let at = memmem::find(message, b"\r\n\r\n").unwrap();
    let content = Content {
        header: &message[..at + 2],
        body: &message[at + 4..],
        is_complete,
    };
    let mut texts = Vec::new();
    let broken = read_content(&content, ALL, &mut |text| {
        let (kind, text) = match text {
            Text::Subject(text) => ("subject", text),
            Text::Plain(text) => ("plain", text),
            Text::Html(page) => ("html", page.text.into()),
        };
        texts.push(format!("{kind}: {}", text.trim()));
    });
    (texts, broken)
}

fn read(message: &[u8]) -> (Vec<String>, Option<BrokenMime>) {
    read_part(message, true)
}

fn broken(message: &str) -> Option<BrokenMime> {
    read(message.as_bytes()).1
}

#[test]
fn decodes_texts() {
    let base64 = STANDARD.encode("schöne Grüße");
    for (header, body, expected) in [
        ("", &b"as it is\r\n"[..], "as it is"),
        ("Content-Type: text/plain", "grün".as_bytes(), "grün"),
        ("", b"gr\xfcn", "grün"),
        (
            "Content-Type: text/plain; charset=UTF-8",
            "grün".as_bytes(),
            "grün",
        ),
        (
            "Content-Type: text/plain; charset=\"ISO-8859-1\"",
            b"gr\xfcn",
            "grün",
        ),
        (
            "Content-Type: text/plain; charset=windows-1252",
            b"10 \x80",
            "10 €",
        ),
        (
            "Content-Type: text/plain; charset=koi8-r",
            b"\xc4\xc1",
            "да",
        ),
        (
            "Content-Type: text/plain; charset=shift_jis",
            b"\x96\xb3\x97\xbf",
            "無料",
        ),
        (
            "Content-Transfer-Encoding: Quoted-Printable\r\nContent-Type: text/plain; charset=iso-8859-1",
            b"https://a.ex=\r\nample/?a=3Db gr=FCn =\r\nweiter",
            "https://a.example/?a=b grün weiter",
        ),
        (
            "Content-Transfer-Encoding: base64\r\nContent-Type: text/plain; charset=utf-8",
            base64.as_bytes(),
            "schöne Grüße",
        ),
    ] {
        let message = [header.as_bytes(), b"\r\nX: y\r\n\r\n", body].concat();
        let (texts, broken) = read(&message);
        assert_eq!(texts, [format!("plain: {expected}")], "{header}");
        assert_eq!(broken, None, "{header}");
    }
}

#[test]
fn decodes_the_subject() {
    for (subject, expected) in [
        ("plain words", "plain words"),
        ("=?utf-8?q?gr=C3=BCne_W=C3=B6rter?=", "grüne Wörter"),
        (
            "=?iso-8859-1?Q?gr=FCn?=\r\n =?iso-8859-1?Q?er?= Tee",
            "grüner Tee",
        ),
        ("=?windows-1252?B?gCAxMA==?=", "€ 10"),
    ] {
        let message = format!("Subject: {subject}\r\nContent-Type: image/png\r\n\r\n");
        let (texts, _) = read(message.as_bytes());
        assert_eq!(texts, [format!("subject: {expected}")]);
    }
}

#[test]
fn reads_the_parts_that_readers_see() {
    let message = b"Subject: s\r\nContent-Type: multipart/mixed; boundary=\"o ut\"\r\n\r\npreamble\r\n\
        --o ut\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n\
        --in\r\n\r\nplain text\r\n--in  \r\nContent-Type: text/html; charset=utf-8\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>html=\r\n text</p>\r\n--in--\r\nepilogue\r\n\
        --o ut\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nattached\r\n\
        --o ut\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n\
        --o ut\r\nContent-Type: message/rfc822\r\n\r\nSubject: other\r\n\r\nforwarded\r\n\
        --o ut\r\nContent-Type: text/calendar\r\n\r\nBEGIN\r\n\
        --o ut\r\nContent-Type: multipart/digest; boundary=d\r\n\r\n--d\r\n\r\nSubject: x\r\n\r\ny\r\n--d--\r\n\
        --o ut--\r\nafter\r\n";
    let (texts, broken) = read(message);
    assert_eq!(
        texts,
        ["subject: s", "plain: plain text", "html: html text"]
    );
    assert_eq!(broken, None);
}

#[test]
fn says_what_is_broken() {
    use BrokenMime::*;
    let multipart = "Content-Type: multipart/mixed; boundary=b\r\n";
    let part = |fields: &str, body: &str| format!("{fields}\r\n\r\n{body}");
    let encoded =
        |encoding: &str, body: &str| part(&format!("Content-Transfer-Encoding: {encoding}"), body);
    for (message, expected) in [
        (part(multipart.trim(), "--b\r\n\r\nx\r\n--b--\r\n"), None),
        (part(multipart.trim(), "--b\r\n\r\nx\r\n--b--"), None),
        (part(multipart.trim(), "--b\r\nX: y\r\n--b--\r\n"), None),
        (part(multipart.trim(), "--b\r\n\r\nx\r\n"), Some(NotClosed)),
        (
            part(multipart.trim(), "--b\r\n\r\nx\r\n--bc--\r\n"),
            Some(NotClosed),
        ),
        (part(multipart.trim(), "x\r\n"), Some(NoParts)),
        (part(multipart.trim(), "--b--\r\n"), Some(NoParts)),
        (part("Content-Type: multipart/mixed", "x"), Some(NoBoundary)),
        (
            part("Content-Type: multipart/mixed; boundary=\"\"", "x"),
            Some(NoBoundary),
        ),
        (
            part(
                multipart.trim(),
                "--b\r\nContent-Type: multipart/related; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--b--\r\n",
            ),
            Some(NotClosed),
        ),
        (
            part("Content-Type: text/plain\r\nContent-Type: text/html", "x"),
            Some(Repeated),
        ),
        (encoded("base64", "AAAA\r\nAA==\r\n"), None),
        (encoded("base64", ""), None),
        (encoded("base64", "AAAA\r\nA\r\n"), Some(NotBase64)),
        (encoded("base64", "AA==AAAA"), Some(NotBase64)),
        (encoded("base64", "A==="), Some(NotBase64)),
        (encoded("base64", "AAAA\r\n-- \r\nfooter"), Some(NotBase64)),
        (encoded("quoted-printable", "a=3Db=3d=\r\nc"), None),
        (
            encoded("quoted-printable", "50 =% off"),
            Some(NotQuotedPrintable),
        ),
        (
            encoded("quoted-printable", "==3D"),
            Some(NotQuotedPrintable),
        ),
        (encoded("8BIT (so)", "x"), None),
        (encoded("x-uuencode", "x"), Some(UnknownEncoding)),
        (
            part(
                &format!("{multipart}Content-Transfer-Encoding: 7bit"),
                "--b\r\n\r\nx\r\n--b--",
            ),
            None,
        ),
        (
            part(
                &format!("{multipart}Content-Transfer-Encoding: base64"),
                "--b\r\n\r\nx\r\n--b--",
            ),
            Some(EncodedComposite),
        ),
        (
            encoded("quoted-printable\r\nContent-Type: message/rfc822", "x"),
            Some(EncodedComposite),
        ),
        (
            part("Content-Type: text/plain; charset=klingon", "x"),
            Some(UnknownCharset),
        ),
        (
            encoded(
                "quoted-printable\r\nContent-Type: text/html; charset=utf-8",
                "gr=FCn",
            ),
            Some(NotUtf8),
        ),
        // What nobody declares or looks into is not broken.
        (
            part("Content-Type: application/x-thing", "\u{0}\u{1}"),
            None,
        ),
        (
            part(
                "Content-Type: message/rfc822",
                "Content-Type: multipart/mixed\r\n\r\nx",
            ),
            None,
        ),
        (part("Content-Type: text", "x"), None),
    ] {
        assert_eq!(broken(&message), expected, "{message:?}");
    }
}

#[test]
fn what_is_broken_in_an_attachment_is_found_too() {
    let message = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png\r\n\
        Content-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\nAA*A\r\n--b--\r\n";
    assert_eq!(broken(message), Some(BrokenMime::NotBase64));
}

#[test]
fn readers_that_forgive_are_followed() {
    let (texts, broken) =
        read(b"Content-Transfer-Encoding: base64\r\nX: y\r\n\r\nZn*Jl\r\nZQ==\r\n");
    assert_eq!(texts, ["plain: free"]);
    assert_eq!(broken, Some(BrokenMime::NotBase64));
}

#[test]
fn of_a_part_only_what_is_certain_is_said() {
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    for (body, texts, broken) in [
        ("", &[][..], None),
        ("--b\r\n\r\none\r\ntwo", &["plain: one"][..], None),
        ("--b\r\nContent-Type: multipart/mixed;\r\n", &[], None),
        (
            "--b\r\nContent-Transfer-Encoding: base64\r\n\r\nZnJl\r\nZQ=",
            &["plain: fre"],
            None,
        ),
        (
            "--b\r\nContent-Transfer-Encoding: base64\r\n\r\nZnJlZ\r\n",
            &["plain: fre"],
            None,
        ),
        (
            "--b\r\nContent-Transfer-Encoding: base64\r\n\r\nZ*\r\n",
            &["plain: "],
            Some(BrokenMime::NotBase64),
        ),
        (
            "--b\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nx=C3=\r\n=B",
            &["plain: x\u{fffd}"],
            None,
        ),
        (
            "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--b\r\n",
            &["plain: x"],
            Some(BrokenMime::NotClosed),
        ),
    ] {
        let message = format!("{head}{body}");
        let found = read_part(message.as_bytes(), false);
        assert_eq!(
            found,
            (
                texts.iter().map(|text| (*text).to_owned()).collect(),
                broken
            ),
            "{body}"
        );
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| {
        let mut message = "Content-Type: multipart/mixed; boundary=b0\r\n\r\n".to_owned();
        for level in 0..levels - 1 {
            let next = level + 1;
            message.push_str(&format!(
                "--b{level}\r\nContent-Type: multipart/mixed; boundary=b{next}\r\n\r\n"
            ));
        }
        message.push_str(&format!("--b{}\r\n\r\nx\r\n", levels - 1));
        for level in (0..levels).rev() {
            message.push_str(&format!("--b{level}--\r\n"));
        }
        broken(&message)
    };
    assert_eq!(nested(MAX_DEPTH), None);
    assert_eq!(nested(MAX_DEPTH + 1), Some(BrokenMime::TooDeep));
}

#[test]
fn parts_are_bounded() {
    let parts = |number: usize| {
        let parts = "--b\r\n\r\nx\r\n".repeat(number);
        let message = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n");
        let (texts, broken) = read(message.as_bytes());
        (texts.len(), broken)
    };
    assert_eq!(parts(MAX_PARTS - 1), (MAX_PARTS - 1, None));
    assert_eq!(
        parts(MAX_PARTS + 1),
        (MAX_PARTS, Some(BrokenMime::TooManyParts))
    );
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"\r\n",
        b"\r\n\r\n",
        b"\r\n--b",
        b"--b--\r\n",
        b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
        b"Content-Type: multipart/digest; boundary=c\r\n",
        b"Content-Type: text/html; charset=iso-2022-jp\r\n",
        b"Content-Type: text/plain; charset=utf-7\r\n",
        b"Content-Type: text/plain; charset=utf-16\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"Subject: =?utf-8?b?",
        b"=?=?=?=",
        b"<a href=http://",
        b"=",
    ];
    let word = prop::sample::select(words).prop_map(<[u8]>::to_vec);
    let octets = proptest::collection::vec(any::<u8>(), 0..20);
    proptest::collection::vec(prop_oneof![3 => word, 1 => octets], 0..20)
        .prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn never_panics(header in pieces(), body in pieces(), is_complete in any::<bool>()) {
        let content = Content { header: &header, body: &body, is_complete };
        read_content(&content, ALL, &mut |_| {});
    }

    #[test]
    fn what_is_broken_in_a_part_is_broken_in_the_whole(body in pieces(), cut in any::<prop::sample::Index>()) {
        let header = b"Content-Type: multipart/mixed; boundary=b\r\n";
        let cut = cut.index(body.len() + 1);
        let of = |body: &[u8], is_complete| {
            read_content(&Content { header, body, is_complete }, ALL, &mut |_| {})
        };
        // What comes first of several things that are wrong may depend on the cut.
        prop_assert!(of(&body[..cut], false).is_none() || of(&body, true).is_some());
    }
}
