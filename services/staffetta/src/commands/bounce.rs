//! `staffetta bounce`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bounce::{Automatic, Feedback, Form, Inbound, Original, Recipient, Report};
use classify::{Kind, Rules};
use serde_json::{Value, json};

use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Say what a message that came back is, whom it is about, and why
    Check(Check),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The messages, files as mail programs save them
    #[arg(required = true)]
    messages: Vec<PathBuf>,
    /// File with rules that come before those that are shipped; can be repeated
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// How it is written; json: an object a line for each file
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    let Command::Check(arguments) = command;
    let rules = rules(&arguments.rules)?;
    let many = arguments.messages.len() > 1;
    for path in &arguments.messages {
        let octets = std::fs::read(path).with_context(|| path.display().to_string())?;
        let inbound = bounce::read_by(&rules, &octets);
        let text = match arguments.output {
            OutputFormat::Text if many => {
                format!("{}:\n{}\n", path.display(), described(&inbound))
            }
            OutputFormat::Text => described(&inbound),
            OutputFormat::Json => format!("{}\n", as_json(path, &inbound)),
        };
        output::print(&text)?;
    }
    Ok(())
}

fn rules(paths: &[PathBuf]) -> anyhow::Result<Rules> {
    let mut files = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        files.push((path.display().to_string(), text));
    }
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (&name[..], &text[..]))
        .collect();
    Ok(Rules::read(&files)?)
}

fn described(inbound: &Inbound) -> String {
    match inbound {
        Inbound::Report(report) => described_report(report),
        Inbound::Feedback(feedback) => described_feedback(feedback),
        Inbound::Automatic(Automatic::Reply) => "An automatic reply.\n".into(),
        Inbound::Automatic(Automatic::Generated) => "A message that a program made.\n".into(),
        Inbound::Challenge => "A program wants a person to prove that it is one.\n".into(),
        Inbound::Receipt => "A receipt.\n".into(),
        Inbound::Other => "Nothing of a program, as far as can be told.\n".into(),
    }
}

fn described_report(report: &Report) -> String {
    let form = match report.form {
        Form::Standard => "fields",
        Form::Words => "words",
    };
    let mut text = format!("A report in {form}.\n");
    let heading = [
        "RECIPIENT",
        "ACTION",
        "CODE",
        "STATUS",
        "CLASS",
        "REASON",
        "HARD",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for recipient in &report.recipients {
        rows.push(vec![
            or_dash(&recipient.address),
            recipient.action.name().into(),
            recipient.code.to_string(),
            or_dash(&status(recipient)),
            recipient.class().name().into(),
            recipient.judgement.reason.name().into(),
            if recipient.is_hard() { "yes" } else { "no" }.into(),
        ]);
    }
    text.push_str(&output::table(&rows));
    for recipient in report
        .recipients
        .iter()
        .filter(|recipient| !recipient.diagnostic.is_empty())
    {
        text.push_str(&format!(
            "{}: {}\n",
            or_dash(&recipient.address),
            recipient.diagnostic
        ));
    }
    push_original(&mut text, &report.original);
    text
}

fn described_feedback(feedback: &Feedback) -> String {
    let mut text = format!("A complaint: {}.\n", feedback.kind.name());
    for recipient in &feedback.recipients {
        text.push_str(&format!("Recipient: {recipient}\n"));
    }
    push_original(&mut text, &feedback.original);
    text
}

fn push_original(text: &mut String, original: &Original) {
    if !original.message_id.is_empty() {
        text.push_str(&format!("Message-ID: {}\n", original.message_id));
    }
    if !original.return_path.is_empty() {
        text.push_str(&format!("Return path: {}\n", original.return_path));
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

fn status(recipient: &Recipient) -> String {
    recipient
        .status
        .map_or_else(String::new, |(first, subject, detail)| {
            format!("{first}.{subject}.{detail}")
        })
}

fn as_json(path: &Path, inbound: &Inbound) -> Value {
    let mut value = match inbound {
        Inbound::Report(report) => json!({
            "kind": "report",
            "form": match report.form { Form::Standard => "fields", Form::Words => "words" },
            "reportingMta": report.reporting_mta,
            "envelopeId": report.envelope_id,
            "recipients": report.recipients.iter().map(recipient_as_json).collect::<Vec<_>>(),
            "original": original_as_json(&report.original),
        }),
        Inbound::Feedback(feedback) => json!({
            "kind": "feedback",
            "feedback": feedback.kind.name(),
            "isComplaint": feedback.kind.is_complaint(),
            "userAgent": feedback.user_agent,
            "mailFrom": feedback.mail_from,
            "recipients": feedback.recipients,
            "sourceIp": feedback.source_ip,
            "domains": feedback.domains,
            "incidents": feedback.incidents,
            "original": original_as_json(&feedback.original),
        }),
        Inbound::Automatic(Automatic::Reply) => json!({ "kind": "automaticReply" }),
        Inbound::Automatic(Automatic::Generated) => json!({ "kind": "generated" }),
        Inbound::Challenge => json!({ "kind": "challenge" }),
        Inbound::Receipt => json!({ "kind": "receipt" }),
        Inbound::Other => json!({ "kind": "other" }),
    };
    value["file"] = json!(path.display().to_string());
    value
}

fn recipient_as_json(recipient: &Recipient) -> Value {
    json!({
        "address": recipient.address,
        "originalAddress": recipient.original_address,
        "action": recipient.action.name(),
        "code": recipient.code,
        "status": status(recipient),
        "class": recipient.class().name(),
        "reason": recipient.judgement.reason.name(),
        "isPermanent": recipient.judgement.kind == Kind::Permanent,
        "isHard": recipient.is_hard(),
        "remoteMta": recipient.remote_mta,
        "diagnostic": recipient.diagnostic,
    })
}

fn original_as_json(original: &Original) -> Value {
    json!({
        "messageId": original.message_id,
        "returnPath": original.return_path,
        "from": original.from,
        "to": original.to,
        "feedbackId": original.feedback_id,
        "cfblFeedbackId": original.cfbl_feedback_id,
        "cfblAddress": original.cfbl_address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "From: MAILER-DAEMON@mx.example\nSubject: failure notice\n\nIt could not be delivered.\n\n\
                          <a@b.example>:\n550 5.1.1 no such user\n\n--- Copy of the message\n\nMessage-ID: <1@x.example>\nTo: a@b.example\n";

    #[test]
    fn says_whom_a_report_is_about_and_why() {
        let inbound = bounce::read(REPORT.as_bytes());
        let text = described(&inbound);
        for expected in [
            "A report in words.\n",
            "a@b.example",
            "5.1.1   recipient  unknownMailbox  yes",
            "Message-ID: 1@x.example",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        let json = as_json(Path::new("x.eml"), &inbound);
        assert_eq!(json["file"], "x.eml");
        assert_eq!(json["recipients"][0]["isHard"], true);
        assert_eq!(json["original"]["to"], json!(["a@b.example"]));
    }

    #[test]
    fn takes_rules_of_a_file_and_says_what_is_wrong_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.yaml");
        std::fs::write(
            &path,
            "rules: [ { reason: policy, phrases: [our own word] } ]",
        )
        .unwrap();
        assert!(rules(std::slice::from_ref(&path)).is_ok());
        std::fs::write(&path, "rules: [ { reason: policy } ]").unwrap();
        let error = rules(&[path]).unwrap_err().to_string();
        assert!(error.contains("own.yaml: rule 1 (policy)"), "{error}");
    }
}
