//! `staffetta preflight`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use config::{Snapshot, Tenant};
use message::{Content, HeaderEnd, inspect, labels};
use preflight::{Envelope, Finding, Findings, look_at_content, look_at_header};
use serde_json::{Value, json};

use crate::documents::Documents;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Look a message over as ingress does before it accepts it, without sending it
    Check(Check),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The message, a file as mail programs save it
    message: PathBuf,
    /// Tenant whose checks are made
    #[arg(long)]
    tenant: String,
    /// Stream that it is sent in [default: the one that the message names, else the tenant's]
    #[arg(long)]
    stream: Option<String>,
    /// Address that failures are returned to, for `unalignedFrom`
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    return_path: String,
    /// File or folder with resource documents that are a whole configuration; can be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// Fails when the message would be refused.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Check(arguments) = command;
    let snapshot = snapshot(&arguments.files)?;
    let tenant = snapshot
        .tenant(&arguments.tenant)
        .with_context(|| format!("there is no Tenant {:?}", arguments.tenant))?;
    let message = read_message(&arguments.message)?;
    let stream = arguments.stream.as_deref();
    let findings = look_over(&message, &snapshot, tenant, stream, &arguments.return_path)?;
    let text = match arguments.output {
        OutputFormat::Text => described(&findings),
        OutputFormat::Json => format!("{}\n", as_json(&findings)),
    };
    output::print(&text)?;
    Ok(match findings.refusal() {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

fn snapshot(files: &[PathBuf]) -> anyhow::Result<Snapshot> {
    let documents = Documents::read(files)?;
    Snapshot::from_documents(&documents.text).map_err(|problems| {
        let problems = problems.iter();
        let lines: Vec<String> = problems
            .map(|problem| documents.locate(&problem.to_string()))
            .collect();
        anyhow::anyhow!("the documents are not valid:\n{}", lines.join("\n"))
    })
}

/// With the line ends that it would have on its way.
fn read_message(path: &Path) -> anyhow::Result<Vec<u8>> {
    let octets = std::fs::read(path).with_context(|| path.display().to_string())?;
    let mut message = Vec::with_capacity(octets.len() + octets.len() / 32);
    for octet in octets {
        if octet == b'\n' && message.last() != Some(&b'\r') {
            message.push(b'\r');
        }
        message.push(octet);
    }
    Ok(message)
}

fn look_over(
    message: &[u8],
    snapshot: &Snapshot,
    tenant: &Tenant,
    stream: Option<&str>,
    return_path: &str,
) -> anyhow::Result<Findings> {
    let (header, body) = match HeaderEnd::new().push(message) {
        Some(body) => (&message[..body - 2], &message[body..]),
        None => (message, &[][..]),
    };
    let named = labels(header).ok().and_then(|labels| labels.stream);
    let stream = stream.or(named).unwrap_or(&tenant.default_stream);
    if tenant.stream(stream).is_none() {
        bail!("the tenant has no stream {stream:?}");
    }
    let author = inspect(header).author.ok();
    let envelope = Envelope {
        snapshot,
        tenant,
        stream,
        return_path,
        author: author.as_ref().map(|author| &author.domain),
        smtputf8: false,
    };
    let findings = look_at_header(header, &envelope);
    if !findings.refused_for.is_empty() {
        // Ingress looks no further.
        return Ok(findings);
    }
    let content = Content {
        header,
        body,
        is_complete: true,
    };
    let (preflight, earlier) = (&tenant.preflight, findings.warnings);
    Ok(look_at_content(&content, preflight, stream, earlier))
}

fn described(findings: &Findings) -> String {
    let mut rows = vec![["RULE", "WEIGHT", "WHAT"].map(str::to_owned).to_vec()];
    let row = |finding: &Finding, weight: String| {
        vec![finding.rule.to_owned(), weight, finding.what.to_string()]
    };
    for finding in &findings.warnings {
        rows.push(row(finding, finding.weight.to_string()));
    }
    let rejecting = findings.refused_for.iter();
    for finding in rejecting.filter(|finding| !findings.warnings.contains(finding)) {
        rows.push(row(finding, "rejects".to_owned()));
    }
    if findings.is_empty() {
        return "Nothing was found.\n".to_owned();
    }
    let verdict = match findings.refusal() {
        Some(refusal) => format!("554 5.7.1 {refusal}"),
        None => format!(
            "It would be accepted; warnings weigh {}.",
            findings.weight()
        ),
    };
    format!("{}{verdict}\n", output::table(&rows))
}

fn as_json(findings: &Findings) -> Value {
    let list = |list: &[Finding]| -> Vec<Value> {
        let list = list.iter();
        list.map(|Finding { rule, weight, what }| json!({ "rule": rule, "weight": weight, "what": what }))
            .collect()
    };
    json!({
        "warnings": list(&findings.warnings),
        "weight": findings.weight(),
        "refusedFor": list(&findings.refused_for),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = "apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: t }
spec:
  defaultStream: m
  streams: [ { name: m }, { name: bulk } ]
  preflight:
    rejectAt: 5
    checks:
      - { rule: noSubject, weight: 2 }
      - { rule: genericText, weight: 1 }
      - { rule: noUnsubscribe, streams: [ bulk ], weight: 2 }
      - { rule: brokenMime, action: reject }
";

    fn found(message: &str, stream: Option<&str>) -> anyhow::Result<Findings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("message.eml");
        std::fs::write(&path, message).unwrap();
        let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
        let tenant = snapshot.tenant("t").unwrap();
        look_over(&read_message(&path).unwrap(), &snapshot, tenant, stream, "")
    }

    #[test]
    fn says_what_ingress_would_find() {
        let usual = "From: a@b.example\nSubject: s\n\nx\n";
        assert_eq!(
            described(&found(usual, None).unwrap()),
            "Nothing was found.\n"
        );
        let message = "From: a@b.example\n\nHi {{name}}\n";
        let text = described(&found(message, None).unwrap());
        for expected in [
            "RULE ",
            "noSubject ",
            "it has a placeholder like {{name}}",
            "It would be accepted; warnings weigh 3.",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        let heavy = found(message, Some("bulk")).unwrap();
        assert!(described(&heavy).contains("554 5.7.1 Message refused: it has no subject"));
        assert_eq!(as_json(&heavy)["weight"], 5);
        let named = format!("X-Staffetta-Stream: bulk\n{message}");
        assert_eq!(found(&named, None).unwrap(), heavy);
        assert!(found(message, Some("other")).is_err());
    }

    #[test]
    fn line_ends_of_files_are_those_of_mail() {
        let broken = "Subject: s\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n";
        for message in [broken.to_owned(), broken.replace('\n', "\r\n")] {
            let refused = found(&message, None).unwrap();
            let text = described(&refused);
            assert!(
                text.contains("a multipart is not closed (brokenMime)"),
                "{text}"
            );
            assert!(text.contains("rejects"), "{text}");
            let closed = format!("{message}--b--\n");
            assert!(found(&closed, None).unwrap().is_empty());
        }
    }
}
