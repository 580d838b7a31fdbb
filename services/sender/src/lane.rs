//! How to reach a site from a source, as the scheduler says.

use std::sync::Arc;
use std::time::Duration;

pub(crate) use proto::dispatch::TlsPolicy;

use crate::reach::Reach;

/// A lane, read.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub id: u32,
    /// Name of its source.
    pub source: String,
    pub reach: Arc<Reach>,
    pub ehlo: String,
    pub site: String,
    /// Host name or address literal; empty = the MX hosts of the recipient domain.
    pub smart_host: String,
    pub port: u16,
    pub allow_private: bool,
    /// 0 = no limit.
    pub messages_per_connection: u32,
    pub tls: TlsPolicy,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub timeouts: Timeouts,
    /// The scheduler hears of the dot, or so long after MAIL that the message is still under way.
    pub left_within: Option<Duration>,
}

/// How long the host may take in a dialogue (RFC 5321 section 4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For the banner and for the reply to each command up to RCPT.
    pub command: Duration,
    /// For the reply to DATA, and for each piece of the content to be taken.
    pub data: Duration,
    /// For the reply after the final dot.
    pub final_reply: Duration,
}

/// When the lane names none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(300),
            data: Duration::from_secs(180),
            final_reply: Duration::from_secs(600),
        }
    }
}

impl TryFrom<proto::dispatch::Lane> for Lane {
    type Error = String;

    fn try_from(lane: proto::dispatch::Lane) -> Result<Self, String> {
        let source_address = match lane.source_address.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| format!("lane {}: {text:?} is no source address", lane.id))?,
            ),
        };
        let port = lane.reach.as_ref().map_or(lane.port, |reach| reach.port);
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let reach = match lane.reach {
            None => Ok(Reach::from_address(source_address)),
            Some(said) => Reach::read(source_address, said),
        };
        let reach = reach.map_err(|problem| format!("lane {}: {problem}", lane.id))?;
        // A policy of a later release may be stricter than any we know: never weaker than asked for.
        let tls = TlsPolicy::try_from(lane.tls)
            .map_err(|_| format!("lane {}: unknown TLS policy {}", lane.id, lane.tls))?;
        let or = |milliseconds: u32, default| {
            if milliseconds == 0 {
                default
            } else {
                Duration::from_millis(milliseconds.into())
            }
        };
        let timeouts = Timeouts::default();
        Ok(Self {
            id: lane.id,
            source: lane.source,
            reach: Arc::new(reach),
            ehlo: lane.ehlo,
            site: lane.site,
            smart_host: lane.smart_host,
            port: port.ok_or_else(|| format!("lane {}: {} is no port", lane.id, lane.port))?,
            allow_private: lane.allow_private,
            messages_per_connection: lane.messages_per_connection,
            tls,
            connect_timeout: or(lane.connect_timeout_ms, CONNECT_TIMEOUT),
            idle_timeout: or(lane.idle_timeout_ms, IDLE_TIMEOUT),
            timeouts: Timeouts {
                command: or(lane.command_timeout_ms, timeouts.command),
                data: or(lane.data_timeout_ms, timeouts.data),
                final_reply: or(lane.final_reply_timeout_ms, timeouts.final_reply),
            },
            left_within: match lane.left_within_ms {
                0 => None,
                milliseconds => Some(Duration::from_millis(milliseconds.into())),
            },
        })
    }
}
