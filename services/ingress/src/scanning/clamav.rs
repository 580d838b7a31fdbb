//! The dialogue with clamd.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use config::ScannerAddress;
use scan::clamav::{BEGIN, END_OF_STREAM, ReplyDecoder, STREAM, chunk_head};
use scan::{Opinion, Verdict};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::judgement::Failure;
use super::wire::{self, CLOSED, Hearing, Patience, Wire};

/// clamd ends sessions that rest for half a minute (IdleTimeout).
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Sessions that rest.
#[derive(Default)]
pub(super) struct Sessions {
    resting: Mutex<Vec<(Session, Instant)>>,
}

/// A connection in which several messages follow each other.
struct Session {
    wire: Wire,
    /// Messages so far.
    messages: u64,
}

impl Sessions {
    /// One that rests.
    fn take(&self) -> Option<Session> {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.retain(|(_, since)| since.elapsed() < LONGEST_REST);
        resting.pop().map(|(session, _)| session)
    }

    /// No more than have been open at the same time rest here.
    fn put(&self, session: Session) {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.push((session, Instant::now()));
    }
}

impl Hearing for ReplyDecoder {
    fn hear(&mut self, octets: &[u8]) -> Result<Option<Verdict>, Failure> {
        self.decode(octets)
            .map_err(|error| Failure::Broken(error.to_string().into()))
    }

    fn end(&mut self) -> Result<Verdict, Failure> {
        Err(Failure::Broken(CLOSED.into()))
    }
}

pub(super) async fn scan(
    address: &ScannerAddress,
    sessions: &Sessions,
    patience: &mut Patience,
    pieces: &mut mpsc::Receiver<Bytes>,
) -> Result<Verdict, Failure> {
    let first = pieces.recv().await.unwrap_or_default();
    if let Some(mut session) = sessions.take() {
        let mut has_more = false;
        match session
            .stream(&first, pieces, &mut has_more, patience)
            .await
        {
            // It may have ended just now: the same again, unless more of the message is gone with it.
            Err(Failure::Broken(_)) if !has_more => {}
            outcome => return rest(session, sessions, outcome),
        }
    }
    let wire = wire::connect(address, patience).await?;
    let mut session = Session { wire, messages: 0 };
    let outcome = session.stream(&first, pieces, &mut false, patience).await;
    rest(session, sessions, outcome)
}

/// The session can be used again after a message that was looked at.
fn rest(
    session: Session,
    sessions: &Sessions,
    outcome: Result<Verdict, Failure>,
) -> Result<Verdict, Failure> {
    let verdict = outcome?;
    if matches!(verdict.opinion, Opinion::Clean | Opinion::Infected(_)) {
        sessions.put(session);
    }
    Ok(verdict)
}

impl Session {
    /// Shows one message. `has_more` is set when more than the first piece of it was taken.
    async fn stream(
        &mut self,
        first: &Bytes,
        pieces: &mut mpsc::Receiver<Bytes>,
        has_more: &mut bool,
        patience: &mut Patience,
    ) -> Result<Verdict, Failure> {
        let mut head = if self.messages == 0 {
            BEGIN.to_vec()
        } else {
            Vec::new()
        };
        head.extend_from_slice(STREAM);
        self.messages += 1;
        let mut reply = ReplyDecoder::new(self.messages);
        let mut piece = first.clone();
        loop {
            if !piece.is_empty() {
                head.extend_from_slice(&chunk_head(u32::try_from(piece.len()).unwrap_or(u32::MAX)));
            }
            for octets in [&head[..], &piece] {
                let early = wire::send(&mut self.wire, octets, patience, &mut reply).await?;
                if let Some(verdict) = early {
                    return Ok(unless_clean(verdict));
                }
            }
            head.clear();
            piece = match pieces.recv().await {
                Some(piece) => piece,
                None => break,
            };
            *has_more = true;
        }
        let early = wire::send(&mut self.wire, END_OF_STREAM, patience, &mut reply).await?;
        match early {
            Some(verdict) => Ok(unless_clean(verdict)),
            None => wire::hear(&mut self.wire, patience, &mut reply).await,
        }
    }
}

/// Before everything was sent, nothing can be clean.
fn unless_clean(verdict: Verdict) -> Verdict {
    match verdict.opinion {
        Opinion::Clean => Opinion::Unable("it answered before the end".to_owned()).into(),
        _ => verdict,
    }
}
