//! Sources behind proxies.

use proto::dispatch::sender_item::Kind;
use proto::dispatch::{Family, Proxy, ProxyProtocol, Reach, ReturnReason};
use smtp::{ProxyDecoded, ProxyHeader, decode_proxy_header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::host::Host;
use super::play::{Started, Stream, delivery, replies, simple};

struct Net {
    stream: Stream,
    attempt: u32,
    proxy: TcpListener,
    folder: tempfile::TempDir,
    _scheduler: super::play::Scheduler,
    _started: Started,
}

impl Net {
    async fn new() -> Self {
        let (started, scheduler, stream) = simple().await;
        Self {
            stream,
            attempt: 0,
            proxy: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
            _scheduler: scheduler,
            _started: started,
        }
    }

    /// A lane to a host on this port by the proxy.
    async fn lane(&self, port: u16, protocol: ProxyProtocol, change: impl FnOnce(&mut Proxy)) {
        let mut proxy = Proxy {
            protocol: protocol.into(),
            address: self.proxy.local_addr().unwrap().to_string(),
            ..Proxy::default()
        };
        change(&mut proxy);
        self.stream
            .lane(0, |lane| {
                if protocol == ProxyProtocol::Haproxy {
                    lane.source_address = "192.0.2.77".into();
                }
                lane.reach = Some(Reach {
                    port: port.into(),
                    proxy: Some(proxy),
                    family: Family::Ipv4.into(),
                    ..Reach::default()
                });
            })
            .await;
    }

    async fn assign(&mut self) -> proto::dispatch::DeliveryRef {
        self.attempt += 1;
        let mut delivery = delivery(2, &[0]);
        delivery.attempt = self.attempt;
        self.stream.assign_as(&delivery, 2, "dest.example").await;
        delivery
    }

    /// What comes of a delivery: stage, code and text of its report, or why it came back.
    async fn result(&mut self) -> Result<(&'static str, u32, String), String> {
        let report = match self.stream.next_of_delivery().await {
            Kind::Report(report) => report,
            Kind::Returned(returned) => {
                assert_eq!(returned.reason(), ReturnReason::Source);
                return Err(returned.detail);
            }
            Kind::Begin(begin) => {
                self.stream.permit(&begin.delivery.unwrap()).await;
                self.stream.report().await
            }
            other => panic!("{other:?}"),
        };
        let delivery = report.delivery.clone().unwrap();
        self.stream.stored(&delivery).await;
        let (_, stage, code, text) = replies(&report).remove(0);
        Ok((stage, code, text))
    }
}

/// The destination that the proxy is told.
async fn header_of(connection: &mut TcpStream) -> ProxyHeader {
    let mut octets = vec![0; 28];
    connection.read_exact(&mut octets).await.unwrap();
    match decode_proxy_header(&octets) {
        Ok(ProxyDecoded::Header(header, 28)) => header,
        other => panic!("{other:?}"),
    }
}

async fn hand_on(mut connection: TcpStream, port: u16) {
    let mut other = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    drop(tokio::io::copy_bidirectional(&mut connection, &mut other).await);
}

#[tokio::test]
async fn a_proxy_is_told_source_and_destination_and_what_it_fails_at_is_not_the_destination_s_fault()
 {
    let host = Host::start(&["hello\nmail\n<data\n> 250 taken"]).await;
    let port = host.port;
    let mut net = Net::new().await;
    net.lane(port, ProxyProtocol::Haproxy, |_| {}).await;
    net.assign().await;
    let (mut connection, _) = net.proxy.accept().await.unwrap();
    let expected = ProxyHeader::Client {
        source: "192.0.2.77:0".parse().unwrap(),
        destination: format!("127.0.0.1:{port}").parse().unwrap(),
    };
    assert_eq!(header_of(&mut connection).await, expected);
    tokio::spawn(hand_on(connection, port));
    assert_eq!(net.result().await.unwrap().0, "final_dot");
    host.done().await;

    // It closes: no connection came about, and nothing is known of why.
    net.lane(9, ProxyProtocol::Haproxy, |_| {}).await;
    net.assign().await;
    let (mut connection, _) = net.proxy.accept().await.unwrap();
    header_of(&mut connection).await;
    drop(connection);
    let (stage, code, _) = net.result().await.unwrap();
    assert_eq!((stage, code), ("connect", 0));

    // It is not there.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = bound.local_addr().unwrap().to_string();
    for protocol in [ProxyProtocol::Haproxy, ProxyProtocol::Socks5] {
        net.lane(port, protocol, |proxy| proxy.address = nobody.clone())
            .await;
        net.assign().await;
        let why = format!("the proxy {nobody}: no connection: connection refused");
        assert_eq!(net.result().await, Err(why));
    }
}

#[tokio::test]
async fn socks_is_spoken_with_a_password_from_a_file_and_its_words_about_hosts_are_told_from_its_own()
 {
    let host = Host::start(&["hello\nmail\n<data\n> 250 taken"]).await;
    let port = host.port;
    let mut net = Net::new().await;
    let file = net.folder.path().join("password");
    std::fs::write(&file, "geheim\n").unwrap();
    let login = |proxy: &mut Proxy| {
        proxy.username = "app".into();
        proxy.password_file = file.display().to_string();
    };
    let address = net.proxy.local_addr().unwrap();
    let of_proxy = |text: &str| Err(format!("the proxy {address}: {text}"));
    // The answer to the login, and to the request.
    for (in_, made, expected) in [
        (1, 0, of_proxy("it refuses user name and password")),
        (0, 7, of_proxy("it makes no connections")),
        (
            0,
            5,
            Ok((
                "connect",
                0,
                format!("no connection by the proxy {address}: connection refused"),
            )),
        ),
        (0, 0, Ok(("final_dot", 250, "taken".into()))),
    ] {
        net.lane(port, ProxyProtocol::Socks5, login).await;
        net.assign().await;
        let (mut connection, _) = net.proxy.accept().await.unwrap();
        let mut greeting = [0; 4];
        connection.read_exact(&mut greeting).await.unwrap();
        connection.write_all(&[5, 2]).await.unwrap();
        let mut said = [0; 12];
        connection.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"\x01\x03app\x06geheim");
        connection.write_all(&[1, in_]).await.unwrap();
        if in_ == 0 {
            let mut asked = [0; 10];
            connection.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked[..8], [5, 1, 0, 1, 127, 0, 0, 1]);
            assert_eq!(asked[8..], port.to_be_bytes());
            let answer = [5, made, 0, 1, 0, 0, 0, 0, 0, 0];
            connection.write_all(&answer).await.unwrap();
        }
        if (in_, made) == (0, 0) {
            tokio::spawn(hand_on(connection, port));
        }
        assert_eq!(net.result().await, expected);
    }
    host.done().await;
}
