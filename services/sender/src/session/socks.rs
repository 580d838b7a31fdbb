//! A connection by a SOCKS 5 proxy (RFC 1928), with user name and password where it asks for them (RFC 1929).
//!
//! What the proxy says of itself (it can't, or does not let us) is told apart from what it says of the other side. Names are
//! resolved here and never by the proxy: what may be connected to is decided here.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_METHOD: u8 = 0xff;
/// Octets of a user name and of a password (RFC 1929 section 2).
const LONGEST: usize = 255;

/// User name and password.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub name: &'a str,
    pub password: &'a str,
}

/// There is no connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SocksError {
    /// The proxy is to blame, or we are.
    #[error("{0}")]
    Proxy(String),
    /// The other side was not reached, says the proxy.
    #[error("{0}")]
    Destination(&'static str),
}

fn proxy(text: &str) -> SocksError {
    SocksError::Proxy(text.to_owned())
}

impl From<std::io::Error> for SocksError {
    fn from(error: std::io::Error) -> Self {
        Self::Proxy(format!("the connection broke: {}", error.kind()))
    }
}

/// Comes to terms with the proxy, up to where a connection can be asked for.
pub(super) async fn enter<S>(stream: &mut S, login: Option<Login<'_>>) -> Result<(), SocksError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let methods: &[u8] = match login {
        // One that asks for nothing is fine, too.
        Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
        None => &[VERSION, 1, NO_LOGIN],
    };
    stream.write_all(methods).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, login) {
        ([VERSION, NO_LOGIN], _) => Ok(()),
        ([VERSION, LOGIN], Some(login)) => log_in(stream, login).await,
        ([VERSION, NO_METHOD], Some(_)) => Err(proxy("it takes neither a login nor none")),
        ([VERSION, NO_METHOD], None) => Err(proxy("it wants a login, and there is none")),
        _ => Err(proxy("it does not speak SOCKS 5")),
    }
}

async fn log_in<S>(stream: &mut S, login: Login<'_>) -> Result<(), SocksError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = vec![1];
    for text in [login.name, login.password] {
        let length = u8::try_from(text.len())
            .map_err(|_| proxy(&format!("a login is of {LONGEST} octets each at most")))?;
        request.push(length);
        request.extend_from_slice(text.as_bytes());
    }
    stream.write_all(&request).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match answer {
        [_, 0] => Ok(()),
        _ => Err(proxy("it refuses user name and password")),
    }
}

/// Asks for a connection; all that comes after it is the other side's.
pub(super) async fn connect<S>(stream: &mut S, to: SocketAddr) -> Result<(), SocksError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = vec![VERSION, 1, 0];
    match to.ip() {
        IpAddr::V4(address) => {
            request.push(1);
            request.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            request.push(4);
            request.extend_from_slice(&address.octets());
        }
    }
    request.extend_from_slice(&to.port().to_be_bytes());
    stream.write_all(&request).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(closed)?;
    let [version, reply, _, kind] = head;
    if version != VERSION {
        return Err(proxy("it does not speak SOCKS 5"));
    }
    told(reply)?;
    // The address that it connects from is of no use.
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await.map_err(closed)?),
        _ => return Err(proxy("it does not speak SOCKS 5")),
    };
    let mut rest = [0; LONGEST + 2];
    let rest = stream.read_exact(&mut rest[..length + 2]);
    rest.await.map_err(closed)?;
    Ok(())
}

/// What is wrong when nothing more comes of a proxy that was asked for a connection.
fn closed(_: std::io::Error) -> SocksError {
    SocksError::Destination("the proxy closed the connection")
}

/// RFC 1928 section 6. What may be due to the destination is: one that no proxy can reach, or may, must not take sources away
/// from all others. When it is all that ever comes, the source is found out as one from which no connection comes about.
fn told(reply: u8) -> Result<(), SocksError> {
    let destination = |text| Err(SocksError::Destination(text));
    match reply {
        0 => Ok(()),
        1 => destination("general failure"),
        2 => destination("its rules do not allow the connection"),
        3 => destination("network unreachable"),
        4 => destination("host unreachable"),
        5 => destination("connection refused"),
        6 => destination("no answer in time"),
        7 => Err(proxy("it makes no connections")),
        8 => destination("it does not know addresses of this family"),
        _ => Err(proxy("it says what has no meaning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: Login<'_> = Login {
        name: "app",
        password: "geheim",
    };

    /// What comes of a proxy that says this, and what it was told.
    async fn with(
        said: &[u8],
        login: Option<Login<'_>>,
        to: &str,
    ) -> (Result<(), SocksError>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(1024);
        far.write_all(said).await.unwrap();
        let came_to = async {
            enter(&mut near, login).await?;
            connect(&mut near, to.parse().unwrap()).await
        };
        // What is missing never comes.
        let (mut reading, writing) = tokio::io::split(far);
        drop(writing);
        let came_to = tokio::time::timeout(std::time::Duration::from_millis(200), came_to).await;
        let came_to = came_to.unwrap_or_else(|_| Err(proxy("it waits")));
        drop(near);
        let mut told = Vec::new();
        reading.read_to_end(&mut told).await.unwrap();
        (came_to, told)
    }

    const V4: &[u8] = &[5, 0, 0, 1, 10, 0, 0, 1, 0x04, 0x38];

    #[tokio::test]
    async fn connects_with_and_without_a_login_to_both_families() {
        let (came_to, told) = with(&[&[5, 0], V4].concat(), None, "192.0.2.1:25").await;
        assert_eq!(came_to, Ok(()));
        assert_eq!(told, [5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 0, 25]);
        let named = [5, 0, 0, 3, 2, b'h', b'i', 0, 1];
        let said = [&[5, 2, 1, 0][..], &named].concat();
        let (came_to, told) = with(&said, Some(LOGIN), "[2001:db8::1]:2525").await;
        assert_eq!(came_to, Ok(()));
        let asked = [&b"\x05\x02\x00\x02\x01\x03app\x06geheim\x05\x01\x00\x04"[..]].concat();
        assert!(told.starts_with(&asked) && told.ends_with(&[0, 1, 0x09, 0xdd]));
        // It may go without.
        let v6 = [&[5, 0, 0, 4][..], &[0; 18]].concat();
        let (came_to, _) = with(&[&[5, 0], &*v6].concat(), Some(LOGIN), "192.0.2.1:25").await;
        assert_eq!(came_to, Ok(()));
    }

    #[tokio::test]
    async fn tells_what_the_proxy_fails_at_from_what_the_other_side_does() {
        let by_proxy = |text: &str| Err(proxy(text));
        for (said, login, expected) in [
            (
                &[5, 0xff][..],
                None,
                by_proxy("it wants a login, and there is none"),
            ),
            (
                &[5, 0xff],
                Some(LOGIN),
                by_proxy("it takes neither a login nor none"),
            ),
            (
                &[5, 2, 1, 1],
                Some(LOGIN),
                by_proxy("it refuses user name and password"),
            ),
            // It chooses what was not offered.
            (&[5, 2], None, by_proxy("it does not speak SOCKS 5")),
            (b"HTTP/1.1 400", None, by_proxy("it does not speak SOCKS 5")),
            (
                &[5, 0, 5, 2, 0, 1],
                None,
                Err(SocksError::Destination(
                    "its rules do not allow the connection",
                )),
            ),
            (
                &[5, 0, 5, 8, 0, 1],
                None,
                Err(SocksError::Destination(
                    "it does not know addresses of this family",
                )),
            ),
            (
                &[5, 0, 5, 5, 0, 1],
                None,
                Err(SocksError::Destination("connection refused")),
            ),
            (
                &[5, 0, 5, 1, 0, 1],
                None,
                Err(SocksError::Destination("general failure")),
            ),
            (
                &[5, 0, 5, 99, 0, 1],
                None,
                by_proxy("it says what has no meaning"),
            ),
            (
                &[5, 0, 5, 0, 0, 9],
                None,
                by_proxy("it does not speak SOCKS 5"),
            ),
        ] {
            let (came_to, _) = with(said, login, "192.0.2.1:25").await;
            assert_eq!(came_to, expected, "{said:?}");
        }
        let password = "x".repeat(256);
        let login = Login {
            name: "app",
            password: &password,
        };
        let (came_to, _) = with(&[5, 2], Some(login), "192.0.2.1:25").await;
        assert_eq!(came_to, by_proxy("a login is of 255 octets each at most"));
    }
}
