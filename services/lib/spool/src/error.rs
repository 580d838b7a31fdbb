//! What can go wrong with the stores as a whole.

/// A store can't be reached, is not what it should be, or refused a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No NATS server answers at the address.
    #[error("no NATS server at {url}: {detail}")]
    Unreachable {
        /// The address, without credentials.
        url: String,
        /// What the connection attempt said.
        detail: String,
    },
    /// What the server wants to see can't be read.
    #[error("access to NATS: {detail}")]
    Access {
        /// The file and what is wrong with it.
        detail: String,
    },
    /// The server gave no answer in time, or the connection broke; the effect is unknown.
    #[error("{what}: no answer from NATS: {detail}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What the client said.
        detail: String,
    },
    /// JetStream refused a request.
    #[error("{what}: refused by JetStream: {detail} (error {code})")]
    Refused {
        /// What was tried.
        what: String,
        /// JetStream's err_code.
        code: u64,
        /// JetStream's description.
        detail: String,
    },
    /// There is no installation on this server.
    #[error(
        "this NATS server holds no installation of Staffetta ({detail}); `staffetta init` creates one"
    )]
    NotInitialized {
        /// What was found instead.
        detail: String,
    },
    /// A stream or bucket that the installation has is not there. Never re-created: an empty store
    /// in its place would pass off lost mail as delivered.
    #[error(
        "stream {stream} is missing although this installation has it: the store was lost or replaced; \
         restore it from a backup, or give the partition up with a new installation"
    )]
    MissingStream {
        /// Name of the stream.
        stream: String,
    },
    /// A stream of that name exists, but was not made by the `init` of this installation.
    #[error("stream {stream} does not belong to this installation: {detail}")]
    ForeignStream {
        /// Name of the stream.
        stream: String,
        /// Why it is taken for a foreign one.
        detail: String,
    },
    /// A stream's configuration is not what `init` made.
    #[error("stream {stream} is configured differently than `staffetta init` made it: {detail}")]
    StreamConfiguration {
        /// Name of the stream.
        stream: String,
        /// The difference.
        detail: String,
    },
    /// `init` with another number of partitions than the installation has.
    #[error(
        "this installation has {existing} partitions and keeps that number for life; {asked} were asked for"
    )]
    PartitionCount {
        /// What is there.
        existing: u32,
        /// What was asked for.
        asked: u32,
    },
    /// The stores were written by a release that uses a format unknown to this one.
    #[error("the stores have format {found}, this release reads up to {known}")]
    UnknownFormat {
        /// What is there.
        found: u32,
        /// Newest known.
        known: u32,
    },
    /// An option of `init` is out of range.
    #[error("{0}")]
    InvalidOption(String),
    /// The server is too old.
    #[error(
        "nats-server {found} is too old: with {replicas} replica(s) at least {needed} is needed"
    )]
    ServerVersion {
        /// Its version.
        found: String,
        /// The oldest that will do.
        needed: &'static str,
        /// Replicas of the streams.
        replicas: u32,
    },
    /// The server's max_payload is below 8 MiB.
    #[error(
        "the NATS server's max_payload is {found} bytes; set `max_payload: 8MB` in its configuration"
    )]
    MaxPayload {
        /// Its value, bytes.
        found: usize,
    },
    /// Strict durability was asked for and the server gives less.
    #[error(
        "durability is strict, but {detail}; set `sync_interval: always` in the `jetstream` block of the NATS \
         server's configuration, or ask for `durability: relaxed` by name"
    )]
    NotDurable {
        /// What is weaker.
        detail: String,
    },
    /// The monitoring endpoint does not answer, or not as nats-server does.
    #[error("the monitoring endpoint {url} of the NATS server: {detail}")]
    Monitor {
        /// The endpoint.
        url: String,
        /// What went wrong.
        detail: String,
    },
    /// A stored value can't be read.
    #[error("{what} is damaged: {detail}")]
    Damaged {
        /// Which value.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The key can't be used in a bucket: only letters, digits, "-" and "_".
    #[error("{0:?} can't be used as a key: only letters, digits, \"-\" and \"_\"")]
    InvalidKey(String),
}

/// Refusals of a cluster that is just starting: not all answered, no server to place a stream on, JetStream not
/// available, not the leader, the stream or consumer is offline.
const CLUSTER_NOT_READY: [u64; 6] = [10004, 10005, 10008, 10009, 10118, 10119];

impl Error {
    /// Whether waiting may help: the servers are away or just starting, not wrong. What a person must do first
    /// (`init`) is not among it.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Monitor { .. } => true,
            Self::Refused { code, .. } => CLUSTER_NOT_READY.contains(code),
            _ => false,
        }
    }
}
