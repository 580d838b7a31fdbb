//! A redis-server that wants a password, speaks TLS, or both.

use std::time::Duration;

use limits::{Grants, Options, Role, Seen, Unavailable, servers};

use crate::server::{Server, connected};

fn login(name: &str, password: &str) -> Option<(String, String)> {
    Some((name.to_owned(), password.to_owned()))
}

async fn is_refused(options: Options) {
    let grants = Grants::connect(options).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!grants.is_connected());
}

/// Of the one server that there is.
async fn only(options: &Options) -> Result<Seen, Unavailable> {
    servers(options).await.unwrap().remove(0)
}

#[tokio::test]
async fn each_of_several_servers_says_what_it_is() {
    let mut master = Server::start().await;
    let replica = master.replica().await;
    let options = Options::new(format!("{},{}", master.url(), replica.url()));
    let roles = async || {
        let seen = servers(&options).await.unwrap().into_iter();
        seen.map(|seen| seen.ok().map(|seen| seen.role))
            .collect::<Vec<_>>()
    };
    let both = [Some(Role::Master), Some(Role::Replica)];
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    while roles().await != both {
        assert!(std::time::Instant::now() < deadline);
    }
    master.kill();
    while roles().await != [None, Some(Role::Replica)] {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_password_of_any_characters_and_a_user_of_the_access_list_are_shown() {
    let server = Server::start().await;
    let user = [
        "ACL",
        "SETUSER",
        "staffetta",
        "on",
        ">p/@:%20",
        "~staffetta*",
        "+@all",
    ];
    assert_eq!(server.command(&user).as_deref(), Some("OK"));
    let password = ["CONFIG", "SET", "requirepass", "q/@:%20"];
    assert_eq!(server.command(&password).as_deref(), Some("OK"));
    is_refused(Options::new(server.url())).await;
    let without = only(&Options::new(server.url())).await.unwrap_err();
    assert!(without.to_string().contains("NOAUTH"), "{without}");
    for login in [login("", "q/@:%20"), login("staffetta", "p/@:%20")] {
        let options = Options {
            login,
            ..Options::new(server.url())
        };
        assert!(!format!("{options:?}").contains("%20"));
        let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let here = u64::try_from(here.unwrap().as_millis()).unwrap();
        let seen = only(&options).await.unwrap();
        assert_eq!(seen.role, Role::Master);
        assert!(seen.clock_ms.abs_diff(here) < 60_000);
        connected(&Grants::connect(options).unwrap()).await;
    }
}

#[tokio::test]
async fn the_server_is_known_by_its_certificate() {
    // Nothing else in this process says which provider is to be used.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = kit::free_port([127, 0, 0, 1].into()).unwrap().to_string();
    let certificate = certificate.display().to_string();
    let key = key.display().to_string();
    let tls = [
        "CONFIG",
        "SET",
        "tls-cert-file",
        &certificate,
        "tls-key-file",
        &key,
        "tls-ca-cert-file",
        &certificate,
        "tls-auth-clients",
        "no",
        "tls-port",
        &port,
    ];
    assert_eq!(server.command(&tls).as_deref(), Some("OK"));
    let url = format!("rediss://127.0.0.1:{port}");
    let trusting = |authority: &str| Options {
        authorities: Some(authority.as_bytes().to_vec()),
        ..Options::new(&url)
    };
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    is_refused(trusting(&other.cert.pem())).await;
    connected(&Grants::connect(trusting(&made.cert.pem())).unwrap()).await;
}
