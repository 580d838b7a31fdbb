//! What it costs to look over a message: `cargo run --release -p preflight --example cost`.
//!
//! Prints microseconds of wall time, the least of several rounds, for a usual message of 10 KiB by rule, and for hostile ones as
//! large as the first piece of a message can be.

use std::hint::black_box;
use std::time::{Duration, Instant};

use config::{Preflight, Snapshot};
use message::Content;
use preflight::look_at_content;

/// Octets of the largest part of a message that is looked at.
const LARGEST: usize = 1 << 20;

fn main() {
    let (header, body) = usual();
    println!("usual message: {} octets", header.len() + body.len());
    let words: Vec<String> = (0..200)
        .map(|number| format!("word{number} of list"))
        .collect();
    let words = format!("rule: spamWords, words: [ {} ]", words.join(", "));
    let rules = [
        "rule: brokenMime",
        "rule: manyLinks, most: 100",
        "rule: tooLittleText",
        "rule: genericText",
        &words,
    ];
    for rule in rules {
        let name: String = rule.chars().take(20).collect();
        report(&name, &checks(&[rule]), &header, &body);
    }
    let all = checks(&rules);
    report("all of them", &all, &header, &body);
    for (name, header, body) in hostile() {
        report(&format!("hostile: {name}"), &all, &header, &body);
    }
}

fn report(name: &str, preflight: &Preflight, header: &[u8], body: &[u8]) {
    let content = Content {
        header,
        body,
        is_complete: true,
    };
    let mut least = Duration::MAX;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        let round = Instant::now();
        black_box(look_at_content(
            black_box(&content),
            preflight,
            "m",
            Vec::new(),
        ));
        least = least.min(round.elapsed());
    }
    let octets = header.len() + body.len();
    let micros = least.as_secs_f64() * 1e6;
    let speed = octets as f64 / micros;
    println!("{name:<40} {micros:>10.1} us {speed:>8.0} MB/s");
}

fn checks(checks: &[&str]) -> Preflight {
    let checks: Vec<String> = checks
        .iter()
        .map(|check| format!("{{ {check} }}"))
        .collect();
    let documents = format!(
        "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: t }}\n\
         spec: {{ defaultStream: m, streams: [ {{ name: m }} ], preflight: {{ checks: [ {} ] }} }}\n",
        checks.join(", ")
    );
    let snapshot = Snapshot::from_documents(&documents).expect("the documents are valid");
    let tenant = snapshot.tenant("t").expect("it is there");
    tenant.preflight.clone()
}

/// An alternative of plain text and HTML, quoted-printable, 10 KiB together.
fn usual() -> (Vec<u8>, Vec<u8>) {
    let header = b"From: a@b.example\r\nSubject: =?utf-8?q?Neues_f=C3=BCr_Sie?=\r\n\
        Content-Type: multipart/alternative; boundary=\"b123\"\r\n"
        .to_vec();
    let part = |kind: &str, text: &str| {
        format!(
            "--b123\r\nContent-Type: text/{kind}; charset=utf-8\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\n{text}\r\n"
        )
    };
    let plain = "Gr=C3=BC=C3=9Fe aus dem Laden: neue Ware ist da, sehen Sie https://a.exampl=\r\ne/neu?id=3D1\r\n";
    let html = "<p style=3D\"color: #333\">Neue <b>Ware</b> ist da &amp; wartet, <a href=3D\"https:=\r\n//a.example/neu?id=3D1\">sehen Sie</a></p>\r\n";
    let body = [
        part("plain", &plain.repeat(36)),
        part("html", &html.repeat(48)),
        "--b123--\r\n".to_owned(),
    ];
    (header, body.concat().into_bytes())
}

fn hostile() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let filled = |octets: &str| octets.repeat(LARGEST / octets.len()).into_bytes();
    let plain = b"X: y\r\n".to_vec();
    let html = b"Content-Type: text/html\r\n".to_vec();
    let multipart = b"Content-Type: multipart/mixed; boundary=b\r\n".to_vec();
    let nested: String = (0..31)
        .map(|level| {
            let boundary = format!("{}{level}", "-".repeat(60));
            format!("--b\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n")
        })
        .collect();
    let mut in_nested = nested.into_bytes();
    in_nested.extend_from_slice(&filled(&format!("--{}x\r\n", "-".repeat(60))));
    let base64 = b"Content-Transfer-Encoding: base64\r\n".to_vec();
    vec![
        ("text", plain.clone(), filled("some words of a text\r\n")),
        ("beyond ASCII", plain.clone(), filled("\u{e4}\u{7121}\r\n")),
        ("base64", base64, filled("c29tZSB3b3Jkc2Vu\r\n")),
        (
            "HTML",
            html.clone(),
            filled("<p>some <b>words</b> of a text\r\n"),
        ),
        ("tags without end", html.clone(), filled("<a href=\"<")),
        ("styles without end", html.clone(), filled("<style></")),
        ("references without end", html, filled("&amp")),
        (
            "multiparts without parts",
            multipart.clone(),
            filled("--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n"),
        ),
        (
            "multiparts that do not end",
            multipart.clone(),
            filled("--b\r\nContent-Type: multipart/mixed; boundary=no\r\n\r\n"),
        ),
        ("parts", multipart.clone(), filled("--b\r\n\r\n")),
        ("delimiters of nobody", multipart, in_nested),
        (
            "placeholders without end",
            plain.clone(),
            filled("{{<%*|${["),
        ),
        ("salutations", plain, filled("dear hello ")),
        (
            "subject",
            [
                b"Subject: ".to_vec(),
                b"=?".repeat(120_000),
                b"\r\n".to_vec(),
            ]
            .concat(),
            Vec::new(),
        ),
    ]
}
