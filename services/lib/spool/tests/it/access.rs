//! A nats-server that wants to see who comes, and shows who it is.

use std::path::{Path, PathBuf};

use kit::NatsServer;
use spool::{Access, Durability, Error, InitOptions, Options, Stores};

use crate::server::VOLUME;

/// Writes a certificate for 127.0.0.1 and its key.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let names = ["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (
        folder.join(format!("{name}.pem")),
        folder.join(format!("{name}.key")),
    );
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

async fn start(folder: &Path, more: &str) -> NatsServer {
    NatsServer::start_with(folder, "always", more)
        .await
        .unwrap()
}

fn options(server: &NatsServer, access: Access) -> Options {
    Options {
        url: server.url(),
        access,
        monitor: Some(server.monitor_url()),
        name: "access".to_owned(),
        durability: Durability::Strict,
    }
}

async fn is_usable(options: &Options) {
    let stores = Stores::connect(options).await.unwrap();
    let init = InitOptions {
        partitions: 1,
        replicas: 1,
        volume_bytes: VOLUME,
        transcripts: spool::TranscriptBounds::USUAL,
    };
    stores.init(&init).await.unwrap();
    stores.open().await.unwrap();
}

#[tokio::test]
async fn a_name_and_a_password_of_any_characters_are_shown_to_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let more = "authorization { user: staffetta, password: \"p/@:%20\" }\n";
    let server = start(folder.path(), more).await;
    let refused = Stores::connect(&options(&server, Access::default())).await;
    assert!(matches!(refused, Err(Error::Unreachable { .. })));
    let access = Access {
        login: Some(("staffetta".to_owned(), "p/@:%20".to_owned())),
        ..Access::default()
    };
    assert!(!format!("{access:?}").contains("p/@"));
    is_usable(&options(&server, access)).await;
}

#[tokio::test]
async fn both_sides_show_certificates_that_the_other_side_trusts() {
    // Nothing else in this process says which provider is to be used.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let (certificate_file, key) = certificate(folder.path(), "server");
    let ours = certificate(folder.path(), "client");
    let more = format!(
        "tls {{ cert_file: {certificate_file:?}, key_file: {key:?}, ca_file: {:?}, verify: true }}\n",
        ours.0
    );
    let server = start(folder.path(), &more).await;
    let tls = |access: Access| Options {
        url: server.url().replace("nats://", "tls://"),
        ..options(&server, access)
    };
    let trusting = Access {
        authorities: Some(certificate_file),
        ..Access::default()
    };
    let unknown = Stores::connect(&tls(trusting.clone())).await;
    assert!(unknown.is_err(), "it wants our certificate");
    let mistrusting = Access {
        authorities: Some(ours.0.clone()),
        certificate: Some(ours.clone()),
        ..Access::default()
    };
    assert!(Stores::connect(&tls(mistrusting)).await.is_err());
    let access = Access {
        certificate: Some(ours),
        ..trusting
    };
    is_usable(&tls(access)).await;
}

#[tokio::test]
async fn a_credentials_file_that_is_no_good_is_named_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("staffetta.creds");
    let connect = || async {
        let access = Access {
            credentials: Some(path.clone()),
            ..Access::default()
        };
        let options = Options {
            url: "nats://127.0.0.1:1".to_owned(),
            access,
            ..Options::default()
        };
        Stores::connect(&options).await.unwrap_err()
    };
    let missing = connect().await;
    assert!(missing.to_string().contains("staffetta.creds"), "{missing}");
    assert!(!missing.may_pass());
    std::fs::write(&path, "no credentials").unwrap();
    assert!(matches!(connect().await, Error::Access { .. }));
}
