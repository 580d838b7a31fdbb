//! The dialogue with a milter: a connection for each message.

use std::time::Duration;

use bytes::Bytes;
use config::ScannerAddress;
use scan::milter::{Agreed, Dialogue, Error, Heard, Next, Packet, PacketDecoder, QUIT, offer};
use scan::{Envelope, Opinion, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::judgement::Failure;
use super::wire::{self, CLOSED, Patience, Wire};

/// Commands that need no answer are sent when they are longer together, octets.
const BATCH: usize = 64 * 1024;
/// To say goodbye.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What libmilter does when it is not allowed what it needs.
const CLOSED_AT_ONCE: &str = "it closed the connection at the negotiation: \
    it may want to change messages in ways that are not offered";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error.to_string().into())
    }
}

struct Talk<'a> {
    wire: Wire,
    packets: PacketDecoder,
    patience: &'a mut Patience,
}

impl Talk<'_> {
    async fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let sent = self.patience.spend(self.wire.write_all(out)).await?;
        out.clear();
        sent.map_err(|error| wire::broken(&error))
    }

    async fn receive(&mut self, if_closed: &'static str) -> Result<Packet, Failure> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(packet) = self.packets.next()? {
                return Ok(packet);
            }
            match self.patience.spend(self.wire.read(&mut buffer)).await? {
                Ok(0) => return Err(Failure::Broken(if_closed.into())),
                Ok(count) => self.packets.push(&buffer[..count]),
                Err(error) => return Err(wire::broken(&error)),
            }
        }
    }
}

pub(super) async fn scan(
    address: &ScannerAddress,
    envelope: &Envelope,
    patience: &mut Patience,
    pieces: &mut mpsc::Receiver<Bytes>,
) -> Result<Verdict, Failure> {
    let wire = wire::connect(address, patience).await?;
    let mut talk = Talk {
        wire,
        packets: PacketDecoder::new(),
        patience,
    };
    let verdict = converse(&mut talk, envelope, pieces).await?;
    // Best effort: it has decided, and hears of the end by the connection's anyway.
    let goodbye = timeout(LAST_WORDS, talk.wire.write_all(QUIT)).await;
    if !matches!(goodbye, Ok(Ok(()))) {
        tracing::trace!("the milter left first");
    }
    Ok(verdict)
}

async fn converse(
    talk: &mut Talk<'_>,
    envelope: &Envelope,
    pieces: &mut mpsc::Receiver<Bytes>,
) -> Result<Verdict, Failure> {
    let mut out = Vec::new();
    offer(&mut out);
    talk.send(&mut out).await?;
    let answer = talk.receive(CLOSED_AT_ONCE).await?;
    if answer.code != b'O' {
        return Err(Error::Negotiation.into());
    }
    let mut looked = false;
    let mut dialogue = Dialogue::new(Agreed::read(&answer.data)?, envelope);
    loop {
        match dialogue.next(&mut out) {
            Next::Content => {
                // It can work on what it has while the client sends more.
                talk.send(&mut out).await?;
                match pieces.recv().await {
                    Some(piece) => dialogue.content(piece),
                    None => dialogue.end(),
                }
                if !std::mem::replace(&mut looked, true) && dialogue.has_large_field() {
                    return Ok(Opinion::TooLarge.into());
                }
            }
            Next::Tell if out.len() < BATCH => {}
            Next::Tell => talk.send(&mut out).await?,
            Next::Ask => {
                talk.send(&mut out).await?;
                loop {
                    let packet = talk.receive(CLOSED).await?;
                    match dialogue.heard(&packet)? {
                        Heard::More => {}
                        Heard::GoOn => break,
                        Heard::Decided(verdict) => return Ok(verdict),
                    }
                }
            }
        }
    }
}
