//! A connection that was not made, and what was to blame.

use proto::journal::{Reply, Stage};

use super::connection::Broken;
use super::demand::Lack;
use super::fault::Fault;
use super::open::leads_back;
use super::{own_words, reported};

/// A try that failed, and what was to blame if it was not the host.
pub(super) struct Failure {
    pub(super) reply: Reply,
    pub(super) in_handshake: bool,
    /// The source is to blame.
    pub(super) unbound: bool,
    /// It is this relay that was connected to.
    pub(super) loops: bool,
    pub(super) lack: Option<Lack>,
    /// What is wrong with its TLS.
    pub(super) fault: Option<Fault>,
}

impl Failure {
    pub fn of(stage: Stage, reply: &smtp::Reply) -> Self {
        Self {
            reply: reported(stage, reply),
            ..Self::says(stage, "")
        }
    }

    pub fn broken(stage: Stage, broken: &Broken) -> Self {
        Self::says(stage, &broken.to_string())
    }

    pub fn says(stage: Stage, text: &str) -> Self {
        Self {
            reply: own_words(stage, 0, "", text),
            in_handshake: false,
            unbound: false,
            loops: false,
            lack: None,
            fault: None,
        }
    }

    /// The source is to blame: nothing is said of the host.
    pub fn of_source(stage: Stage, text: &str) -> Self {
        Self::says(stage, text).by_source()
    }

    pub fn by_source(self) -> Self {
        Self {
            unbound: true,
            ..self
        }
    }

    pub fn loops() -> Self {
        Self {
            reply: leads_back(),
            loops: true,
            ..Self::says(Stage::Ehlo, "")
        }
    }

    pub fn handshake(text: &str) -> Self {
        Self {
            in_handshake: true,
            fault: Some(Fault::Other),
            ..Self::says(Stage::Starttls, text)
        }
    }

    /// The enhanced codes are those that Postfix has for the same.
    pub fn lacks(lack: Lack, text: &str) -> Self {
        let enhanced = match lack {
            Lack::Tls => "4.7.4",
            Lack::Host | Lack::Certificate => "4.7.5",
            Lack::RequireTls => "4.7.30",
        };
        Self {
            reply: own_words(Stage::Starttls, 0, enhanced, text),
            lack: Some(lack),
            fault: (lack == Lack::Tls).then_some(Fault::NoStarttls),
            ..Self::says(Stage::Starttls, "")
        }
    }

    /// TLS failed: by what the host shows and speaks, which it will do again, or by what became of the connection.
    pub fn of_tls(error: &std::io::Error) -> Self {
        let inner = error.get_ref();
        let cause = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let lack = cause.map(|cause| match cause {
            rustls::Error::InvalidCertificate(_) => Lack::Certificate,
            _ => Lack::Tls,
        });
        let text = format!("TLS handshake: {error}");
        Self {
            in_handshake: true,
            fault: Some(cause.map_or(Fault::Other, Fault::from)),
            ..lack.map_or_else(|| Self::handshake(&text), |lack| Self::lacks(lack, &text))
        }
    }
}
