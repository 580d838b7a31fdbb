//! The words of signals.

use crate::watch::Signal;

impl Signal {
    /// As in the configuration and in events: `newNetworks`, …
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::NewNetworks => "newNetworks",
            Self::Volume => "volume",
            Self::Refusals => "refusals",
            Self::Senders => "senders",
            Self::Guessed => "guessed",
            Self::Preflight => "preflight",
        }
    }
}
