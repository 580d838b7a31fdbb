//! `staffetta apply`.

use std::path::PathBuf;
use std::process::ExitCode;

use proto::admin::{ApplyRequest, ApplyResponse};
use serde_json::json;

use crate::admin::{self, Server};
use crate::cli::Global;
use crate::documents::Documents;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File or folder with resource documents, or `-` for standard input; can be repeated
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Remove resources that the documents do not name
    #[arg(long)]
    prune: bool,
    /// Validate and show what would change
    #[arg(long)]
    dry_run: bool,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let documents = Documents::read(&arguments.files)?;
    let mut admin = arguments.server.connect(global).await?;
    let request = ApplyRequest {
        documents: documents.text.clone(),
        prune: arguments.prune,
        dry_run: arguments.dry_run,
    };
    let response = admin
        .apply(request)
        .await
        .map_err(|status| admin::refused("apply", &status))?
        .into_inner();
    if arguments.output == OutputFormat::Json {
        output::print(&json_of(&documents, &response, arguments.dry_run))?;
        return Ok(if response.problems.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    if !response.problems.is_empty() {
        return Ok(report_problems(&documents, &response.problems));
    }
    output::print(&describe(&response, arguments.dry_run))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes all problems; nothing was changed.
pub(crate) fn report_problems(documents: &Documents, problems: &[String]) -> ExitCode {
    for problem in problems {
        output::complain(&anyhow::Error::msg(documents.locate(problem)));
    }
    let what = match problems.len() {
        1 => "there is 1 problem; nothing was changed".to_owned(),
        count => format!("there are {count} problems; nothing was changed"),
    };
    output::complain(&anyhow::Error::msg(what));
    ExitCode::FAILURE
}

fn json_of(documents: &Documents, response: &ApplyResponse, dry_run: bool) -> String {
    let problems: Vec<String> = response
        .problems
        .iter()
        .map(|problem| documents.locate(problem))
        .collect();
    let value = json!({
        "dryRun": dry_run,
        "problems": problems,
        "changes": response.changes,
        "version": response.version,
        "hash": response.hash,
    });
    format!("{value}\n")
}

fn describe(response: &ApplyResponse, dry_run: bool) -> String {
    let changed = response
        .changes
        .iter()
        .filter(|change| !change.starts_with("unchanged"));
    let mut text: String = changed.map(|change| format!("{change}\n")).collect();
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    let hash = response.hash.get(..12).unwrap_or(&response.hash);
    if dry_run {
        text.push_str("dry run: nothing was written\n");
    } else {
        text.push_str(&format!(
            "configuration version {} ({hash})\n",
            response.version
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_lists_changes_and_the_version() {
        let response = ApplyResponse {
            problems: Vec::new(),
            version: 7,
            hash: "0123456789abcdef".to_owned(),
            changes: ["created Tenant/acme", "unchanged Route/default"]
                .map(str::to_owned)
                .to_vec(),
        };
        assert_eq!(
            describe(&response, false),
            "created Tenant/acme\nconfiguration version 7 (0123456789ab)\n"
        );
        assert_eq!(
            describe(&response, true),
            "created Tenant/acme\ndry run: nothing was written\n"
        );
    }
}
