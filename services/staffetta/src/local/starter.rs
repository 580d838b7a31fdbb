//! The first configuration of local mode.

use super::DataFolder;

/// Documents with which a program on this machine, and none elsewhere, can send as `domain`.
pub(crate) fn documents(folder: &DataFolder, domain: &str) -> String {
    let rsa = folder.dkim_key("s1", domain);
    let ed25519 = folder.dkim_key("e1", domain);
    format!(
        r#"# Made by `staffetta up`: a first configuration. Change it and run `staffetta apply -f` on it, or start again.
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: local }}
spec:
  defaultStream: transactional
  streams:
    - {{ name: transactional, inDoubt: retry }}
    - {{ name: bulk, inDoubt: hold }}
---
# Programs on this machine send without a password; nobody else can send.
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: this-machine }}
spec: {{ tenant: local, networks: ["127.0.0.0/8", "::1/128"] }}
---
# Put a domain of yours here, and the records in {dns} into its DNS.
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: {domain} }}
spec:
  tenant: local
  includeSubdomains: true
  dkim:
    - {{ selector: s1, algorithm: rsa-sha256, key: "file:{rsa}" }}
    - {{ selector: e1, algorithm: ed25519-sha256, key: "file:{ed25519}" }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: default }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: {{ name: default }}
spec: {{ pool: default, port: 25, retry: {{ initial: 5m, factor: 2, max: 4h, jitter: 10 }}, maxAge: 5d }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: {{ name: default }}
spec: {{ rules: [ {{ connections: 5, messagesPerConnection: 100, rate: 10/s, tls: opportunistic }} ] }}
"#,
        dns = folder.path().join("dkim").display(),
        rsa = rsa.display(),
        ed25519 = ed25519.display(),
    )
}

#[cfg(test)]
mod tests {
    use config::Snapshot;

    use super::super::Ports;
    use super::*;

    #[test]
    fn it_is_valid_and_lets_only_this_machine_send() {
        let place = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(place.path(), "example.test", Ports::free).unwrap();
        let snapshot = Snapshot::from_documents(&documents(&folder, "example.test")).unwrap();
        assert!(
            snapshot
                .credential_for_network("127.0.0.1".parse().unwrap())
                .is_some()
        );
        assert!(
            snapshot
                .credential_for_network("192.0.2.1".parse().unwrap())
                .is_none()
        );
        assert!(
            snapshot
                .route("local", "transactional", "anywhere.example")
                .is_some()
        );
        let domain = snapshot.sending_domain("mail.example.test").unwrap();
        assert!(domain.dkim.iter().all(|key| key.key.is_file()));
    }
}
