//! A TCP connection from a source: by itself, or by its proxy.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use proto::journal::Stage;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::connection::Broken;
use super::failure::Failure;
use super::socks::{self, Login, SocksError};
use crate::lane::Lane;
use crate::reach::{Proxy, ProxyProtocol, Reach};
use crate::secret::read_secret;

/// What the proxy does not do is the source's failure; what it says of the other side is not.
pub(super) async fn connect(lane: &Lane, address: SocketAddr) -> Result<TcpStream, Failure> {
    match &lane.reach.proxy {
        None => {
            let source = lane.reach.source_address;
            let socket = socket_to(address)
                .map_err(|error| Failure::says(Stage::Connect, &no_socket(&error)))?;
            // Never from another address: its reputation is not the one that the scheduler chose.
            bind(&socket, source).map_err(|error| {
                let text = format!("the source address can't be used: {}", error.kind());
                Failure::of_source(Stage::Connect, &text)
            })?;
            connected(socket, address, lane.connect_timeout)
                .await
                .map_err(|text| Failure::says(Stage::Connect, &text))
        }
        Some(proxy) => by_proxy(lane, proxy, address).await,
    }
}

/// The stage at which a connection broke before the host said anything. A proxy that speaks HAProxy's protocol has no other
/// way to say that no connection came about.
pub(super) fn stage_before_banner(reach: &Reach, broken: &Broken) -> Stage {
    let proxy = reach.proxy.as_ref().map(|proxy| &proxy.protocol);
    match (proxy, broken) {
        (Some(ProxyProtocol::Haproxy), Broken::Closed | Broken::Failed(_)) => Stage::Connect,
        _ => Stage::Banner,
    }
}

async fn by_proxy(lane: &Lane, proxy: &Proxy, to: SocketAddr) -> Result<TcpStream, Failure> {
    let of_proxy = |text: &str| {
        let text = format!("the proxy {}: {text}", proxy.address);
        Failure::of_source(Stage::Connect, &text)
    };
    let in_time = |_| of_proxy("no answer in time");
    let patience = lane.connect_timeout;
    let socket = socket_to(proxy.address).map_err(|error| of_proxy(&no_socket(&error)))?;
    let stream = connected(socket, proxy.address, patience).await;
    let mut stream = stream.map_err(|text| of_proxy(&text))?;
    match &proxy.protocol {
        ProxyProtocol::Haproxy => {
            let from = lane.reach.source_address;
            let from = from.ok_or_else(|| of_proxy("the source has no address to name"))?;
            // The port is the proxy's choice.
            let header = smtp::encode_proxy_header(SocketAddr::new(from, 0), to);
            let sent = timeout(patience, stream.write_all(&header)).await;
            sent.map_err(in_time)?
                .map_err(|error| of_proxy(&format!("the connection broke: {}", error.kind())))?;
        }
        ProxyProtocol::Socks5(login) => {
            let mut name = "";
            let mut password = String::new();
            if let Some((said, file)) = login {
                name = said;
                let secret = read_secret(file).await;
                password = secret.map_err(|error| of_proxy(&error.to_string()))?;
            }
            let login = login.is_some().then_some(Login {
                name,
                password: &password,
            });
            let entered = timeout(patience, socks::enter(&mut stream, login)).await;
            entered
                .map_err(in_time)?
                .map_err(|error| of_proxy(&error.to_string()))?;
            let connected = timeout(patience, socks::connect(&mut stream, to)).await;
            let connected = connected.unwrap_or(Err(SocksError::Destination("no answer in time")));
            connected.map_err(|error| match error {
                SocksError::Proxy(text) => of_proxy(&text),
                SocksError::Destination(text) => {
                    let text = format!("no connection by the proxy {}: {text}", proxy.address);
                    Failure::says(Stage::Connect, &text)
                }
            })?;
        }
    }
    Ok(stream)
}

fn socket_to(to: SocketAddr) -> std::io::Result<TcpSocket> {
    if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
}

fn no_socket(error: &std::io::Error) -> String {
    format!("no socket: {}", error.kind())
}

fn bind(socket: &TcpSocket, source: Option<IpAddr>) -> std::io::Result<()> {
    if let Some(source) = source {
        // The port is chosen when the destination is known: an address then has all its ports for each destination, and
        // not for all of them together. Where the system does not know of this, that is all that is lost.
        if let Err(error) = setsockopt(socket, sockopt::IpBindAddressNoPort, &true) {
            tracing::debug!(%error, "a port is bound with its address");
        }
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(())
}

async fn connected(
    socket: TcpSocket,
    to: SocketAddr,
    patience: Duration,
) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("no connection: {}", error.kind());
    let stream = timeout(patience, socket.connect(to))
        .await
        .map_err(|_| "no connection in time".to_owned())?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bound_socket_has_no_port_before_it_is_connected_so_that_ports_serve_many_destinations()
     {
        let source: IpAddr = "127.0.0.9".parse().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let socket = socket_to(to).unwrap();
        bind(&socket, Some(source)).unwrap();
        assert_eq!(
            socket.local_addr().unwrap(),
            SocketAddr::new(source, 0),
            "the system chooses the port with the destination"
        );
        let stream = connected(socket, to, Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), source);
        let socket = socket_to(to).unwrap();
        assert!(bind(&socket, Some("192.0.2.1".parse().unwrap())).is_err());
    }
}
