//! A nats-server of a test's own.

use std::time::Duration;

use kit::NatsServer;
use spool::{Durability, InitOptions, Options, Stores};
use tempfile::TempDir;

/// Stopped and removed when dropped.
pub struct Server {
    nats: NatsServer,
    _directory: TempDir,
}

/// Longer than anything that must happen takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Small enough for a test's volume, large enough for its mail.
pub const VOLUME: u64 = 512 << 20;

impl Server {
    /// With `sync_interval: always`.
    pub async fn start() -> Self {
        Self::start_with_sync("always").await
    }

    /// With another `sync_interval`.
    pub async fn start_with_sync(interval: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let nats = NatsServer::start_with_sync(directory.path(), interval);
        Self {
            nats: nats.await.unwrap(),
            _directory: directory,
        }
    }

    /// Starts it again with what it has stored.
    pub async fn restart(&mut self) {
        self.nats.restart().await.unwrap();
    }

    /// SIGKILL: what it has not written is gone.
    pub fn kill(&mut self) {
        self.nats.kill9().unwrap();
    }

    pub fn url(&self) -> String {
        self.nats.url()
    }

    pub fn options(&self, durability: Durability) -> Options {
        Options {
            url: self.url(),
            access: spool::Access::default(),
            monitor: Some(self.nats.monitor_url()),
            name: "test".to_owned(),
            durability,
        }
    }

    pub async fn connect(&self) -> Stores {
        Stores::connect(&self.options(Durability::Strict))
            .await
            .unwrap()
    }

    /// Connected, created and opened.
    pub async fn stores(&self, partitions: u32) -> Stores {
        self.stores_of(partitions, VOLUME).await
    }

    pub async fn stores_of(&self, partitions: u32, volume_bytes: u64) -> Stores {
        let stores = self.connect().await;
        stores
            .init(&InitOptions {
                partitions,
                replicas: 1,
                volume_bytes,
                transcripts: spool::TranscriptBounds::USUAL,
            })
            .await
            .unwrap();
        stores.open().await.unwrap();
        stores
    }

    /// A plain client, to do what the crate does not.
    pub async fn plain(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(async_nats::connect(self.url()).await.unwrap())
    }
}
