//! What an acknowledgement of the stores means.

use std::fmt;
use std::time::Duration;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Every acknowledgement means that the data is on stable storage (fsync); anything weaker is refused.
    #[default]
    Strict,
    /// Less is accepted: acknowledged mail may be lost in a power cut.
    Relaxed,
}

/// What the server gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurabilityMode {
    /// `sync_interval: always`.
    Strict,
    /// The server syncs on a timer; a power cut loses what was acknowledged since.
    Relaxed,
}

/// Whether what the server gives was seen or is only said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// Read from the server's monitoring endpoint.
    Checked,
    /// No monitoring endpoint is configured: what the configuration says.
    Declared,
}

/// For the log at start and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurabilityReport {
    /// What an acknowledgement means.
    pub mode: DurabilityMode,
    /// How that is known.
    pub verified: Verification,
    /// Copies of each stream.
    pub replicas: u32,
    /// Version of the server, as it says.
    pub server_version: String,
    /// Time between two syncs; zero = `always`; `None` = not known.
    pub sync_interval: Option<Duration>,
}

impl DurabilityMode {
    /// `strict` or `relaxed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Relaxed => "relaxed",
        }
    }
}

impl Verification {
    /// `checked` or `declared`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Declared => "declared",
        }
    }
}

impl fmt::Display for DurabilityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), {} replica(s), nats-server {}",
            self.mode.as_str(),
            self.verified.as_str(),
            self.replicas,
            self.server_version
        )
    }
}
