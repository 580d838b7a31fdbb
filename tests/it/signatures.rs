//! Signatures of many kinds of messages, as verifiers see them that others have written: dkimpy and OpenDKIM.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dkim::{Batches, BodyHasher, Draft, Key, Signer};

const PATIENCE: Duration = Duration::from_secs(300);
const DOMAIN: &str = "signed.example";

/// Header sections, each with what else there is in it; `From` comes with them.
fn headers() -> Vec<Vec<u8>> {
    let usual = "From: Jo <jo@signed.example>\r\nTo: a@dest.example\r\nSubject: s\r\n";
    let long = format!("{usual}X-Long: {}\r\nReferences:", "x".repeat(900));
    let crowd: String = (0..120)
        .map(|number| format!("\r\n\trecipient.{number}@dest.example,"))
        .collect();
    let ids: String = (0..40)
        .map(|id| format!("\r\n <{id}.{}@signed.example>", "y".repeat(50)))
        .collect();
    [
        usual.to_owned(),
        // Folding, of every kind.
        "From:\r\n jo@signed.example\r\nTo: a@dest.example,\r\n\tb@dest.example,\r\n \t c@dest.example\r\nSubject: folded\r\n \r\n\tand more\r\n".to_owned(),
        // White space around values. (Before the colon it is obsolete, and neither of the two reads it.)
        "FROM:jo@signed.example \t\r\nto:a@dest.example\r\nSubject:   many   spaces \t here  \r\nDate:\t Sun, 22 Nov 2026 12:00:00 +0000\r\n".to_owned(),
        // The same name again, in other cases, apart from each other.
        "To: a@dest.example\r\nSubject: one\r\nFrom: jo@signed.example\r\nsubject: two\r\nX: y\r\nSUBJECT: three\r\nList-Id: <l.signed.example>\r\nlist-id: <m.signed.example>\r\nSender: a@b.example\r\n".to_owned(),
        // Empty values, and names that are the beginnings of others.
        "From: jo@signed.example\r\nSubject:\r\nCc: \r\nTo-Do: x\r\nReply-To:\t\r\nIn-Reply-To:  \t \r\nMIME-Version: 1.0\r\n".to_owned(),
        // Octets beyond ASCII.
        "From: J\u{f6} <jo@signed.example>\r\nTo: \u{65e5}\u{672c} <a@dest.example>\r\nSubject: \u{e9}t\u{e9} \u{1f4e7}\r\n".to_owned(),
        // Long lines, and a field of many lines.
        format!("{long}{ids}\r\n"),
        // Many recipients, one to a line.
        format!("From: jo@signed.example\r\nTo:{crowd}\r\n last@dest.example\r\n"),
        // The least there is, and its name in capitals.
        "FROM: jo@signed.example\r\n".to_owned(),
        // Fields that nobody signs between those that are, some of them nearly of the same name.
        "X-From: x@dest.example\r\nFrom: jo@signed.example\r\nFrom-X: y\r\nReturn-Path: <b@signed.example>\r\nComments: a\r\n b\r\nTo: a@dest.example\r\nReceived: x\r\nReceived: y\r\nDate: now\r\n".to_owned(),
        // Folded before the first word and after the last, with a tab, and encoded words.
        "From:\t\r\n\t jo@signed.example\r\n \t\r\nSubject: =?utf-8?q?=C3=A9t=C3=A9?=\r\n =?utf-8?b?w6k=?=\r\nTo: \r\n\ta@dest.example\r\nMessage-ID:\r\n <2@signed.example>\r\n".to_owned(),
        // All that is signed.
        "Received: from a by b; Sun, 22 Nov 2026 12:00:00 +0000\r\nFrom: jo@signed.example\r\nTo: a@dest.example\r\nCc: b@dest.example\r\nSubject: all; of=it, \"quoted\" (comment)\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nReply-To: r@signed.example\r\nMessage-ID: <1@signed.example>\r\nIn-Reply-To: <0@dest.example>\r\nReferences: <0@dest.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"b\"\r\nContent-Transfer-Encoding: 8bit\r\nList-Unsubscribe: <https://signed.example/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nFeedback-ID: a:b:c:signed\r\nCFBL-Address: f@signed.example\r\nList-Id: <l.signed.example>\r\nList-Help: <mailto:h@signed.example>\r\n".to_owned(),
    ]
    .map(String::into_bytes)
    .into()
}

/// All end with a line, as they do in SMTP; what does not is tested in `dkim`.
fn bodies() -> Vec<Vec<u8>> {
    let line = "z".repeat(990);
    let many: String = (0..300)
        .map(|number| format!("line {number} \t \r\n"))
        .collect();
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "\r\n",
        "\r\n\r\n\r\n",
        " \r\n",
        " \t\r\n \r\n",
        "one line\r\n",
        "\tonly a tab first\r\n \r\nend\r\n",
        "trailing  white space \t \r\n",
        " leading\tand   inner\t\twhite space\r\n",
        "text\r\n\r\n \r\n\t\r\n\r\n",
        "\r\n\r\nafter empty lines\r\n",
        "..\r\n.\r\n...stuffed\r\n",
        "From the start\r\n>From quoted\r\n--\r\nJo\r\n",
    ]
    .map(|body| body.as_bytes().to_vec())
    .into();
    bodies.push(format!("{line}\r\n{line}\r\n").into_bytes());
    bodies.push(many.into_bytes());
    bodies.push("Gr\u{fc}\u{df}e \u{1f4e7} \u{a0} \r\n".as_bytes().to_vec());
    bodies.push((0x80..=0xff).chain(*b"\r\n").collect());
    bodies
}

/// Messages by name, each with one signature of each algorithm; those of `broken` are changed afterwards.
struct Messages {
    folder: PathBuf,
    good: usize,
    broken: usize,
}

impl Messages {
    fn write(folder: &Path) -> Result<Self> {
        let signer = |pem: String, selector: &str| -> Result<(Signer, String)> {
            let key = Key::from_pem(pem.as_bytes())?;
            let record = key.dns_record();
            Ok((Signer::new(DOMAIN, selector, key)?, record))
        };
        let (rsa, rsa_record) = signer(dkim::generate_rsa2048(), "rsa")?;
        let (ed25519, ed25519_record) = signer(dkim::generate_ed25519(), "ed25519")?;
        // As OpenDKIM reads it; dkimpy is given it by the script.
        let keys = format!(
            "rsa._domainkey.{DOMAIN} {rsa_record}\ned25519._domainkey.{DOMAIN} {ed25519_record}\n"
        );
        std::fs::write(folder.join("keys"), keys)?;
        let (headers, bodies) = (headers(), bodies());
        let contents: Vec<(&[u8], &[u8])> = headers
            .iter()
            .flat_map(|header| bodies.iter().map(move |body| (&header[..], &body[..])))
            .collect();
        // In batches, as the signer makes them.
        let hashes: Vec<[u8; 32]> = contents.iter().map(|(_, body)| hash(body)).collect();
        // OpenDKIM doubts signatures of the future.
        let now = runtime::now_ms() / 1000 - 60;
        let mut drafts: Vec<Draft<'_>> = Vec::new();
        for ((header, _), hash) in contents.iter().zip(&hashes) {
            drafts.push(rsa.draft(header, hash, now)?);
            drafts.push(ed25519.draft(header, hash, now)?);
        }
        let signed = Batches::detect().sign(drafts);
        let mut broken = 0;
        for (number, ((header, body), pair)) in contents.iter().zip(signed.chunks(2)).enumerate() {
            let mut message = Vec::new();
            for signed in pair {
                message.extend_from_slice(signed.field.as_ref().map_err(|error| *error)?);
            }
            message.extend_from_slice(header);
            message.extend_from_slice(b"\r\n");
            message.extend_from_slice(body);
            std::fs::write(folder.join(format!("{number:03}.good.eml")), &message)?;
            if number % 10 == 0 {
                let changed = changed(&message, number / 10);
                std::fs::write(folder.join(format!("{number:03}.broken.eml")), changed)?;
                broken += 1;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            good: contents.len(),
            broken,
        })
    }
}

/// In pieces, as it comes in.
fn hash(body: &[u8]) -> [u8; 32] {
    let mut hasher = BodyHasher::new();
    for piece in body.chunks(7) {
        hasher.update(piece);
    }
    hasher.finish()
}

/// Something is added that is signed, or over-signed, or is of the body.
fn changed(message: &[u8], number: usize) -> Vec<u8> {
    match number % 3 {
        0 => [message, b"more\r\n"].concat(),
        1 => [b"Subject: another\r\n", message].concat(),
        _ => [b"Cc: another@dest.example\r\n", message].concat(),
    }
}

#[tokio::test]
async fn dkimpy_and_opendkim_take_every_signature_and_none_of_what_was_changed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let messages = Messages::write(folder.path())?;
    ensure!(messages.good >= 200 && messages.broken >= 20);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let process = tokio::process::Command::new(tests.join("../.servers/python/bin/python"))
        .arg(tests.join("it/signatures/verify.py"))
        .arg(&messages.folder)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("`make servers` installs Python, dkimpy and OpenDKIM")?;
    let output = tokio::time::timeout(PATIENCE, process.wait_with_output()).await??;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{said}");
    let (good, broken) = (messages.good, messages.broken);
    let expected = [
        "dkimpy rsa",
        "dkimpy ed25519",
        "opendkim rsa",
        "opendkim ed25519",
    ]
    .map(|verifier| format!("{verifier}: {good} good, {broken} broken\n"));
    ensure!(said == expected.concat(), "{said}");
    Ok(())
}
