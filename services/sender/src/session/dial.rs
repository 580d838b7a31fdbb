//! A connection to one address, up to where mail can be sent over it: TCP or a proxy, banner, EHLO, TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proto::journal::Stage;
use rustls::pki_types::ServerName;
use smtp::EhloCapabilities;
use tokio::time::{Instant, timeout};

use super::connect::{connect, stage_before_banner};
use super::connection::{Broken, Capabilities, Connection, Open};
use super::dane::{Dane, Verifier};
use super::demand::{Encryption, HostDemand, Lack};
use super::failure::Failure;
use super::fault::Fault;
use super::identity::showing;
use super::io::Io;
use super::open::Opener;
use super::tls::Connector;
use crate::lane::Lane;
use crate::transcript;

/// Time for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a connection is made.
#[derive(Clone, Copy)]
pub(super) struct Dial<'a> {
    pub lane: &'a Lane,
    pub host: &'a str,
    pub address: IpAddr,
    pub encryption: Encryption,
    pub demand: &'a HostDemand<'a>,
    /// Without TLS there is to be no connection.
    pub must: bool,
}

impl Opener {
    pub(super) async fn dial(&self, dial: Dial<'_>) -> Result<Connection, Failure> {
        let Dial { lane, host, .. } = dial;
        let address = SocketAddr::new(dial.address, lane.port);
        transcript::note(format_args!("connecting to {host} {address}"));
        let stream = connect(lane, address).await?;
        let mut connection = Connection::new(
            Io::Plain(stream),
            host.into(),
            address,
            Open::new(&self.metrics.connections),
        );
        let by_tls = lane.reach.implicit_tls();
        let mut version = "none";
        if by_tls {
            (connection, version) = self.handshake(connection, dial).await?;
        }
        let banner = connection.reply(within(lane)).await.map_err(|broken| {
            Failure::broken(stage_before_banner(&lane.reach, &broken), &broken)
        })?;
        if banner.code != 220 {
            return Err(Failure::of(Stage::Banner, &banner));
        }
        // Where TLS is a must, whoever is on the way has no say before it in whether the mail goes back.
        let is_heard = by_tls || !dial.must;
        self.greet(&mut connection, lane, is_heard).await?;
        if by_tls || dial.encryption == Encryption::None {
            self.metrics.tls.with_label_values(&[version]).inc();
            return Ok(connection);
        }
        if !connection.capabilities.starttls {
            if dial.must {
                connection.quit().await;
                let text = "the host does not offer STARTTLS";
                return Err(Failure::lacks(Lack::Tls, text));
            }
            self.metrics.tls.with_label_values(&["none"]).inc();
            return Ok(connection);
        }
        self.start_tls(connection, dial).await
    }

    /// Says hello. With `is_heard`, a host that has our own name is us.
    async fn greet(
        &self,
        connection: &mut Connection,
        lane: &Lane,
        is_heard: bool,
    ) -> Result<(), Failure> {
        let name = self.name(lane);
        let answer = hello(connection, lane, name).await?;
        let own_names = [name, &self.names.own_name];
        let is_us = |answer: &smtp::Reply| own_names.iter().any(|own| greets_as(answer, own));
        if is_heard && lane.smart_host.is_empty() && answer.as_ref().is_some_and(is_us) {
            return Err(Failure::loops());
        }
        Ok(())
    }

    /// What asks the host for what its TLSA records name, if that is asked of it.
    fn named(&self, dial: Dial<'_>) -> Result<Option<(Connector, Arc<Verifier>)>, Failure> {
        let (Encryption::NamedCertificate, Dane::Usable(tlsa)) =
            (dial.encryption, dial.demand.dane())
        else {
            return Ok(None);
        };
        let host = server_name(dial.host, dial.address);
        let named = self
            .tls
            .named(tlsa.clone(), dial.demand.signed_domain(), host);
        named
            .map(Some)
            .map_err(|error| Failure::handshake(&format!("TLS: {error}")))
    }

    async fn start_tls(
        &self,
        mut connection: Connection,
        dial: Dial<'_>,
    ) -> Result<Connection, Failure> {
        let lane = dial.lane;
        let answer = connection
            .exchange(smtp::write::starttls, within(lane))
            .await
            .map_err(|broken| Failure::handshake(&broken.to_string()))?;
        if answer.code != 220 {
            if dial.must || answer.code == 421 {
                return Err(Failure {
                    lack: answer.is_permanent().then_some(Lack::Tls),
                    fault: (answer.code != 421).then_some(Fault::NoStarttls),
                    ..Failure::of(Stage::Starttls, &answer)
                });
            }
            self.metrics.tls.with_label_values(&["none"]).inc();
            return Ok(connection);
        }
        let (mut connection, version) = self.handshake(connection, dial).await?;
        // Nothing learned before TLS counts (RFC 3207 section 4.2). A host that breaks right after the
        // handshake is as broken as one that fails in it.
        self.greet(&mut connection, lane, true)
            .await
            .map_err(|failure| Failure {
                in_handshake: failure.reply.code == 0,
                fault: (failure.reply.code == 0).then_some(Fault::Other),
                ..failure
            })?;
        self.metrics.tls.with_label_values(&[version]).inc();
        Ok(connection)
    }

    /// The connection under TLS, and the version of it.
    async fn handshake(
        &self,
        connection: Connection,
        dial: Dial<'_>,
    ) -> Result<(Connection, &'static str), Failure> {
        let named = self.named(dial)?;
        let connector = match (&named, dial.encryption) {
            (Some((connector, _)), _) => Some(connector),
            (None, Encryption::ValidCertificate) => self.tls.verifying.as_ref(),
            (None, _) => Some(&self.tls.any),
        };
        let connector = connector.ok_or_else(|| Failure {
            in_handshake: true,
            fault: Some(Fault::NotTrusted),
            ..Failure::lacks(
                Lack::Certificate,
                "no authority is trusted that could have signed its certificate",
            )
        })?;
        let showing = match &dial.lane.reach.certificate {
            Some(files) => Some(showing(connector.config(), files).await?),
            None => None,
        };
        let connector = showing.as_ref().unwrap_or(connector.begins());
        let (host, address) = (connection.host.clone(), connection.address);
        let (stream, open) = connection
            .into_tcp()
            .ok_or_else(|| Failure::handshake("the host spoke before TLS began"))?;
        let name = match dial.demand.dane() {
            // RFC 7672 section 3.2.1 and 8.1: it may have a certificate for each of its names.
            Dane::Usable(tlsa) => server_name(&tlsa.base, address.ip()),
            _ => server_name(&host, address.ip()),
        };
        let stream = timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream))
            .await
            .map_err(|_| Failure::handshake("no TLS handshake in time"))?
            .map_err(|error| Failure::of_tls(&error))?;
        let mut connection = Connection::new(Io::Tls(Box::new(stream)), host, address, open);
        let version = connection.tls_version();
        connection.verified = dial.encryption == Encryption::ValidCertificate;
        if let Some((proved, is_valid)) = named.and_then(|(_, verifier)| verifier.found()) {
            connection.verified = is_valid;
            connection.proved = Some(proved);
        }
        let certificate = match (connection.verified, &connection.proved) {
            (true, _) => "a valid certificate",
            (false, Some(_)) => "a certificate that TLSA records name",
            (false, None) => "a certificate that was not checked",
        };
        transcript::note(format_args!("TLS {version}, {certificate}"));
        Ok((connection, version))
    }
}

fn server_name(host: &str, address: IpAddr) -> ServerName<'static> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    name.unwrap_or_else(|_| address.into())
}

/// EHLO, and HELO for a host that knows none (RFC 5321 section 4.1.4). The answer to EHLO, when it is one.
async fn hello(
    connection: &mut Connection,
    lane: &Lane,
    name: &str,
) -> Result<Option<smtp::Reply>, Failure> {
    let broken = |broken: Broken| Failure::broken(Stage::Ehlo, &broken);
    let answer = connection
        .exchange(|out| smtp::write::ehlo(out, name), within(lane))
        .await
        .map_err(broken)?;
    if answer.is_positive() {
        connection.capabilities = Capabilities::from(&EhloCapabilities::from_reply(&answer));
        return Ok(Some(answer));
    }
    if !answer.is_permanent() {
        return Err(Failure::of(Stage::Ehlo, &answer));
    }
    let answer = connection
        .exchange(|out| smtp::write::helo(out, name), within(lane))
        .await
        .map_err(broken)?;
    if answer.is_positive() {
        Ok(None)
    } else {
        Err(Failure::of(Stage::Ehlo, &answer))
    }
}

/// The host gives our own name as its own: it is us, by whatever name and address it is known. `localhost` is nobody's own.
fn greets_as(answer: &smtp::Reply, name: &str) -> bool {
    let first = answer.lines.first().map_or("", |line| line.trim_start());
    let word = first.split(' ').next();
    name.contains('.') && word.is_some_and(|word| word.eq_ignore_ascii_case(name))
}

fn within(lane: &Lane) -> Instant {
    Instant::now() + lane.timeouts.command
}
