//! The check at every start of a service: the stores are those that `init` made, and they keep what
//! they acknowledge.

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType,
};

use crate::durability::{Durability, DurabilityMode, DurabilityReport, Verification};
use crate::init::{self, Found, Installation};
use crate::{Error, FORMAT_VERSION, Stores, layout, monitor};

/// The server takes records of at least so many bytes.
const MIN_MAX_PAYLOAD: usize = 8 << 20;

/// The stores are there and good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Partitions of the installation.
    pub partitions: u32,
    /// Copies of each stream.
    pub replicas: u32,
    /// What an acknowledgement means.
    pub report: DurabilityReport,
}

impl Stores {
    /// Checks everything and creates nothing.
    pub async fn open(&self) -> Result<Opened, Error> {
        let link = self.control();
        let not_initialized = |detail: &str| Error::NotInitialized {
            detail: detail.to_owned(),
        };
        let installation = match init::read(link).await? {
            Found::NoBucket => return Err(not_initialized("there is no bucket `format`")),
            Found::NoRecord => return Err(not_initialized("`staffetta init` was interrupted")),
            Found::Installation(_, installation) => installation,
        };
        if installation.format != FORMAT_VERSION {
            return Err(Error::UnknownFormat {
                found: installation.format,
                known: FORMAT_VERSION,
            });
        }
        if !installation.complete {
            return Err(not_initialized("`staffetta init` was interrupted"));
        }
        let report = self.check_server(installation.replicas).await?;
        let expected = installation.stream_configs();
        let found = expected.iter().map(|config| link.stream_info(&config.name));
        let found = futures::future::try_join_all(found).await?;
        let mut histories = Vec::new();
        for (config, info) in expected.iter().zip(found) {
            if layout::HISTORIES.contains(&&*config.name) {
                // Mail does not depend on it.
                if let Some(info) = info {
                    init::check_owner(&info.config, &installation)?;
                    histories.push(&config.name);
                }
                continue;
            }
            let info = info.ok_or_else(|| Error::MissingStream {
                stream: config.name.clone(),
            })?;
            check_stream(config, &info, &installation)?;
        }
        for (stream, lost) in [
            (layout::EVENTS, "what is refused is not told"),
            (layout::TRANSCRIPTS, "what mail hosts say is not kept"),
        ] {
            if !histories.iter().any(|name| *name == stream) {
                tracing::warn!(
                    "there is no stream {stream}: {lost}; `staffetta init` creates it and touches nothing else"
                );
            }
        }
        if installation.address_keys().is_none() {
            tracing::warn!(
                "there is no stream SUPPRESSION: nobody is suppressed; `staffetta init` creates it and touches nothing else"
            );
        }
        self.note_installation(&installation);
        Ok(Opened {
            partitions: installation.partitions,
            replicas: installation.replicas,
            report,
        })
    }

    async fn check_server(&self, replicas: u32) -> Result<DurabilityReport, Error> {
        let server = self.control().client().server_info();
        // One fsync per Raft entry came with 2.15.
        let (major, minor, needed) = if replicas > 1 {
            (2, 15, "2.15")
        } else {
            (2, 14, "2.14")
        };
        if !is_at_least(&server.version, major, minor) {
            return Err(Error::ServerVersion {
                found: server.version,
                needed,
                replicas,
            });
        }
        if server.max_payload < MIN_MAX_PAYLOAD {
            return Err(Error::MaxPayload {
                found: server.max_payload,
            });
        }
        let options = self.options();
        let mut report = DurabilityReport {
            mode: match options.durability {
                Durability::Strict => DurabilityMode::Strict,
                Durability::Relaxed => DurabilityMode::Relaxed,
            },
            verified: Verification::Declared,
            replicas,
            server_version: server.version,
            sync_interval: None,
        };
        let Some(url) = &options.monitor else {
            return Ok(report);
        };
        let variables = monitor::server_variables(url).await?;
        let monitor_error = |detail: String| Error::Monitor {
            url: url.clone(),
            detail,
        };
        if variables.server_id != server.server_id && variables.cluster.name.is_none() {
            return Err(monitor_error("it is that of another server".to_owned()));
        }
        let interval = variables
            .sync_interval()
            .ok_or_else(|| monitor_error("JetStream is off".to_owned()))?;
        report.verified = Verification::Checked;
        report.sync_interval = Some(interval);
        report.mode = if interval.is_zero() {
            DurabilityMode::Strict
        } else {
            DurabilityMode::Relaxed
        };
        if options.durability == Durability::Strict && report.mode == DurabilityMode::Relaxed {
            let detail = format!(
                "the NATS server syncs every {} s only",
                interval.as_secs_f64()
            );
            return Err(Error::NotDurable { detail });
        }
        Ok(report)
    }
}

fn check_stream(expected: &Config, info: &Info, installation: &Installation) -> Result<(), Error> {
    let found = &info.config;
    init::check_owner(found, installation)?;
    let differs = |detail: String| {
        Err(Error::StreamConfiguration {
            stream: found.name.clone(),
            detail,
        })
    };
    if found.storage != StorageType::File {
        return differs("it is not stored in files".to_owned());
    }
    if found.persist_mode == Some(PersistenceMode::Async) {
        return differs("persist_mode is async, which loses what was acknowledged".to_owned());
    }
    if found.discard != DiscardPolicy::New {
        return differs(
            "it discards the oldest records when it is full, instead of refusing new ones"
                .to_owned(),
        );
    }
    if found.retention != RetentionPolicy::Limits {
        return differs("its retention is not by limits".to_owned());
    }
    if !found.max_age.is_zero() || found.max_messages > 0 {
        return differs("it removes records by age or number".to_owned());
    }
    if found.num_replicas < expected.num_replicas {
        return differs(format!(
            "it has {} replicas instead of {}",
            found.num_replicas, expected.num_replicas
        ));
    }
    if found.max_bytes <= 0 {
        return differs("it has no bound".to_owned());
    }
    if found.duplicate_window < expected.duplicate_window {
        return differs(format!(
            "it remembers ids for {} s only",
            found.duplicate_window.as_secs()
        ));
    }
    if found.subjects != expected.subjects {
        return differs(format!("its subjects are {:?}", found.subjects));
    }
    Ok(())
}

/// Whether a version "2.15.1" or "2.15.0-RC.1" is the given one or newer.
fn is_at_least(version: &str, major: u32, minor: u32) -> bool {
    let mut numbers = version.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(found_major)), Some(Ok(found_minor))) => {
            (found_major, found_minor) >= (major, minor)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_at_least;

    #[test]
    fn compares_versions() {
        for (version, expected) in [
            ("2.14.0", true),
            ("2.15.1", true),
            ("3.0.0-RC.2", true),
            ("2.9.10", false),
            ("2.13.9", false),
            ("", false),
        ] {
            assert_eq!(is_at_least(version, 2, 14), expected, "{version}");
        }
    }
}
