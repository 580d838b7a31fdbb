//! A tenant whose messages are shown to scanners: each of its streams to another.

use std::net::SocketAddr;

use anyhow::Result;
use kit::ScriptedScanner;
use tokio::net::TcpSocket;

/// Its scanners, as long as they are needed.
pub struct Scanners {
    scanner: ScriptedScanner,
    /// Bound, and nobody listens: a place where no other test's server can come to be.
    nobody: TcpSocket,
}

impl Scanners {
    pub async fn start() -> Result<Self> {
        let scanner = ScriptedScanner::start().await?;
        let nobody = TcpSocket::new_v4()?;
        nobody.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(Self { scanner, nobody })
    }

    /// The documents, to be added to the others; `HASH` as there.
    pub fn documents(&self) -> Result<String> {
        let (there, gone) = (self.scanner.address(), self.nobody.local_addr()?);
        let clamav = |address| format!("clamav: {{ address: \"{address}\" }}");
        let rspamd = |spam| format!("rspamd: {{ address: \"{there}\", spam: {spam} }}");
        let scanners = [
            ("viruses", clamav(there)),
            ("impatient", format!("{}, deadline: 1s", clamav(there))),
            ("credulous", format!("{}, whenDown: accept", clamav(there))),
            ("gone", clamav(gone)),
            ("gone-open", format!("{}, whenDown: accept", clamav(gone))),
            ("small", format!("{}, maxSize: 64KiB", clamav(there))),
            (
                "small-open",
                format!("{}, maxSize: 64KiB, whenTooLarge: accept", clamav(there)),
            ),
            (
                "small-head",
                format!("{}, maxSize: 64KiB, whenTooLarge: scanHead", clamav(there)),
            ),
            ("spam", rspamd("mark")),
            ("spam-held", rspamd("hold")),
            ("spam-refused", rspamd("reject")),
        ];
        let document = |kind: &str, name: &str, spec: &str| {
            format!(
                "---\napiVersion: staffetta.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n"
            )
        };
        let mut documents = String::new();
        let mut streams = vec!["{ name: both, scanners: [ spam, viruses ] }".to_owned()];
        for (name, spec) in scanners {
            documents += &document("Scanner", name, &spec);
            streams.push(format!("{{ name: {name}, scanners: [ {name} ] }}"));
        }
        let streams = streams.join(", ");
        let tenant = format!("defaultStream: viruses, streams: [ {streams} ]");
        documents += &document("Tenant", "scanned", &tenant);
        let login = "tenant: scanned, username: app@scanned.example, passwordHash: \"HASH\"";
        documents += &document("Credential", "scanned-app", login);
        let domain = "tenant: scanned, unsigned: true";
        Ok(documents + &document("SendingDomain", "scanned.example", domain))
    }
}
