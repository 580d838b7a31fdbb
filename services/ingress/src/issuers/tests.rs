use std::net::SocketAddr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearer::{Refusal, Token};
use kit::WebServer;
use serde_json::{Value, json};

use super::*;

const NEVER: Duration = Duration::from_secs(3600);

fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// A key of an issuer, by its name.
struct Key(&'static str, Ed25519KeyPair);

impl Key {
    fn new(id: &'static str) -> Self {
        Self(id, Ed25519KeyPair::generate().unwrap())
    }

    fn jwk(&self) -> Value {
        let x = encode(self.1.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.0, "x": x })
    }

    fn token(&self) -> String {
        let header = json!({ "alg": "EdDSA", "kid": self.0 });
        let claims =
            json!({ "iss": "corp", "aud": "relay", "sub": "app", "exp": 4_102_444_800_u64 });
        let signed = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        format!("{signed}.{}", encode(self.1.sign(signed.as_bytes())))
    }
}

fn set(keys: &[&Key]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// A server for keys, the document of the issuer that has them there, and who fetches them.
struct Scene {
    server: WebServer,
    issuer: Arc<TokenIssuer>,
    issuers: Issuers,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn set(pause: Duration) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = WebServer::start(address, &["127.0.0.1"]).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let authority = server.write_authority(folder.path()).unwrap();
        let keys = format!(
            "jwksUrl: \"{}\", authorities: \"file:{}\"",
            server.url("/keys"),
            authority.display()
        );
        let metrics = Arc::new(Metrics::new());
        Self {
            issuer: issuer(&keys),
            server,
            issuers: Issuers::new(&metrics, Shutdown::new(), pause),
            _folder: folder,
        }
    }

    /// What becomes of a token of the key.
    async fn judge(&self, key: &Key) -> Option<Result<(), Refusal>> {
        let text = key.token();
        let token = Token::read(&text).unwrap();
        let verify = |keys: Arc<KeySet>| token.verify(&self.issuer, &keys, 0).map(drop);
        match verify(self.issuers.keys(&self.issuer).await?) {
            Err(Refusal::UnknownKey) => Some(verify(self.issuers.newer_keys(&self.issuer).await?)),
            verified => Some(verified),
        }
    }
}

fn issuer(keys: &str) -> Arc<TokenIssuer> {
    let text = format!(
        "apiVersion: staffetta.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {{ name: corp }}\n\
         spec: {{ issuer: corp, audiences: [ relay ], {keys} }}"
    );
    let snapshot = Snapshot::from_documents(&text).unwrap();
    let issuer = snapshot.token_issuers().next().unwrap();
    Arc::clone(issuer)
}

#[tokio::test]
async fn a_key_that_is_new_is_fetched_when_its_first_token_comes() {
    let scene = Scene::set(Duration::ZERO).await;
    let (old, new) = (Key::new("old"), Key::new("new"));
    scene.server.show("/keys", "", &set(&[&old]));
    assert_eq!(scene.judge(&old).await, Some(Ok(())));
    assert_eq!(scene.judge(&old).await, Some(Ok(())));
    assert_eq!(scene.server.requests().len(), 1);
    assert_eq!(scene.judge(&new).await, Some(Err(Refusal::UnknownKey)));
    scene.server.show("/keys", "", &set(&[&new]));
    assert_eq!(scene.judge(&new).await, Some(Ok(())));
    assert_eq!(scene.judge(&old).await, Some(Err(Refusal::UnknownKey)));
}

#[tokio::test]
async fn tokens_of_unknown_keys_do_not_make_it_ask_all_the_time() {
    let scene = Scene::set(NEVER).await;
    let (key, unknown) = (Key::new("key"), Key::new("unknown"));
    scene.server.show("/keys", "", &set(&[&key]));
    for _ in 0..5 {
        assert_eq!(scene.judge(&unknown).await, Some(Err(Refusal::UnknownKey)));
    }
    assert_eq!(scene.judge(&key).await, Some(Ok(())));
    assert_eq!(scene.server.requests().len(), 1);
}

#[tokio::test]
async fn many_who_wait_for_keys_wait_for_one_fetch() {
    let scene = Scene::set(NEVER).await;
    let key = Key::new("key");
    scene.server.show("/keys", "", &set(&[&key]));
    let judge = || scene.judge(&key);
    let all = tokio::join!(judge(), judge(), judge(), judge());
    let fine = Some(Ok(()));
    assert_eq!(all, (fine, fine, fine, fine));
    assert_eq!(scene.server.requests().len(), 1);
}

#[tokio::test]
async fn without_a_server_the_last_keys_hold_and_nobody_can_say_anything_of_others() {
    let scene = Scene::set(Duration::ZERO).await;
    let (key, unknown) = (Key::new("key"), Key::new("unknown"));
    scene.server.set_away(true);
    assert_eq!(scene.judge(&key).await, None);
    scene.server.set_away(false);
    scene.server.show("/keys", "", &set(&[&key]));
    assert_eq!(scene.judge(&key).await, Some(Ok(())));
    scene.server.set_away(true);
    assert_eq!(scene.judge(&key).await, Some(Ok(())));
    assert_eq!(scene.judge(&unknown).await, None);
    scene.server.set_away(false);
    // What is no key set changes nothing.
    for nonsense in ["<html>", "{}", ""] {
        scene.server.show("/keys", "", nonsense);
        assert_eq!(scene.judge(&unknown).await, None, "{nonsense}");
        assert_eq!(scene.judge(&key).await, Some(Ok(())), "{nonsense}");
    }
    scene
        .server
        .answer("/keys", b"HTTP/1.1 304 Not Modified\r\n\r\n");
    assert_eq!(scene.judge(&unknown).await, Some(Err(Refusal::UnknownKey)));
    // An empty one does.
    scene.server.show("/keys", "", &set(&[]));
    assert_eq!(scene.judge(&unknown).await, None);
    assert_eq!(scene.judge(&key).await, None);
}

#[tokio::test]
async fn keys_come_from_files_too_and_from_elsewhere_when_the_document_says_so() {
    let mut scene = Scene::set(Duration::ZERO).await;
    let (there, here) = (Key::new("there"), Key::new("here"));
    scene.server.show("/keys", "", &set(&[&there]));
    assert_eq!(scene.judge(&there).await, Some(Ok(())));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    scene.issuer = issuer(&format!("jwksFile: \"file:{}\"", file.display()));
    assert_eq!(scene.judge(&there).await, None);
    std::fs::write(&file, set(&[&here])).unwrap();
    assert_eq!(scene.judge(&here).await, Some(Ok(())));
    assert_eq!(scene.judge(&there).await, Some(Err(Refusal::UnknownKey)));
    std::fs::write(&file, " ".repeat(LONGEST + 1)).unwrap();
    assert_eq!(scene.judge(&there).await, None);
    assert_eq!(scene.judge(&here).await, Some(Ok(())));
}

#[tokio::test]
async fn keys_are_fetched_before_anybody_needs_them_and_not_after_their_issuer_is_gone() {
    let scene = Scene::set(NEVER).await;
    let key = Key::new("key");
    scene.server.show("/keys", "", &set(&[&key]));
    let document = format!(
        "apiVersion: staffetta.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {{ name: corp }}\n\
         spec: {{ issuer: corp, audiences: [ relay ], jwksUrl: \"{}\", authorities: \"file:{}\" }}",
        scene.server.url("/keys"),
        scene
            .server
            .write_authority(scene._folder.path())
            .unwrap()
            .display()
    );
    let snapshot = Arc::new(Snapshot::from_documents(&document).unwrap());
    let (send, snapshots) = watch::channel(Arc::<Snapshot>::default());
    let shutdown = Shutdown::new();
    let issuers = Issuers::follow(snapshots, &Arc::new(Metrics::new()), shutdown.clone());
    send.send(snapshot).unwrap();
    kit::until("keys", Duration::from_secs(60), || async {
        (scene.server.requests().len() == 1).then_some(())
    })
    .await
    .unwrap();
    let of_it = Arc::downgrade(issuers.lock().get("corp").unwrap());
    send.send(Arc::default()).unwrap();
    kit::until("the end of the issuer", Duration::from_secs(60), || async {
        of_it.upgrade().is_none().then_some(())
    })
    .await
    .unwrap();
    shutdown.request();
}
