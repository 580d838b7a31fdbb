use kit::WebServer;

use super::*;

/// Far more than anything here needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server whose certificate is for its address and for `keys.example`, and a client that trusts it.
async fn server() -> (WebServer, HttpsClient) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = WebServer::start(address, &["127.0.0.1", "keys.example"])
        .await
        .unwrap();
    let client = trusting(&server);
    (server, client)
}

fn trusting(server: &WebServer) -> HttpsClient {
    let folder = tempfile::tempdir().unwrap();
    let authority = server.write_authority(folder.path()).unwrap();
    HttpsClient::trusting(Some(&authority)).unwrap()
}

fn url(text: &str) -> HttpsUrl {
    text.parse().unwrap()
}

fn get(url: &HttpsUrl) -> Get<'_> {
    Get {
        url,
        addresses: &[],
        etag: None,
        patience: PATIENCE,
        most: 100,
    }
}

#[tokio::test]
async fn fetches_a_document_and_says_how_long_it_holds() {
    let (server, client) = server().await;
    let url = url(&server.url("/keys?v=1"));
    server.show(
        "/keys?v=1",
        "ETag: \"1\"\r\nContent-Type: application/json\r\nCache-Control: public, max-age=600\r\n",
        "{}",
    );
    let fetched = client.get(get(&url)).await.unwrap();
    let expected = Fetched {
        document: Some(b"{}".to_vec()),
        content_type: Some("application/json".to_owned()),
        etag: Some("\"1\"".to_owned()),
        max_age: Some(Duration::from_secs(600)),
    };
    assert_eq!(fetched, expected);
    let request = server.requests().remove(0).to_ascii_lowercase();
    assert!(
        request.starts_with("get /keys?v=1 http/1.1\r\n"),
        "{request}"
    );
    let host = format!("host: {}\r\n", server.address());
    assert!(request.contains(&host), "{request}");
    assert!(!request.contains("if-none-match"), "{request}");
}

#[tokio::test]
async fn asks_only_for_another_version_when_there_is_one_already() {
    let (server, client) = server().await;
    let url = url(&server.url("/keys"));
    server.answer("/keys", b"HTTP/1.1 304 Not Modified\r\n\r\n");
    let again = Get {
        etag: Some("\"1\""),
        ..get(&url)
    };
    assert_eq!(client.get(again).await.unwrap().document, None);
    let request = server.requests().remove(0).to_ascii_lowercase();
    assert!(request.contains("if-none-match: \"1\"\r\n"), "{request}");
}

#[tokio::test]
async fn takes_chunks_and_connections_that_stay_open() {
    let (server, client) = server().await;
    let url = url(&server.url("/keys"));
    server.set_lingering(true);
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    server.answer("/keys", chunked.as_bytes());
    let fetched = client.get(get(&url)).await.unwrap();
    assert_eq!(fetched.document.unwrap(), b"abcde");
}

#[tokio::test]
async fn connects_to_the_addresses_that_it_is_given() {
    let (server, client) = server().await;
    let url = url("https://keys.example/keys");
    server.show("/keys", "", "{}");
    // Bound and not listened on: nobody answers at the first.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addresses = [nobody.local_addr().unwrap(), server.address()];
    let given = Get {
        addresses: &addresses,
        ..get(&url)
    };
    assert!(client.get(given).await.unwrap().document.is_some());
    let none = Get {
        addresses: &addresses[..1],
        ..get(&url)
    };
    let error = client.get(none).await.unwrap_err();
    assert!(matches!(error, HttpsError::Connect { address, .. } if address == addresses[0]));
}

#[tokio::test]
async fn believes_only_certificates_of_its_authorities_for_the_host() {
    let (server, client) = server().await;
    let (_other, stranger) = self::server().await;
    let address = [server.address()];
    server.show("/keys", "", "{}");
    let (own, another) = (
        url("https://keys.example/keys"),
        url("https://other.example/keys"),
    );
    for (client, url) in [(&client, &another), (&stranger, &own)] {
        let get = Get {
            addresses: &address,
            ..get(url)
        };
        let error = client.get(get).await.unwrap_err();
        assert!(matches!(error, HttpsError::Tls(_)), "{error}");
    }
    assert!(server.requests().is_empty());
    // What the system trusts has nothing to do with it.
    let system = HttpsClient::trusting(None).unwrap();
    let get = Get {
        addresses: &address,
        ..get(&own)
    };
    assert!(matches!(system.get(get).await, Err(HttpsError::Tls(_))));
}

#[tokio::test]
async fn nothing_but_the_document_is_one() {
    let (server, client) = server().await;
    let url = url(&server.url("/keys"));
    let long = "x".repeat(101);
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n{long}");
    let endless = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n{long}\r\n");
    let header = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
        "x".repeat(4 * MOST_HEADER)
    );
    for (answer, expected) in [
        (
            "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
            "the server answers 302",
        ),
        (
            "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
            "the server answers 500",
        ),
        (&announced, "the document is longer than 100 octets"),
        (&endless, "the document is longer than 100 octets"),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
            "the server encodes the document as gzip",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "HTTP: "),
        (&header, "HTTP: "),
        ("220 mx.example ESMTP\r\n", "HTTP: "),
        ("", "HTTP: "),
    ] {
        server.answer("/keys", answer.as_bytes());
        let error = client.get(get(&url)).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_takes_its_time_is_given_up() {
    let (server, client) = server().await;
    let url = url(&server.url("/keys"));
    let hurried = Get {
        patience: Duration::from_millis(300),
        ..get(&url)
    };
    server.set_lingering(true);
    server.answer("/keys", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx");
    let error = client.get(hurried).await.unwrap_err();
    // On a busy machine the handshake may take that long.
    let late = matches!(
        error,
        HttpsError::Late(Stage::Reading | Stage::ShakingHands)
    );
    assert!(late, "{error}");
    // Its connections are taken by the kernel, and nobody shakes hands.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = [silent.local_addr().unwrap()];
    let hurried = Get {
        addresses: &address,
        ..hurried
    };
    let error = client.get(hurried).await.unwrap_err();
    assert!(
        matches!(error, HttpsError::Late(Stage::ShakingHands)),
        "{error}"
    );
}

#[test]
fn authorities_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let missing = HttpsClient::trusting(Some(&folder.path().join("none.pem")));
    let error = missing.unwrap_err().to_string();
    assert!(error.starts_with("authorities /"), "{error}");
}

#[test]
fn reads_how_long_a_document_holds() {
    for (value, expected) in [
        ("max-age=60", Some(60)),
        ("public, MAX-AGE=60, must-revalidate", Some(60)),
        ("max-age=\"60\"", Some(60)),
        ("max-age=60, max-age=30", Some(30)),
        ("no-cache, max-age=60", Some(0)),
        ("max-age=-1", None),
        ("max-age=99999999999999999999", None),
        ("private", None),
    ] {
        let mut fields = HeaderMap::new();
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
        assert_eq!(
            max_age(&fields),
            expected.map(Duration::from_secs),
            "{value}"
        );
    }
}

#[tokio::test]
async fn posts_over_one_connection_and_takes_redirections_for_answers() {
    let (server, _) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let authority = server.write_authority(folder.path()).unwrap();
    let client = WebClient::trusting(Some(&authority)).unwrap();
    let url: mail::WebUrl = server.url("/hook").parse().unwrap();
    server.answer(
        "/hook",
        b"HTTP/1.1 302 Found\r\nLocation: /other\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
    );
    let deadline = Instant::now() + PATIENCE;
    let mut connection = client.connect(&url, |_| true, deadline).await.unwrap();
    let post = Post {
        url: &url,
        fields: vec![("webhook-id", "evt_1".to_owned())],
        // The server takes its end for that of the request.
        body: Bytes::from_static(b"{}\r\n\r\n"),
        deadline,
    };
    let answer = connection.post(post).await.unwrap();
    assert_eq!(
        (answer.status, answer.retry_after),
        (302, Some(Duration::from_secs(7)))
    );
    let request = server.requests().remove(0).to_ascii_lowercase();
    assert!(request.starts_with("post /hook http/1.1\r\n"), "{request}");
    for field in [
        "webhook-id: evt_1",
        "content-length: 6",
        "content-type: application/json",
    ] {
        assert!(request.contains(field), "{request}");
    }
}

#[tokio::test]
async fn addresses_that_may_not_be_are_not_connected_to() {
    let (server, _) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let authority = server.write_authority(folder.path()).unwrap();
    let client = WebClient::trusting(Some(&authority)).unwrap();
    let url: mail::WebUrl = server.url("/hook").parse().unwrap();
    let refused = client
        .connect(
            &url,
            |address| !address.is_loopback(),
            Instant::now() + PATIENCE,
        )
        .await
        .unwrap_err();
    assert!(matches!(refused, HttpsError::Private(_)), "{refused}");
    // A certificate of nobody that is trusted.
    let stranger = WebClient::trusting(None);
    if let Ok(stranger) = stranger {
        let refused = stranger.connect(&url, |_| true, Instant::now() + PATIENCE);
        assert!(matches!(refused.await.unwrap_err(), HttpsError::Tls(_)));
    }
    assert!(server.requests().is_empty());
}
