//! `staffetta check`.

use std::path::PathBuf;
use std::process::ExitCode;

use config::Snapshot;
use runtime::Bootstrap;
use serde_json::json;

use crate::cli::Global;
use crate::documents::Documents;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File or folder with resource documents that are a whole configuration; can be repeated
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
}

pub(crate) fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut problems = Vec::new();
    let mut read = Vec::new();
    let documents_only = !arguments.files.is_empty() && global.given_config().is_none();
    if !documents_only || global.config_path().exists() {
        match global.bootstrap() {
            Ok(bootstrap) => {
                problems.extend(certificate_problems(&bootstrap));
                problems.extend(key_problem(&bootstrap));
                read.push(format!("{}: read", global.config_path().display()));
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    if !arguments.files.is_empty() {
        let documents = Documents::read(&arguments.files)?;
        match Snapshot::from_documents(&documents.text) {
            Ok(snapshot) => {
                let hash = snapshot.hash().get(..12).unwrap_or_default();
                read.push(format!(
                    "{} resources: read (configuration {hash})",
                    snapshot.len()
                ));
                problems.extend(missing_files(&snapshot));
            }
            Err(found) => problems.extend(
                found
                    .iter()
                    .map(|problem| documents.locate(&problem.to_string())),
            ),
        }
    }
    if arguments.output == OutputFormat::Json {
        let value = json!({ "read": read, "problems": problems });
        output::print(&format!("{value}\n"))?;
    } else {
        let lines: String = read.iter().map(|line| format!("{line}\n")).collect();
        output::print(&lines)?;
    }
    for problem in problems
        .iter()
        .filter(|_| arguments.output == OutputFormat::Text)
    {
        output::complain(&anyhow::Error::msg(problem.clone()));
    }
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The keys of tokens and links, when they can't be used.
fn key_problem(bootstrap: &Bootstrap) -> Option<String> {
    let tokens = bootstrap.tokens.as_ref()?;
    let error = runtime::TokenKeyring::load(tokens).err()?;
    Some(error.to_string())
}

/// Certificates of the listeners, of `scheduler.admin` and of `feedback.links` that can't be used.
pub(crate) fn certificate_problems(bootstrap: &Bootstrap) -> Vec<String> {
    let listeners = bootstrap.ingress.listeners.iter();
    let of_listeners = listeners
        .filter(|listener| !listener.tls.files().is_empty())
        .filter_map(|listener| {
            let files = listener.tls.files();
            let read = match &listener.client_authorities {
                None => runtime::tls_server_config(files),
                Some(clients) => runtime::tls_server_config_asking(clients, files),
            };
            let error = read.err()?;
            Some(format!("listener {}: {error}", listener.name))
        });
    let of_admin = bootstrap.scheduler.admin.iter().filter_map(|admin| {
        let (clients, files) = (&admin.client_authorities, &admin.files);
        let read = runtime::tls_server_config_for(clients, &files.certificate, &files.key);
        Some(format!("scheduler.admin: {}", read.err()?))
    });
    let links = bootstrap.feedback.links.iter();
    let of_links = links
        .filter(|links| !links.certificates.is_empty())
        .filter_map(|links| {
            let read = runtime::tls_server_config(&links.certificates);
            Some(format!("feedback.links: {}", read.err()?))
        });
    of_listeners.chain(of_admin).chain(of_links).collect()
}

/// Files that resources refer to and that are not on this machine. They need not be where the
/// documents are checked, only where signer and ingress run: said, not refused.
fn missing_files(snapshot: &Snapshot) -> Vec<String> {
    let keys = snapshot.sending_domains().flat_map(|domain| {
        domain.dkim.iter().map(move |key| {
            (
                format!("SendingDomain/{} key {}", domain.domain, key.selector),
                key.key.clone(),
            )
        })
    });
    let hashes = snapshot.credentials().filter_map(|credential| {
        let login = credential.login.as_ref()?;
        match &login.password_hash {
            config::PasswordHash::File(path) => Some((
                format!("Credential/{} passwordHash", credential.name),
                path.clone(),
            )),
            config::PasswordHash::Phc(_) => None,
        }
    });
    keys.chain(hashes)
        .filter(|(_, path)| !path.is_file())
        .map(|(what, path)| format!("{what}: there is no file {}", path.display()))
        .collect()
}
