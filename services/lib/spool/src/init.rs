//! `staffetta init`: the only creator of streams and buckets.

use std::collections::HashSet;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::Config;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Written};
use crate::link::Link;
use crate::{Error, FORMAT_VERSION, Stores, TranscriptBounds, layout};

const RECORD: &str = "installation";

/// What is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// Slices of the spool, 1 to 64; fixed for the life of the installation.
    pub partitions: u32,
    /// Copies of each stream: 1, 3 or 5.
    pub replicas: u32,
    /// Size of the volume that the NATS server stores on, bytes; at most 80 % of it is used. At least
    /// 16 MiB per partition.
    pub volume_bytes: u64,
    /// How much is kept of what was said to and by mail hosts. May be changed later.
    pub transcripts: TranscriptBounds,
}

/// What `init` found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// Partitions of the installation.
    pub partitions: u32,
    /// Streams and buckets created now; empty when everything was there.
    pub created: Vec<String>,
    /// Streams that were there and have other bounds now.
    pub changed: Vec<String>,
}

/// What the bucket `format` says of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installation {
    /// Of the layout.
    pub format: u32,
    /// Written into every stream's metadata.
    pub id: String,
    pub partitions: u32,
    pub replicas: u32,
    pub volume_bytes: u64,
    /// All streams, those of the buckets included.
    pub streams: Vec<String>,
    /// False while `init` is at work (or was interrupted).
    pub complete: bool,
}

impl Stores {
    /// Creates what an installation needs. Does nothing where everything is there; an `init` that was
    /// interrupted is completed, an installation that is older than `EVENTS`, `TRANSCRIPTS` or `INBOUND` gets them, and the bounds
    /// of `TRANSCRIPTS` are made those that are asked for. Refuses another number of partitions, streams that are not of
    /// this installation, and an installation of which a stream is missing that holds mail.
    pub async fn init(&self, options: &InitOptions) -> Result<InitReport, Error> {
        check(options)?;
        let link = self.control();
        let (revision, mut installation, mut created) = match read(link).await? {
            Found::Installation(revision, installation) => (revision, installation, Vec::new()),
            found => begin(link, options, matches!(found, Found::NoBucket)).await?,
        };
        if installation.format != FORMAT_VERSION {
            return Err(Error::UnknownFormat {
                found: installation.format,
                known: FORMAT_VERSION,
            });
        }
        if installation.partitions != options.partitions {
            return Err(Error::PartitionCount {
                existing: installation.partitions,
                asked: options.partitions,
            });
        }
        let mut changed = Vec::new();
        for config in installation.configs_with(&options.transcripts) {
            let name = config.name.clone();
            match link.stream_info(&name).await? {
                Some(info) => {
                    check_owner(&info.config, &installation)?;
                    if name == layout::TRANSCRIPTS && bounds(&info.config) != bounds(&config) {
                        update(link, &config).await?;
                        changed.push(name);
                    }
                }
                None if installation.complete && !layout::HISTORIES.contains(&&*name) => {
                    return Err(Error::MissingStream { stream: name });
                }
                None => {
                    create(link, &config).await?;
                    created.push(name);
                }
            }
        }
        let is_new = !installation.complete;
        let lacking = installation.lacking();
        for name in &lacking {
            created.extend(add(link, &mut installation, name, &options.transcripts).await?);
        }
        if is_new {
            for config in installation.stream_configs() {
                touch(link, &config).await?;
            }
            installation.complete = true;
        }
        if is_new || !lacking.is_empty() {
            write(link, &installation, revision).await?;
        }
        self.note_partitions(installation.partitions);
        Ok(InitReport {
            partitions: installation.partitions,
            created,
            changed,
        })
    }
}

/// Makes a stream for an installation that has none, and notes that it has. Gives its name when it was not there:
/// an `init` may have been interrupted before it noted it.
async fn add(
    link: &Link,
    installation: &mut Installation,
    name: &str,
    transcripts: &TranscriptBounds,
) -> Result<Option<String>, Error> {
    installation.streams.push(name.to_owned());
    let configs = installation.configs_with(transcripts);
    let Some(config) = configs.iter().find(|config| config.name == name) else {
        return Ok(None);
    };
    if let Some(info) = link.stream_info(name).await? {
        check_owner(&info.config, installation)?;
        return Ok(None);
    }
    create(link, config).await?;
    touch(link, config).await?;
    Ok(Some(name.to_owned()))
}

/// What may be changed of a stream that forgets by itself.
fn bounds(config: &Config) -> (i64, std::time::Duration) {
    (config.max_bytes, config.max_age)
}

impl Installation {
    /// What a release made it without that did not know of it.
    fn lacking(&self) -> Vec<&'static str> {
        let is_listed = |wanted: &&str| self.streams.iter().any(|name| name == wanted);
        let mut lacking = layout::ADDED.to_vec();
        lacking.retain(|name| !is_listed(name));
        lacking
    }

    /// All its streams as they should be, but for the bounds of `TRANSCRIPTS`.
    pub fn stream_configs(&self) -> Vec<Config> {
        self.configs_with(&TranscriptBounds::USUAL)
    }

    /// All its streams as they should be.
    fn configs_with(&self, transcripts: &TranscriptBounds) -> Vec<Config> {
        let listed: HashSet<&str> = self.streams.iter().map(String::as_str).collect();
        let mut configs = layout::streams(
            self.partitions,
            self.replicas,
            self.volume_bytes,
            &self.id,
            transcripts,
        );
        configs.retain(|config| listed.contains(config.name.as_str()));
        configs
    }
}

/// What there is on the server.
pub(crate) enum Found {
    NoBucket,
    NoRecord,
    Installation(u64, Installation),
}

pub(crate) async fn read(link: &Link) -> Result<Found, Error> {
    if link
        .stream_info(&layout::bucket_stream("format"))
        .await?
        .is_none()
    {
        return Ok(Found::NoBucket);
    }
    let state = Bucket::new(link.clone(), "format").get(RECORD).await?;
    let Some(value) = state.value else {
        return Ok(Found::NoRecord);
    };
    let installation = serde_json::from_slice(&value).map_err(|error| Error::Damaged {
        what: "the record of the installation".to_owned(),
        detail: error.to_string(),
    })?;
    Ok(Found::Installation(state.revision, installation))
}

/// That a stream was made for this installation.
pub(crate) fn check_owner(config: &Config, installation: &Installation) -> Result<(), Error> {
    let foreign = |detail: String| Error::ForeignStream {
        stream: config.name.clone(),
        detail,
    };
    match config.metadata.get(layout::INSTALLATION) {
        Some(id) if *id == installation.id => Ok(()),
        Some(id) => Err(foreign(format!(
            "it is of installation {id}, this is {}",
            installation.id
        ))),
        None => Err(foreign("it was not made by `staffetta init`".to_owned())),
    }
}

fn check(options: &InitOptions) -> Result<(), Error> {
    let InitOptions {
        partitions,
        replicas,
        volume_bytes,
        transcripts,
    } = *options;
    let invalid = |text: String| Err(Error::InvalidOption(text));
    if !(1..=layout::MAX_PARTITIONS).contains(&partitions) {
        return invalid(format!(
            "{partitions} partitions: 1 to {} are possible",
            layout::MAX_PARTITIONS
        ));
    }
    if ![1, 3, 5].contains(&replicas) {
        return invalid(format!("{replicas} replicas: 1, 3 or 5 are possible"));
    }
    let least = layout::MIN_VOLUME_PER_PARTITION * u64::from(partitions);
    if volume_bytes < least {
        return invalid(format!(
            "a volume of {volume_bytes} bytes is too small for {partitions} partitions: at least {least}"
        ));
    }
    let most = layout::most_transcripts(volume_bytes);
    if transcripts
        .max_bytes
        .is_some_and(|bytes| !(1 << 20..=most).contains(&bytes))
    {
        return invalid(format!(
            "transcripts: 1 MiB to 4 % of the volume ({most} bytes) are possible"
        ));
    }
    Ok(())
}

/// Writes the record first, so that an interruption leaves no stream whose origin is not known.
async fn begin(
    link: &Link,
    options: &InitOptions,
    make_bucket: bool,
) -> Result<(u64, Installation, Vec<String>), Error> {
    let id = uuid::Uuid::now_v7().to_string();
    let configs = layout::streams(
        options.partitions,
        options.replicas,
        options.volume_bytes,
        &id,
        &options.transcripts,
    );
    let mut created = Vec::new();
    for config in configs
        .iter()
        .filter(|config| config.name != layout::bucket_stream("format"))
    {
        if link.stream_info(&config.name).await?.is_some() {
            let detail =
                "it exists, but the bucket `format` has no record of an installation".to_owned();
            return Err(Error::ForeignStream {
                stream: config.name.clone(),
                detail,
            });
        }
    }
    let id = if make_bucket {
        if let Some(config) = configs.first() {
            create(link, config).await?;
            created.push(config.name.clone());
        }
        id
    } else {
        // Interrupted between the two: the bucket carries the id already.
        let info = link.stream_state(&layout::bucket_stream("format")).await?;
        info.config
            .metadata
            .get(layout::INSTALLATION)
            .cloned()
            .unwrap_or(id)
    };
    let installation = Installation {
        format: FORMAT_VERSION,
        id,
        partitions: options.partitions,
        replicas: options.replicas,
        volume_bytes: options.volume_bytes,
        streams: configs.into_iter().map(|config| config.name).collect(),
        complete: false,
    };
    let revision = write(link, &installation, 0).await?;
    Ok((revision, installation, created))
}

async fn write(link: &Link, installation: &Installation, expected: u64) -> Result<u64, Error> {
    let value = Bytes::from(
        serde_json::to_vec(installation).expect("strings and numbers can be written as JSON"),
    );
    match Bucket::new(link.clone(), "format")
        .put(RECORD, value, Some(expected), None)
        .await?
    {
        Written::Done(revision) => Ok(revision),
        Written::Conflict => Err(Error::Unavailable {
            what: "init".to_owned(),
            detail: "another `init` is at work; run it again when that is done".to_owned(),
        }),
    }
}

/// Stores a record and removes it again. nats-server 2.15.1 can take a stream that never held a record for an empty one
/// after a power cut, whatever was stored since its last start. Journals get their first record from their owners' side,
/// which must find them empty.
async fn touch(link: &Link, config: &Config) -> Result<(), Error> {
    let is_journal = config.name.starts_with(layout::JOURNALS);
    let subject = config.subjects.first().filter(|_| !is_journal);
    let Some(subject) = subject.map(|subject| subject.replace('>', "init")) else {
        return Ok(());
    };
    if link.stream_state(&config.name).await?.state.last_sequence > 0 {
        return Ok(());
    }
    let stored = link.publish(subject, HeaderMap::new(), Bytes::new()).await;
    stored.map_err(|failure| failure.into_error("preparing the streams"))?;
    link.purge(&config.name, None, None).await.map(drop)
}

async fn create(link: &Link, config: &Config) -> Result<(), Error> {
    ask(link, "CREATE", config).await
}

async fn update(link: &Link, config: &Config) -> Result<(), Error> {
    ask(link, "UPDATE", config).await
}

async fn ask(link: &Link, what: &str, config: &Config) -> Result<(), Error> {
    let body =
        serde_json::to_value(config).expect("the configuration of a stream can be written as JSON");
    let answer: Result<serde_json::Value, Error> = link
        .api(&format!("STREAM.{what}.{}", config.name), &body)
        .await;
    answer.map(drop)
}
