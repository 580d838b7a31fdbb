//! The signers, as the commands ask them.

use std::time::Duration;

use anyhow::Context;
use proto::signer::signer_client::SignerClient;
use proto::signer::{KeyState, KeysRequest};
use tonic::transport::Endpoint;

use crate::cli::Global;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Where one is when nothing says so.
const BY_DEFAULT: &str = "http://127.0.0.1:7102";

/// Where to reach a signer.
#[derive(Debug, clap::Args)]
pub(crate) struct Signer {
    /// Any signer, `host:port` [default: the first of sender.signers of the bootstrap file, else 127.0.0.1:7102]
    #[arg(long, value_name = "ADDRESS")]
    signer: Option<String>,
}

impl Signer {
    /// How the keys of a domain stand, or of all.
    pub(crate) async fn keys(
        &self,
        global: &Global,
        domain: Option<&str>,
    ) -> anyhow::Result<Vec<KeyState>> {
        let url = self.url(global)?;
        let endpoint = Endpoint::from_shared(url.clone())
            .with_context(|| format!("the signer at {url}"))?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        let channel = endpoint.connect().await;
        let channel = channel.with_context(|| format!("no signer answers at {url}"))?;
        let mut signer = SignerClient::new(channel);
        let mut keys: Vec<KeyState> = Vec::new();
        loop {
            let after = keys.last().map(|key| key.domain.clone());
            let request = KeysRequest {
                domain: domain.unwrap_or_default().to_owned(),
                after: after.unwrap_or_default(),
            };
            let answer = signer.keys(request).await;
            let answer = answer.with_context(|| format!("the signer at {url}"))?;
            let answer = answer.into_inner();
            let ends = !answer.more || answer.keys.is_empty();
            keys.extend(answer.keys);
            if ends {
                return Ok(keys);
            }
        }
    }

    fn url(&self, global: &Global) -> anyhow::Result<String> {
        if let Some(signer) = &self.signer {
            return Ok(if signer.contains("://") {
                signer.clone()
            } else {
                format!("http://{signer}")
            });
        }
        let configured = global.given_config().is_some() || global.config_path().exists();
        if configured {
            let bootstrap = global.bootstrap()?;
            if let Some(url) = bootstrap.sender.signers.first() {
                return Ok(url.clone());
            }
        }
        Ok(BY_DEFAULT.to_owned())
    }
}
