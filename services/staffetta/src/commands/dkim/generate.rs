//! `staffetta dkim generate`.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use dkim::RsaBits;

use super::record::{Name, Record};
use crate::local;
use crate::output::OutputFormat;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    name: Name,
    /// Algorithm
    #[arg(long, value_enum, default_value = "rsa-sha256")]
    algorithm: Algorithm,
    /// Bits of an RSA key: 2048, 3072 or 4096 [default: 2048]
    #[arg(long, value_parser = parse_bits)]
    bits: Option<RsaBits>,
    /// File for the key, which must not exist [default: <selector>.<domain>.pem]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Algorithm {
    /// RSA
    RsaSha256,
    /// Ed25519 (RFC 8463), beside RSA: not all receivers know it
    Ed25519Sha256,
}

fn parse_bits(text: &str) -> Result<RsaBits, String> {
    match text {
        "2048" => Ok(RsaBits::B2048),
        "3072" => Ok(RsaBits::B3072),
        "4096" => Ok(RsaBits::B4096),
        _ => Err("2048, 3072 or 4096 is expected".to_owned()),
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (domain, selector) = arguments.name.parsed()?;
    ensure!(
        arguments.bits.is_none() || arguments.algorithm == Algorithm::RsaSha256,
        "--bits is for RSA: an Ed25519 key has one size"
    );
    let bits = arguments.bits.unwrap_or(RsaBits::B2048);
    let by_default = || PathBuf::from(format!("{selector}.{domain}.pem"));
    let path = arguments.out.clone().unwrap_or_else(by_default);
    let key = make(arguments.algorithm, bits, &path)?;
    Record::of(&domain, &selector, &key, &path).print(arguments.output)
}

/// Makes a key in a file of its own and gives the text of its DNS record.
pub(crate) fn generate(algorithm: Algorithm, path: &Path) -> anyhow::Result<String> {
    Ok(make(algorithm, RsaBits::B2048, path)?.dns_record())
}

fn make(algorithm: Algorithm, bits: RsaBits, path: &Path) -> anyhow::Result<dkim::Key> {
    let pem = match algorithm {
        Algorithm::RsaSha256 => dkim::generate_rsa(bits),
        Algorithm::Ed25519Sha256 => dkim::generate_ed25519(),
    };
    let key = dkim::Key::from_pem(pem.as_bytes()).context("a key just made can't be read")?;
    local::write_secret(path, &pem)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_for_its_owner_only_and_never_written_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s1.pem");
        let record = generate(Algorithm::Ed25519Sha256, &path).unwrap();
        assert!(record.starts_with("v=DKIM1; k=ed25519; p="), "{record}");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = std::fs::read(&path).unwrap();
        let again = generate(Algorithm::Ed25519Sha256, &path).unwrap_err();
        assert!(
            format!("{again:#}").contains("s1.pem: File exists"),
            "{again:#}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn rsa_keys_have_the_bits_that_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s1.pem");
        let bits = parse_bits("3072").unwrap();
        let key = make(Algorithm::RsaSha256, bits, &path).unwrap();
        assert_eq!(key.bits(), 3072);
        for wrong in ["1024", "2047", "8192", "many"] {
            assert!(parse_bits(wrong).is_err(), "{wrong}");
        }
    }
}
