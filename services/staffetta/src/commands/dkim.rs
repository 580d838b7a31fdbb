//! `staffetta dkim`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::{local, output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a private key, and show the DNS record and the lines of the SendingDomain for it
    Generate(Generate),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Generate {
    /// Domain that is signed for
    #[arg(long)]
    domain: String,
    /// Selector: the record stands at `<selector>._domainkey.<domain>`
    #[arg(long)]
    selector: String,
    /// Algorithm
    #[arg(long, value_enum, default_value = "rsa-sha256")]
    algorithm: Algorithm,
    /// File for the key, which must not exist [default: <selector>.<domain>.pem]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Algorithm {
    /// RSA, 2048 bits
    RsaSha256,
    /// Ed25519 (RFC 8463), beside RSA: not all receivers know it
    Ed25519Sha256,
}

impl Algorithm {
    /// As in a SendingDomain.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    let Command::Generate(arguments) = command;
    let domain = mail::Domain::parse(&arguments.domain)
        .with_context(|| format!("--domain {}", arguments.domain))?;
    mail::Domain::parse(&arguments.selector)
        .with_context(|| format!("--selector {}", arguments.selector))?;
    let selector = arguments.selector.to_ascii_lowercase();
    let path = arguments
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{selector}.{domain}.pem")));
    let record = generate(arguments.algorithm, &path)?;
    let path = std::path::absolute(&path).unwrap_or(path);
    let algorithm = arguments.algorithm.as_str();
    let key = path.display();
    output::print(&format!(
        "The private key is in {key}.\n\n\
         DNS:\n{}\n\n\
         SendingDomain/{domain}:\n  \
         dkim:\n    - {{ selector: {selector}, algorithm: {algorithm}, key: \"file:{key}\" }}\n",
        zone_line(&selector, domain.as_str(), &record),
    ))
}

/// Makes a key in a file of its own and gives the text of its DNS record.
pub(crate) fn generate(algorithm: Algorithm, path: &Path) -> anyhow::Result<String> {
    let pem = match algorithm {
        Algorithm::RsaSha256 => dkim::generate_rsa2048(),
        Algorithm::Ed25519Sha256 => dkim::generate_ed25519(),
    };
    let key = dkim::Key::from_pem(pem.as_bytes()).context("a key just made can't be read")?;
    local::write_secret(path, &pem)?;
    Ok(key.dns_record())
}

/// A line of a zone file; a TXT string holds at most 255 octets (RFC 1035 section 3.3).
pub(crate) fn zone_line(selector: &str, domain: &str, record: &str) -> String {
    let mut strings = Vec::new();
    let mut rest = record;
    while !rest.is_empty() {
        let (string, after) = rest.split_at(rest.len().min(255));
        strings.push(format!("\"{string}\""));
        rest = after;
    }
    format!(
        "{selector}._domainkey.{domain}. IN TXT ( {} )",
        strings.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_records_are_cut_into_strings() {
        let line = zone_line("s1", "a.example", &"x".repeat(300));
        let expected = format!(
            "s1._domainkey.a.example. IN TXT ( \"{}\" \"{}\" )",
            "x".repeat(255),
            "x".repeat(45)
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn a_key_is_never_written_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s1.pem");
        let record = generate(Algorithm::Ed25519Sha256, &path).unwrap();
        assert!(record.starts_with("v=DKIM1; k=ed25519; p="), "{record}");
        let again = generate(Algorithm::Ed25519Sha256, &path).unwrap_err();
        assert!(
            format!("{again:#}").contains("s1.pem: File exists"),
            "{again:#}"
        );
    }
}
