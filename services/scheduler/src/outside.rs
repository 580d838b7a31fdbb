//! The admin service for the command-line tool outside: over TLS, for clients that show a certificate.

use std::sync::Arc;
use std::time::Duration;

use runtime::bootstrap::AdminListener;
use runtime::{TlsError, tls_server_config_for};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

/// Handshakes under way; more clients wait in the listener's queue.
const HANDSHAKES: usize = 16;
/// For the whole handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a connection could not be taken, mostly for want of open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections whose client is known, for tonic to serve.
pub(crate) type Connections = ReceiverStream<std::io::Result<TlsStream<TcpStream>>>;

/// The files as they are now.
pub(crate) fn server_config(admin: &AdminListener) -> Result<Arc<ServerConfig>, TlsError> {
    let files = &admin.files;
    tls_server_config_for(&admin.client_authorities, &files.certificate, &files.key)
}

/// Takes connections until what it gives is dropped. The files are read for each of them, so that renewed ones hold at once:
/// there are few connections.
pub(crate) fn connections(listener: TcpListener, admin: AdminListener) -> Connections {
    let (known, connections) = mpsc::channel(1);
    let admin = Arc::new(admin);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = handshakes.clone().acquire_owned().await else {
                return;
            };
            let socket = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => socket,
                    Err(error) => {
                        tracing::warn!(%error, "a connection to scheduler.admin is lost");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
                () = known.closed() => return,
            };
            let (admin, known) = (admin.clone(), known.clone());
            tokio::spawn(async move {
                if let Some(stream) = handshake(socket, &admin).await {
                    // Nobody serves any more.
                    known.send(Ok(stream)).await.ok();
                }
                drop(permit);
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn handshake(socket: TcpStream, admin: &AdminListener) -> Option<TlsStream<TcpStream>> {
    let config = match server_config(admin) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "scheduler.admin can't be served");
            return None;
        }
    };
    // What is small leaves at once; without it answers are only later.
    socket.set_nodelay(true).ok();
    match tokio::time::timeout(PATIENCE, TlsAcceptor::from(config).accept(socket)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(%error, "a client of scheduler.admin is turned away");
            None
        }
        Err(_) => {
            tracing::info!("a client of scheduler.admin is too slow");
            None
        }
    }
}
