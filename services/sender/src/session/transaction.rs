//! One transaction: MAIL, RCPT, DATA, the content, and the final dot under its permit.
//!
//! When every recipient is refused and the host answers the pipelined DATA with 354 all the same, the
//! connection is closed. RFC 2920 section 3.1 would have a lone dot sent; here no dot goes out without a
//! permit, without exception, and such hosts are rare.
//!
//! Begin is reported before MAIL, so that the permit comes while host and sender talk. Content that is read in pieces may
//! be on its way for longer than a permit lasts, or turn out to be unreadable: there begin is reported when only the dot
//! is left. What is broken off before is not in doubt.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use proto::journal::{Reply, Stage};
use smtp::DataEncoder;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::commands::{FINAL_DOT, Mail, Wire};
use super::connection::{Broken, Connection};
use super::{own_words, reported};
use crate::attempt::{Denied, Gone};
use crate::content::{Pieces, Unreadable};
use crate::desk::{Hold, PermitAnswer};
use crate::lane::Timeouts;
use crate::metrics::Metrics;

/// How long a transaction waits for its permit before it is given up.
const PERMIT_PATIENCE: Duration = Duration::from_secs(30);
/// Up to this size the content waits for the permit, to go out with the final dot in one piece: it would
/// arrive no earlier otherwise.
const ONE_PIECE: usize = 64 * 1024;
/// Time for the reply of a host that broke the connection while the content was sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a transaction ended.
pub(crate) enum Ended {
    Done(Outcome),
    /// The delivery is not ours any more; no dot was sent.
    Gone,
    /// The rest of the content can't be read; the connection is in the middle of it.
    Unreadable(Unreadable),
    /// The host had closed the idle connection before it answered anything: nothing was decided, a new
    /// connection will do.
    Lost,
}

/// What the recipients got.
pub(crate) struct Outcome {
    /// In the order of the mail's recipients.
    pub replies: Vec<Reply>,
    pub dot_sent: bool,
    /// There was no permit.
    pub aborted: bool,
    /// The connection can be used again.
    pub keep: bool,
}

/// Replies so far.
struct Results {
    replies: Vec<Option<Reply>>,
    dot_sent: bool,
    aborted: bool,
}

impl Results {
    fn new(recipients: usize) -> Self {
        Self {
            replies: vec![None; recipients],
            dot_sent: false,
            aborted: false,
        }
    }

    fn none_open(&self) -> bool {
        self.replies.iter().all(Option::is_some)
    }

    /// The same for everyone who has no reply yet, and the end.
    fn end(self, keep: bool, reply: &Reply) -> Ended {
        let replies = self
            .replies
            .into_iter()
            .map(|known| known.unwrap_or_else(|| reply.clone()))
            .collect();
        Ended::Done(Outcome {
            replies,
            dot_sent: self.dot_sent,
            aborted: self.aborted,
            keep,
        })
    }

    fn broken(self, stage: Stage, broken: &Broken) -> Ended {
        self.end(false, &own_words(stage, 0, "", &broken.to_string()))
    }

    fn denied(mut self, why: Denied) -> Ended {
        self.aborted = true;
        self.end(false, &own_words(Stage::Prepare, 0, "", why.text()))
    }
}

/// The scheduler's ear: what it hears of a transaction while it lasts.
pub(crate) struct Said<'a> {
    hold: &'a Hold,
    /// It hears of the dot, or so long after MAIL that the message is still under way.
    left_within: Option<Duration>,
    has_left: AtomicBool,
}

impl<'a> Said<'a> {
    pub fn new(hold: &'a Hold, left_within: Option<Duration>) -> Self {
        Self {
            hold,
            left_within,
            has_left: AtomicBool::new(false),
        }
    }

    fn left(&self) {
        if self.left_within.is_some() && !self.has_left.swap(true, Ordering::Relaxed) {
            self.hold.left();
        }
    }
}

/// What receives the permit, once the begin is reported.
pub(crate) type PermitReceiver = oneshot::Receiver<PermitAnswer>;

/// Reports the begin, if that is not done yet.
fn begun<'a>(
    permit: &'a mut Option<PermitReceiver>,
    said: &Said<'_>,
    timeouts: Timeouts,
) -> Result<&'a mut PermitReceiver, Gone> {
    match permit {
        Some(receiver) => Ok(receiver),
        None => Ok(permit.insert(said.hold.begin(timeouts.final_reply)?)),
    }
}

/// Carries the mail over the connection. `permit` is set with the begin, and stays for a second try.
pub(crate) async fn transact(
    connection: &mut Connection,
    mail: &mut Mail,
    timeouts: Timeouts,
    said: &Said<'_>,
    permit: &mut Option<PermitReceiver>,
    metrics: &Metrics,
) -> Ended {
    if mail.is_in_pieces() {
        said.hold.under_way();
    } else if begun(permit, said, timeouts).is_err() {
        return Ended::Gone;
    }
    let results = Results::new(mail.recipients.len());
    if let Some(obstacle) = mail.obstacle(connection.capabilities) {
        return results.end(true, &obstacle);
    }
    // MAIL goes out when the time begins.
    if let Err(broken) = reset(connection, timeouts.command).await {
        return unopened(connection, results, &broken);
    }
    let mut dialogue = pin!(converse(
        connection, mail, timeouts, said, permit, results, metrics
    ));
    if let Some(patience) = said.left_within {
        match timeout(patience, &mut dialogue).await {
            Ok(ended) => return ended,
            Err(_) => said.left(),
        }
    }
    dialogue.await
}

async fn converse(
    connection: &mut Connection,
    mail: &mut Mail,
    timeouts: Timeouts,
    said: &Said<'_>,
    permit: &mut Option<PermitReceiver>,
    mut results: Results,
    metrics: &Metrics,
) -> Ended {
    let pipelining = connection.capabilities.pipelining;

    // MAIL, and with PIPELINING (RFC 2920) all the rest up to DATA.
    let first = match open_transaction(connection, mail, timeouts.command).await {
        Ok(reply) => reply,
        Err(broken) => return unopened(connection, results, &broken),
    };
    connection.transactions += 1;
    if !first.is_positive() {
        let answers = if pipelining {
            mail.recipients.len() + 1
        } else {
            0
        };
        let keep = first.code != 421 && skip_refused(connection, answers, timeouts.data).await;
        return results.end(keep, &reported(Stage::Mail, &first));
    }

    for (index, recipient) in mail.recipients.iter().enumerate() {
        let until = Instant::now() + timeouts.command;
        let capabilities = connection.capabilities;
        let answer = if pipelining {
            connection.reply(until).await
        } else {
            connection
                .exchange(|out| mail.write_rcpt(recipient, capabilities, out), until)
                .await
        };
        match answer {
            Ok(reply) if reply.is_positive() => {}
            Ok(reply) if reply.code == 421 => {
                return results.end(false, &reported(Stage::Rcpt, &reply));
            }
            Ok(reply) => results.replies[index] = Some(reported(Stage::Rcpt, &reply)),
            Err(broken) => return results.broken(Stage::Rcpt, &broken),
        }
    }

    let nobody_left = results.none_open();
    connection.needs_reset = true;
    if nobody_left && !pipelining {
        return results.end(true, &Reply::default());
    }
    let until = Instant::now() + timeouts.data;
    let answer = if pipelining {
        connection.reply(until).await
    } else {
        connection.exchange(smtp::write::data, until).await
    };
    match answer {
        Err(broken) => results.broken(Stage::Data, &broken),
        Ok(reply) if reply.code == 354 && nobody_left => results.end(false, &Reply::default()),
        Ok(reply) if reply.code == 354 => {
            send_content(connection, mail, timeouts, said, permit, results, metrics).await
        }
        Ok(reply) => {
            let keep = reply.code >= 400 && reply.code != 421;
            results.end(keep, &reported(Stage::Data, &reply))
        }
    }
}

/// The connection broke before there was a reply to MAIL. One that has served before was closed meanwhile: another is tried.
fn unopened(connection: &Connection, results: Results, broken: &Broken) -> Ended {
    match broken {
        Broken::Closed | Broken::Failed(_) if connection.transactions > 0 => Ended::Lost,
        _ => results.broken(Stage::Mail, broken),
    }
}

/// Ends what a transaction before left open; with PIPELINING that goes out with MAIL.
async fn reset(connection: &mut Connection, timeout: Duration) -> Result<(), Broken> {
    if !connection.needs_reset || connection.capabilities.pipelining {
        return Ok(());
    }
    connection.output.clear();
    smtp::write::rset(&mut connection.output);
    let until = Instant::now() + timeout;
    connection.send(until).await?;
    connection.reply(until).await?;
    connection.needs_reset = false;
    Ok(())
}

/// Sends the commands, and reads the reply to MAIL.
async fn open_transaction(
    connection: &mut Connection,
    mail: &Mail,
    timeout: Duration,
) -> Result<smtp::Reply, Broken> {
    let capabilities = connection.capabilities;
    let out = &mut connection.output;
    out.clear();
    if connection.needs_reset {
        smtp::write::rset(out);
    }
    mail.write_mail(capabilities, out);
    if capabilities.pipelining {
        for recipient in &mail.recipients {
            mail.write_rcpt(recipient, capabilities, out);
        }
        smtp::write::data(out);
    }
    let until = Instant::now() + timeout;
    connection.send(until).await?;
    if connection.needs_reset {
        connection.reply(until).await?;
        connection.needs_reset = false;
    }
    connection.reply(until).await
}

/// Reads the replies to commands that went out behind a MAIL that was refused. `false` when the connection
/// is of no more use: it broke, or the host waits for content.
async fn skip_refused(connection: &mut Connection, answers: usize, timeout: Duration) -> bool {
    for _ in 0..answers {
        match connection.reply(Instant::now() + timeout).await {
            Ok(reply) if reply.code >= 400 && reply.code != 421 => {}
            // A recipient accepted although MAIL was refused: what the host thinks is anyone's guess.
            _ => return false,
        }
    }
    true
}

/// The content, and the dot when the permit allows.
async fn send_content(
    connection: &mut Connection,
    mail: &mut Mail,
    timeouts: Timeouts,
    said: &Said<'_>,
    permit: &mut Option<PermitReceiver>,
    mut results: Results,
    metrics: &Metrics,
) -> Ended {
    let sent = match mail.wire() {
        Wire::Whole(content) => send_whole(connection, content, timeouts.data).await,
        Wire::Pieces(head, pieces) => send_pieces(connection, head, pieces, timeouts.data).await,
    };
    let mut rest = match sent {
        Ok(rest) => rest,
        Err(Unsent::Broken(broken)) => return content_broken(connection, results, &broken).await,
        Err(Unsent::Unreadable(unreadable)) => return Ended::Unreadable(unreadable),
    };

    let waiting = std::time::Instant::now();
    let Ok(permit) = begun(permit, said, timeouts) else {
        return Ended::Gone;
    };
    let until = match timeout(PERMIT_PATIENCE, permit).await {
        Ok(Ok(Ok(until))) => until,
        Ok(Ok(Err(why))) => return results.denied(why),
        Ok(Err(_)) => return results.denied(Denied::StreamBroken),
        Err(_) => return results.denied(Denied::NoPermit),
    };
    metrics.wait_permit.observe(waiting.elapsed().as_secs_f64());
    if let Err(why) = said.hold.may_send_dot() {
        return results.denied(why);
    }

    // What is left must be out before the permit ends: afterwards somebody else may try.
    let sent = connection
        .send_content(&mut rest, timeouts.data, Some(until.into()))
        .await;
    results.dot_sent = !rest.has_remaining();
    if results.dot_sent {
        said.left();
    }
    if let Err(broken) = sent {
        return if results.dot_sent {
            results.broken(Stage::FinalDot, &broken)
        } else {
            content_broken(connection, results, &broken).await
        };
    }
    connection.needs_reset = false;
    match connection
        .reply(Instant::now() + timeouts.final_reply)
        .await
    {
        Ok(reply) => {
            let keep = reply.code != 421 && !reply.is_intermediate();
            results.end(keep, &reported(Stage::FinalDot, &reply))
        }
        Err(broken) => results.broken(Stage::FinalDot, &broken),
    }
}

/// What is to be sent under the permit: the final dot, and what is short enough to go out with it.
type Rest = bytes::buf::Chain<bytes::buf::Chain<Bytes, Bytes>, Bytes>;

/// Why the content is not out.
enum Unsent {
    Broken(Broken),
    Unreadable(Unreadable),
}

async fn send_whole(
    connection: &mut Connection,
    (head, content): (Bytes, Bytes),
    silence: Duration,
) -> Result<Rest, Unsent> {
    let one_piece = head.len() + content.len() <= ONE_PIECE;
    let mut content = head.chain(content);
    if !one_piece {
        let sent = connection.send_content(&mut content, silence, None);
        sent.await.map_err(Unsent::Broken)?;
    }
    Ok(content.chain(Bytes::from_static(FINAL_DOT)))
}

async fn send_pieces(
    connection: &mut Connection,
    head: &Bytes,
    pieces: &mut Pieces,
    silence: Duration,
) -> Result<Rest, Unsent> {
    let mut encoder = DataEncoder::new();
    let mut wire = Vec::new();
    encoder.encode(head, &mut wire);
    while let Some(piece) = pieces.next().await.map_err(Unsent::Unreadable)? {
        encoder.encode(&piece, &mut wire);
        drop(piece);
        connection
            .send_content(&mut wire.as_slice(), silence, None)
            .await
            .map_err(Unsent::Broken)?;
        wire.clear();
    }
    encoder.finish(&mut wire);
    Ok(Bytes::new().chain(Bytes::new()).chain(wire.into()))
}

/// A host that ends the connection in the middle of the content has often said why.
async fn content_broken(connection: &mut Connection, results: Results, broken: &Broken) -> Ended {
    if matches!(broken, Broken::Closed | Broken::Failed(_))
        && let Ok(reply) = connection.reply(Instant::now() + LAST_WORDS).await
        && reply.code >= 400
    {
        return results.end(false, &reported(Stage::Data, &reply));
    }
    results.broken(Stage::Data, broken)
}
