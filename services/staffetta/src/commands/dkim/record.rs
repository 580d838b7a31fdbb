//! `staffetta dkim record`, and how keys are shown.

use std::path::{Path, PathBuf};

use anyhow::Context;
use mail::Domain;
use serde_json::{Value, json};

use crate::output::{self, OutputFormat};

/// Octets of one string of a TXT record (RFC 1035 section 3.3).
const LONGEST_STRING: usize = 255;
/// No key file is larger.
const MAX_KEY_BYTES: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    name: Name,
    /// PEM file with the private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// Where the public key stands.
#[derive(Debug, clap::Args)]
pub(super) struct Name {
    /// Domain that is signed for
    #[arg(long)]
    domain: String,
    /// Selector: the record stands at `<selector>._domainkey.<domain>`
    #[arg(long)]
    selector: String,
}

impl Name {
    /// The domain and the selector.
    pub(super) fn parsed(&self) -> anyhow::Result<(Domain, Domain)> {
        let domain =
            Domain::parse(&self.domain).with_context(|| format!("--domain {}", self.domain))?;
        let selector = Domain::parse(&self.selector)
            .with_context(|| format!("--selector {}", self.selector))?;
        Ok((domain, selector))
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (domain, selector) = arguments.name.parsed()?;
    let key = read(&arguments.key)?;
    Record::of(&domain, &selector, &key, &arguments.key).print(arguments.output)
}

/// A key that the signer would take.
fn read(path: &Path) -> anyhow::Result<dkim::Key> {
    let shown = || path.display().to_string();
    let length = std::fs::metadata(path).with_context(shown)?.len();
    anyhow::ensure!(
        length <= MAX_KEY_BYTES,
        "{}: {length} bytes are too many for a key",
        path.display()
    );
    let pem = std::fs::read(path).with_context(shown)?;
    dkim::Key::from_pem(&pem).with_context(shown)
}

/// What is shown of a key.
pub(super) struct Record {
    domain: Domain,
    selector: Domain,
    algorithm: &'static str,
    bits: usize,
    file: PathBuf,
    text: String,
}

impl Record {
    pub(super) fn of(domain: &Domain, selector: &Domain, key: &dkim::Key, file: &Path) -> Self {
        Self {
            domain: domain.clone(),
            selector: selector.clone(),
            algorithm: key.algorithm().as_str(),
            bits: key.bits(),
            file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            text: key.dns_record(),
        }
    }

    pub(super) fn print(&self, format: OutputFormat) -> anyhow::Result<()> {
        output::print(&match format {
            OutputFormat::Text => self.described(),
            OutputFormat::Json => format!("{}\n", self.json()),
        })
    }

    fn described(&self) -> String {
        let Self {
            domain,
            selector,
            algorithm,
            ..
        } = self;
        let key = self.file.display();
        format!(
            "The private key is in {key}.\n\n\
             DNS:\n{}\n\n\
             SendingDomain/{domain}:\n  \
             dkim:\n    - {{ selector: {selector}, algorithm: {algorithm}, key: \"file:{key}\" }}\n",
            zone_line(selector.as_str(), domain.as_str(), &self.text),
        )
    }

    fn json(&self) -> Value {
        let key = format!("file:{}", self.file.display());
        json!({
            "domain": self.domain.as_str(),
            "selector": self.selector.as_str(),
            "algorithm": self.algorithm,
            "bits": self.bits,
            "file": self.file.display().to_string(),
            "record": {
                "name": format!("{}._domainkey.{}", self.selector, self.domain),
                "type": "TXT",
                "value": self.text,
                "strings": strings(&self.text).collect::<Vec<_>>(),
            },
            "dkim": { "selector": self.selector.as_str(), "algorithm": self.algorithm, "key": key },
        })
    }
}

/// A line of a zone file.
pub(crate) fn zone_line(selector: &str, domain: &str, record: &str) -> String {
    let text = zone_text(record);
    format!("{selector}._domainkey.{domain}. IN TXT {text}")
}

/// A text as it stands in a zone file.
pub(crate) fn zone_text(text: &str) -> String {
    let quoted = |string: &str| {
        let escaped = string.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    };
    let strings: Vec<String> = strings(text).map(quoted).collect();
    format!("( {} )", strings.join(" "))
}

/// The strings of a TXT record.
fn strings(record: &str) -> impl Iterator<Item = &str> {
    let mut rest = record;
    std::iter::from_fn(move || {
        let (string, after) = rest.split_at(rest.floor_char_boundary(LONGEST_STRING));
        rest = after;
        (!string.is_empty()).then_some(string)
    })
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

    fn name(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn a_program_finds_the_record_in_one_piece_and_in_strings() {
        let key = dkim::Key::from_pem(dkim::generate_rsa2048().as_bytes()).unwrap();
        let path = Path::new("/keys/s1.pem");
        let json = Record::of(&name("Acme.example"), &name("S1"), &key, path).json();
        assert_eq!(json["bits"], 2048);
        assert_eq!(json["record"]["name"], "s1._domainkey.acme.example");
        assert_eq!(json["record"]["value"], key.dns_record());
        let strings = json["record"]["strings"].as_array().unwrap();
        assert_eq!(strings.len(), 2);
        let joined: String = strings.iter().filter_map(Value::as_str).collect();
        assert_eq!(joined, key.dns_record());
        assert_eq!(json["dkim"]["key"], "file:/keys/s1.pem");
    }

    #[test]
    fn keys_that_the_signer_would_not_take_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.pem");
        let weak = include_bytes!("../../../../lib/dkim/testdata/rsa1024-pkcs8.pem");
        for (content, reason) in [
            (&weak[..], "has 1024 bits, and at least 2048 are required"),
            (b"junk", "not a PEM private key"),
            (&[b' '; 70_000], "too many for a key"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(
                error.contains("k.pem: ") && error.contains(reason),
                "{error}"
            );
        }
        std::fs::write(&path, dkim::generate_ed25519()).unwrap();
        assert_eq!(read(&path).unwrap().bits(), 256);
    }
}
