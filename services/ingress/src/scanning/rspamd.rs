//! The dialogue with Rspamd, which closes each connection after its reply.

use bytes::Bytes;
use config::ScannerAddress;
use scan::http::{AFTER_CHUNK, END_OF_CHUNKS, Response, ResponseDecoder, chunk_head};
use scan::rspamd::{read_reply, request_head};
use scan::{Envelope, Opinion, Verdict};
use tokio::sync::mpsc;

use super::judgement::Failure;
use super::wire::{self, Hearing, Patience};

impl Hearing for ResponseDecoder {
    fn hear(&mut self, octets: &[u8]) -> Result<Option<Verdict>, Failure> {
        let response = self.decode(octets).map_err(|error| broken(&error))?;
        response.map(|response| read(&response)).transpose()
    }

    fn end(&mut self) -> Result<Verdict, Failure> {
        let response = self.end().map_err(|error| broken(&error))?;
        read(&response)
    }
}

fn broken(error: &dyn std::error::Error) -> Failure {
    Failure::Broken(format!("its response can't be used: {error}").into())
}

fn read(response: &Response) -> Result<Verdict, Failure> {
    match response.status {
        200 => read_reply(&response.content).map_err(|error| broken(&error)),
        413 => Ok(Opinion::TooLarge.into()),
        status => Err(Failure::Broken(
            format!("it answers with status {status}").into(),
        )),
    }
}

pub(super) async fn scan(
    address: &ScannerAddress,
    envelope: &Envelope,
    patience: &mut Patience,
    pieces: &mut mpsc::Receiver<Bytes>,
) -> Result<Verdict, Failure> {
    let mut wire = wire::connect(address, patience).await?;
    let mut response = ResponseDecoder::new();
    let mut head = request_head(envelope);
    while let Some(piece) = pieces.recv().await {
        if piece.is_empty() {
            continue;
        }
        head.extend_from_slice(chunk_head(piece.len()).as_bytes());
        for octets in [&head[..], &piece] {
            let early = wire::send(&mut wire, octets, patience, &mut response).await?;
            if let Some(verdict) = early {
                return unless_accepted(verdict);
            }
        }
        head = AFTER_CHUNK.to_vec();
    }
    head.extend_from_slice(END_OF_CHUNKS);
    let early = wire::send(&mut wire, &head, patience, &mut response).await?;
    match early {
        Some(verdict) => unless_accepted(verdict),
        None => wire::hear(&mut wire, patience, &mut response).await,
    }
}

/// Before everything was sent, nothing can be accepted.
fn unless_accepted(verdict: Verdict) -> Result<Verdict, Failure> {
    match verdict.opinion {
        Opinion::Clean | Opinion::Spam => Err(Failure::Broken("it answered before the end".into())),
        _ => Ok(verdict),
    }
}
