//! What every service needs to start, to tell how it is, and to stop.

pub mod bootstrap;
mod certificates;
mod clients;
mod clock;
mod health;
mod https;
mod open_files;
mod shutdown;
mod tls;
mod tls_files;
mod token_keyring;
mod web;

pub use bootstrap::{Bootstrap, LoadError};
pub use certificates::certificate_names;
pub use clients::{ClientSlot, Clients, network_of, one_client};
pub use clock::now_ms;
pub use health::{HealthError, Readiness, serve_health};
pub use https::{
    Answer, Fetched, Get, HttpsClient, HttpsError, Post, Stage, WebClient, WebConnection,
    trusted_authorities,
};
pub use open_files::raise_open_files;
pub use shutdown::{Shutdown, shutdown_on_signals};
pub use tls::{
    TlsError, certificate_of_files, init_tls, tls_server_config, tls_server_config_asking,
    tls_server_config_for,
};
pub use tls_files::TlsFiles;
pub use token_keyring::{TokenKeyring, TokenKeyringError};
pub use web::{Method, Request, Response, WebError, WebServer, WebStats};
