//! The installation that dialogues are played on, as files and documents.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use bytes::Bytes;
use config::Snapshot;
use kit::{NatsServer, RedisServer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use spool::Stores;

use super::client::Identity;

/// `staffetta.yaml` of the stage.
pub fn bootstrap(nats: &NatsServer, redis: &RedisServer) -> String {
    let listener = |name: &str, tls: &str, more: &str| {
        format!(
            "    - {{ name: {name}, kind: submission, address: \"127.0.0.1:0\", tls: {tls}, maxMessageSize: 1MiB{more} }}\n"
        )
    };
    let files = ", clientAuthorities: clients.pem, certificate: relay.example.com.pem, key: relay.example.com.key, \
                 certificates: [ { certificate: mail.acme.example.pem, key: mail.acme.example.key } ]";
    let listeners = [
        listener("starttls", "starttls", files),
        listener("implicit", "implicit", files),
        listener(
            "plain",
            "none",
            ", allowPlaintextAuthFrom: [\"127.0.0.0/8\"], scram: true",
        ),
        listener("slow", "none", ", commandTimeout: 4s, dataTimeout: 4s"),
        listener("single", "none", ", maxConnections: 1"),
        listener("few", "none", ", maxConnectionsPerClient: 2"),
        listener(
            "xclient",
            "none",
            ", maxConnectionsPerClient: 2, xclient: { trusted: [\"127.0.0.3/32\"] }",
        ),
    ];
    format!(
        "hostname: relay.example.com\nnats: {{ url: \"{}\", monitor: \"{}\" }}\nredis: {{ url: \"{}\" }}\n\
         ingress:\n  failedLogins: 4/10m\n  forwarding: {{ srsSecrets: srs.secrets }}\n  listeners:\n{}",
        nats.url(),
        nats.monitor_url(),
        redis.url(),
        listeners.concat()
    )
}

/// Its resource documents; `HASH` stands for that of `correct horse`, `FOLDER` for the folder of its files.
const DOCUMENTS: &str = "apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec:
  mayForward: true
  defaultStream: transactional
  streams:
    - { name: transactional }
    - name: bulk
      headers:
        feedbackId: staffetta
        listUnsubscribe: [ \"https://u.acme.example/{campaign}?r={recipient}\", \"mailto:leave@acme.example\" ]
        cfblAddress: fbl@acme.example
    - { name: trial, mode: sandbox, expiresAfter: 1d }
---
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: other }
spec:
  defaultStream: bulk
  streams: [ { name: bulk }, { name: letters } ]
  repair: { date: false, messageId: false, longLines: reject }
  preflight:
    warnHeader: true
    rejectAt: 5
    checks:
      - { rule: malformedHeader, action: reject }
      - { rule: noSubject, weight: 2 }
      - { rule: noRecipientField, weight: 3 }
      - { rule: noUnsubscribe, weight: 2, streams: [ bulk ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: careful }
spec:
  defaultStream: bulk
  streams: [ { name: bulk }, { name: strict } ]
  repair: { date: false, messageId: false }
  preflight:
    warnHeader: true
    rejectAt: 8
    checks:
      - { rule: noSubject, weight: 3 }
      - { rule: unalignedFrom, weight: 1 }
      - { rule: manyLinks, most: 2, weight: 2 }
      - { rule: spamWords, words: [ Casino, \"free money\", \"Grüße\" ], weight: 4 }
      - { rule: spamWords, words: [ lottery ], action: reject }
      - { rule: genericText, weight: 2 }
      - { rule: tooLittleText, least: 20 }
      - { rule: brokenMime, weight: 5 }
      - { rule: brokenMime, action: reject, streams: [ strict ] }
      - { rule: noUnsubscribe, action: ignore, weight: 8 }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: careful-app }
spec: { tenant: careful, username: app@careful.example, passwordHash: \"HASH\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: careful.example }
spec: { tenant: careful, unsigned: true, includeSubdomains: true }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: careful.org }
spec: { tenant: careful, unsigned: true }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: other-app }
spec: { tenant: other, username: app@other.example, passwordHash: \"HASH\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-app }
spec: { tenant: acme, username: app@acme.example, passwordHash: \"HASH\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-leaver }
spec: { tenant: acme, username: leaver@acme.example, passwordHash: \"HASH\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-limited }
spec:
  tenant: acme
  username: limited@acme.example
  passwordHash: \"HASH\"
  limits: { maxRecipients: 3, sizes: [ { above: 0, size: 64KiB }, { above: 1, size: 1KiB } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-certified }
spec: { tenant: acme, certificates: [ app.acme.example ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: TokenIssuer
metadata: { name: login }
spec: { issuer: \"https://login.example\", audiences: [ relay.example.com ], scope: smtp.send, jwksFile: \"file:FOLDER/keys.json\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: TokenIssuer
metadata: { name: away }
spec: { issuer: \"https://away.example\", audiences: [ relay.example.com ], jwksFile: \"file:FOLDER/none.json\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-token }
spec: { tenant: acme, username: token@acme.example, passwordHash: \"HASH\", tokens: [ { issuer: login, subject: app-1 } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-again }
spec: { tenant: acme, username: again@acme.example, passwordHash: \"HASH\", idempotentFor: 1h }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-held }
spec: { tenant: acme, username: held@acme.example, passwordHash: \"HASH\", mode: hold }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-stolen }
spec: { tenant: acme, username: stolen@acme.example, passwordHash: \"HASH\", certificates: [ stolen.acme.example ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-sandbox }
spec: { tenant: acme, username: sandbox@acme.example, passwordHash: \"HASH\", mode: sandbox }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-guessed }
spec: { tenant: acme, username: guessed@acme.example, passwordHash: \"HASH\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-deferred }
spec: { tenant: acme, username: deferred@acme.example, passwordHash: \"HASH\", limits: { quotas: [ 5/h ], overQuota: defer } }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-queued }
spec: { tenant: acme, username: queued@acme.example, passwordHash: \"HASH\", limits: { quotas: [ 2/h ], queueUpTo: 90m } }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-rejected }
spec: { tenant: acme, username: rejected@acme.example, passwordHash: \"HASH\", limits: { quotas: [ 2/h ], overQuota: reject } }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-monthly }
spec: { tenant: acme, username: monthly@acme.example, passwordHash: \"HASH\", limits: { monthly: 2 } }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-from-one-network }
spec: { tenant: acme, username: from-one-network@acme.example, passwordHash: \"HASH\", limits: { networkQuotas: [ 1/h ], overQuota: defer } }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-forwarder }
spec:
  tenant: acme
  username: forwarder@acme.example
  passwordHash: \"HASH\"
  foreignSenders: { domain: acme.example }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-keeper }
spec:
  tenant: acme
  username: keeper@acme.example
  passwordHash: \"HASH\"
  foreignSenders: { domain: acme.example, returnPath: keep }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-short-of-room }
spec:
  tenant: acme
  username: short-of-room@acme.example
  passwordHash: \"HASH\"
  foreignSenders: { domain: acme.example, longReturnPath: empty }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-bouncer }
spec: { tenant: acme, username: bouncer@acme.example, passwordHash: \"HASH\", limits: { quotas: [ 2/h ], overQuota: reject } }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-network }
spec: { tenant: acme, stream: bulk, networks: [ \"127.0.0.2/32\" ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: news.acme.example }
spec: { tenant: acme, unsigned: true, stream: bulk }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: other.example }
spec: { tenant: other, unsigned: true }
";

/// All of them.
pub fn documents(folder: &Path) -> String {
    completed(DOCUMENTS, folder)
}

/// With the folder, and the hash of `correct horse`, made with parameters that cost nothing.
pub fn completed(documents: &str, folder: &Path) -> String {
    let parameters = argon2::Params::new(64, 1, 1, None).expect("the parameters are in range");
    let argon2 = Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        parameters,
    );
    let hash = argon2
        .hash_password(b"correct horse")
        .expect("a short password can be hashed");
    documents
        .replace("HASH", &hash.to_string())
        .replace("FOLDER", &folder.display().to_string())
}

/// Stores the documents as `staffetta apply` does.
pub async fn apply(stores: &Stores, documents: &str, prune: bool) -> Result<()> {
    let store = stores.config();
    let (version, before) = match store.load().await? {
        Some(stored) => (
            stored.version,
            Snapshot::from_json(&stored.body)
                .map_err(|problems| anyhow::anyhow!("{problems:?}"))?,
        ),
        None => (0, Snapshot::default()),
    };
    let (snapshot, _) = before
        .merge(documents, prune)
        .map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    store
        .put(Bytes::from(snapshot.to_json()), snapshot.hash(), version)
        .await?;
    Ok(())
}

/// Names of the certificates of listeners with TLS; the first is shown to clients that ask for none of them.
const NAMES: [&str; 2] = ["relay.example.com", "mail.acme.example"];

/// Writes certificates and their keys into the folder.
pub fn write_certificates(folder: &Path) -> Result<HashMap<&'static str, CertificateDer<'static>>> {
    let mut certificates = HashMap::new();
    for name in NAMES {
        let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
        std::fs::write(folder.join(format!("{name}.pem")), made.cert.pem())?;
        let key = made.signing_key.serialize_pem();
        std::fs::write(folder.join(format!("{name}.key")), key)?;
        certificates.insert(name, made.cert.der().clone());
    }
    Ok(certificates)
}

/// Writes the secrets of SRS into the folder.
pub fn write_srs_secrets(folder: &Path) -> Result<()> {
    let secrets = "a newer secret of the dialogues\nthe secret of the dialogues\n";
    Ok(std::fs::write(folder.join("srs.secrets"), secrets)?)
}

/// Signs the certificates of clients.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    /// Makes it, and writes its certificate into the folder.
    pub fn make(folder: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        std::fs::write(folder.join("clients.pem"), params.self_signed(&key)?.pem())?;
        Ok(Self { params, key })
    }

    /// A certificate for a client of this name.
    pub fn certify(&self, name: &str) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_params(&self.params, &self.key);
        let made = CertificateParams::new([name.to_owned()])?.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der());
        let key = key.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok((made.der().clone(), key))
    }
}

/// Without the credential of this name.
pub fn documents_without(credential: &str, folder: &Path) -> String {
    let name = format!("name: {credential} ");
    let kept: Vec<&str> = DOCUMENTS
        .split("---\n")
        .filter(|document| !document.contains(&name))
        .collect();
    completed(&kept.join("---\n"), folder)
}
