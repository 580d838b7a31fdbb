//! A host that goes wrong, at every octet and in every way that it can.
//!
//! Three messages go to it one after another. It is well-behaved up to one place in all that it says, and then deviates in one
//! way; on other connections it is well-behaved. Whatever it does, each message has one outcome; it is told as delivered if and only if the host
//! has said so after the whole content had come; there is one final dot for a permit, and none without; and what was open
//! where the host went wrong is used for nothing more.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::dispatch::scheduler_item::Kind as ToSender;
use proto::dispatch::sender_item::Kind as FromSender;
use proto::dispatch::{Assignment, CloseSlot, DeliveryRef, Report};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::play::{CONTENT, Messages, Stream, delivery, replies, with};

/// What the host says when all is well, in its order: banner, EHLO, and MAIL, RCPT, DATA, dot for each message.
const BANNER: &str = "220 mx.example\r\n";
const MAIL: &str = "250 2.1.0 ok\r\n";
const RCPT: &str = "250-2.1.5 who\r\n250 2.1.5 ok\r\n";
const DATA: &str = "354 go on\r\n";
const DOT: &str = "250 2.0.0 kept\r\n";

fn hello(pipelining: bool) -> &'static str {
    match pipelining {
        true => "250-mx.example\r\n250-SIZE\r\n250 PIPELINING\r\n",
        false => "250-mx.example\r\n250 SIZE\r\n",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deviation {
    /// The rest comes, but late.
    Late,
    /// The connection is closed in order.
    Close,
    /// It is reset.
    Reset,
    /// Nothing is said any more, and nothing read.
    Silence,
    /// Octets that are no reply come before the rest.
    Garbage,
    /// An octet 0 does.
    Zero,
    /// A line end does.
    LineEnd,
    /// Another whole reply does.
    Reply(&'static str),
}

/// At an octet of what the host says on its first connection.
#[derive(Debug, Clone, Copy)]
struct Plan {
    pipelining: bool,
    at: usize,
    what: Deviation,
}

/// What the host saw and said in one case.
#[derive(Debug)]
struct Book {
    plan: Plan,
    connections: usize,
    /// MAIL commands on the first connection.
    mails: usize,
    dots: usize,
    /// Dots that were answered by a reply as it should be.
    taken: usize,
    /// The reply in which it went wrong, as it was said, and whether that was the one to a dot.
    wrong: Option<(Vec<u8>, bool)>,
}

struct Host {
    port: u16,
    case: Arc<Mutex<Option<Arc<Mutex<Book>>>>>,
    task: JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let case = Arc::<Mutex<Option<Arc<Mutex<Book>>>>>::default();
        let cases = case.clone();
        let task = tokio::spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let book = cases.lock().unwrap().clone().expect("a case has begun");
                let (plan, is_first) = {
                    let mut book = book.lock().unwrap();
                    book.connections += 1;
                    (book.plan, book.connections == 1)
                };
                let session = Session {
                    stream: BufStream::new(stream),
                    book,
                    plan,
                    is_first,
                    said: 0,
                };
                served.spawn(session.serve());
            }
        });
        Self { port, case, task }
    }

    fn begin(&self, plan: Plan) -> Arc<Mutex<Book>> {
        let book = Arc::new(Mutex::new(Book {
            plan,
            connections: 0,
            mails: 0,
            dots: 0,
            taken: 0,
            wrong: None,
        }));
        *self.case.lock().unwrap() = Some(book.clone());
        book
    }
}

/// It has ended, one way or another.
struct Over;

struct Session {
    stream: BufStream<TcpStream>,
    book: Arc<Mutex<Book>>,
    plan: Plan,
    is_first: bool,
    said: usize,
}

impl Session {
    async fn serve(mut self) {
        // What is left of the client's is its own matter.
        let _over = self.talk().await;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    async fn talk(&mut self) -> Result<(), Over> {
        self.say(BANNER).await?;
        loop {
            let line = self.line().await?;
            match line.get(..4).unwrap_or_default() {
                "EHLO" => self.say(hello(self.plan.pipelining)).await?,
                "MAIL" => {
                    self.book().mails += usize::from(self.is_first);
                    self.say(MAIL).await?;
                }
                "RCPT" => self.say(RCPT).await?,
                "DATA" => {
                    self.say(DATA).await?;
                    while self.line().await? != ".\r\n" {}
                    self.book().dots += 1;
                    self.say(DOT).await?;
                }
                "RSET" => self.say(MAIL).await?,
                "QUIT" => {
                    self.say("221 bye\r\n").await?;
                    return Err(Over);
                }
                _ => self.say("500 what\r\n").await?,
            }
        }
    }

    async fn line(&mut self) -> Result<String, Over> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(1..) => Ok(line),
            _ => Err(Over),
        }
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), Over> {
        let written = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        written.await.map_err(|_| Over)
    }

    /// Says it, or what comes of it.
    async fn say(&mut self, text: &str) -> Result<(), Over> {
        let octets = text.as_bytes();
        let start = self.said;
        self.said += octets.len();
        let is_wrong = self.is_first && (start..self.said).contains(&self.plan.at);
        if !is_wrong {
            // Noted first: who hears it may be faster.
            self.book().taken += usize::from(text == DOT);
            return self.write(octets).await;
        }
        let (before, after) = octets.split_at(self.plan.at - start);
        let inserted: &[u8] = match self.plan.what {
            Deviation::Late => {
                self.book().wrong = Some((octets.to_vec(), text == DOT));
                self.write(before).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
                return self.write(after).await;
            }
            Deviation::Close | Deviation::Reset | Deviation::Silence => {
                self.book().wrong = Some((before.to_vec(), text == DOT));
                self.write(before).await?;
                return self.leave().await;
            }
            Deviation::Garbage => b"\xff\xfe what is this\r\n",
            Deviation::Zero => b"\0",
            Deviation::LineEnd => b"\r\n",
            Deviation::Reply(reply) => reply.as_bytes(),
        };
        // In one piece: what comes too much is there when the rest is read.
        let said = [before, inserted, after].concat();
        self.book().wrong = Some((said.clone(), text == DOT));
        self.write(&said).await
    }

    async fn leave(&mut self) -> Result<(), Over> {
        match self.plan.what {
            Deviation::Reset => self.stream.get_ref().set_zero_linger().unwrap(),
            Deviation::Silence => {
                // Until the client has had enough.
                while let Ok(line) = self.line().await {
                    let mut book = self.book();
                    book.dots += usize::from(line == ".\r\n");
                    book.mails += usize::from(line.starts_with("MAIL"));
                }
            }
            _ => {}
        }
        Err(Over)
    }
}

/// The code of what was said, when that is one reply with nothing behind it; the code of its first reply, and `false`, when there
/// is more. `None` when it does not begin with a whole reply.
fn code_of(said: &[u8]) -> Option<(u32, bool)> {
    let said = String::from_utf8_lossy(said);
    let mut code = None;
    for line in said.split_inclusive('\n') {
        let text = line.strip_suffix('\n')?;
        let digits = text.get(..3)?;
        let known = code.get_or_insert_with(|| digits.to_owned());
        let is_code = digits
            .parse::<u32>()
            .is_ok_and(|code| (200..600).contains(&code));
        if *known != digits || !is_code {
            return None;
        }
        match text.as_bytes().get(3) {
            Some(b' ') => {
                let whole = said.ends_with(line) && said.matches(line).count() == 1;
                return Some((digits.parse().ok()?, whole));
            }
            Some(b'-') => {}
            _ => return None,
        }
    }
    None
}

/// Assigns a message, and plays the scheduler until it is reported; what the sender asks for is granted, or comes too late.
async fn carry(stream: &mut Stream, slot: u32, number: u32, permitted: bool) -> Report {
    let delivery = DeliveryRef {
        attempt: number,
        ..delivery(1, &[0])
    };
    let assignment = Assignment {
        delivery: Some(delivery.clone()),
        lane: 1,
        slot,
        sequence: 1,
        index: 0,
        domain: "dest.example".into(),
    };
    stream.send(ToSender::Assignment(assignment)).await;
    let mut begun = 0;
    loop {
        match stream.next_of_delivery().await {
            FromSender::Begin(begin) => {
                assert_eq!(begin.delivery.as_ref(), Some(&delivery));
                begun += 1;
                assert_eq!(begun, 1, "one begin for an attempt");
                // A permit that has run out when it comes is none.
                let valid_ms = if permitted { 60_000 } else { 0 };
                stream.permit_for(&delivery, valid_ms).await;
            }
            FromSender::Report(report) => {
                // The only one: another would be taken for the next message's.
                assert_eq!(report.delivery.as_ref(), Some(&delivery));
                assert_eq!(report.recipients.len(), 1);
                stream.stored(&delivery).await;
                return report;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Three messages to a host with a plan.
async fn play(host: &Host, stream: &mut Stream, slot: u32, plan: Plan, permitted: bool) {
    let book = host.begin(plan);
    let look = || {
        let book = book.lock().unwrap();
        (book.dots, book.taken, book.mails, book.wrong.clone())
    };
    for number in 0..3 {
        let (dots_before, taken_before, mails_before, wrong_before) = look();
        let report = carry(stream, slot, slot * 4 + number, permitted).await;
        let (dots, taken, mails, wrong) = look();
        let said = replies(&report);
        let context = || {
            format!(
                "{plan:?}, message {number}: {said:?}, {:?}",
                book.lock().unwrap()
            )
        };

        assert!(
            dots - dots_before <= usize::from(permitted),
            "{}",
            context()
        );
        assert!(report.dot_sent || dots == dots_before, "{}", context());
        assert!(permitted || !report.dot_sent, "{}", context());

        let delivered = said[0].1 == "final_dot" && said[0].2 / 100 == 2;
        let goes_wrong = wrong_before.is_none() && wrong.is_some();
        // What the host has answered to the dot, if it has.
        let answered = match &wrong {
            _ if taken > taken_before => Some(250),
            Some((said, true)) if goes_wrong => code_of(said).map(|(code, _)| code),
            _ => None,
        };
        let is_taken = answered.is_some_and(|code| code / 100 == 2);
        assert_eq!(delivered, is_taken, "{}", context());
        let is_well = !goes_wrong || plan.what == Deviation::Late;
        assert!(delivered || !permitted || !is_well, "{}", context());

        // The connection on which the host has said something that is no reply, or too much, is used no more.
        let is_clean = |(said, _): &(Vec<u8>, bool)| code_of(said).is_some_and(|(_, whole)| whole);
        let is_lost = wrong_before.as_ref().is_some_and(|wrong| !is_clean(wrong));
        assert!(!is_lost || mails == mails_before, "{}", context());
    }
    assert!(look().3.is_some(), "{plan:?} is never come to");
    let close = CloseSlot { lane: 1, slot };
    stream.send(ToSender::CloseSlot(close)).await;
}

/// Octets that the host says for two messages on one connection.
fn octets(pipelining: bool) -> usize {
    let each = MAIL.len() + RCPT.len() + DATA.len() + DOT.len();
    BANNER.len() + hello(pipelining).len() + 2 * each
}

/// Where its replies begin.
fn replies_of(pipelining: bool) -> Vec<usize> {
    let mut starts = vec![0];
    let message = [MAIL, RCPT, DATA, DOT];
    for reply in [BANNER, hello(pipelining)]
        .into_iter()
        .chain(message)
        .chain(message)
    {
        starts.push(starts.last().unwrap() + reply.len());
    }
    starts.pop();
    starts
}

async fn play_all(plans: Vec<Plan>, permitted: bool, command_timeout_ms: u32) {
    let mut messages = Messages::default();
    messages.add(1, &["b@dest.example"], CONTENT);
    let (_started, _scheduler, mut stream) = with(messages).await;
    let host = Host::start().await;
    stream
        .lane(host.port, |lane| {
            lane.command_timeout_ms = command_timeout_ms;
            lane.data_timeout_ms = command_timeout_ms;
            lane.final_reply_timeout_ms = command_timeout_ms;
        })
        .await;
    for (slot, plan) in (0..).zip(plans) {
        play(&host, &mut stream, slot, plan, permitted).await;
    }
}

fn plans(pipelining: bool, places: &[usize], deviations: &[Deviation]) -> Vec<Plan> {
    let plan = |at| {
        deviations.iter().map(move |what| Plan {
            pipelining,
            at,
            what: *what,
        })
    };
    places.iter().copied().flat_map(plan).collect()
}

const LONG_MS: u32 = 60_000;

/// Those of which the sender hears at once: two at each octet, and of the others one, in turns.
fn at_every_octet(pipelining: bool) -> Vec<Plan> {
    let others = [Deviation::Late, Deviation::Reset, Deviation::Zero];
    let plan = |at: usize| {
        let what = [
            Deviation::Close,
            Deviation::Garbage,
            others[at % others.len()],
        ];
        what.map(|what| Plan {
            pipelining,
            at,
            what,
        })
    };
    (0..octets(pipelining)).flat_map(plan).collect()
}

#[tokio::test]
async fn at_every_octet_with_pipelining() {
    play_all(at_every_octet(true), true, LONG_MS).await;
}

#[tokio::test]
async fn at_every_octet_without_pipelining() {
    play_all(at_every_octet(false), true, LONG_MS).await;
}

#[tokio::test]
async fn replies_that_nobody_asked_for_or_that_contradict_themselves() {
    let deviations = [
        Deviation::LineEnd,
        Deviation::Reply("421 4.3.2 going down\r\n"),
        Deviation::Reply("250 ok\r\n"),
        Deviation::Reply("354 go on\r\n"),
        Deviation::Reply("550 no\r\n"),
        Deviation::Reply("250-one\r\n251 two\r\n"),
        Deviation::Reply("250-one\r\n"),
        Deviation::Reply("199 what\r\n"),
        Deviation::Reply("2500 what\r\n"),
        Deviation::Reply("354 go on\r\n250 2.0.0 kept already\r\n"),
    ];
    for pipelining in [true, false] {
        let places = replies_of(pipelining);
        play_all(plans(pipelining, &places, &deviations), true, LONG_MS).await;
    }
}

/// All at the same time, since each takes as long as the time-out.
#[tokio::test]
async fn a_host_that_falls_silent_is_left() {
    let mut cases = tokio::task::JoinSet::new();
    for pipelining in [true, false] {
        let mut places = replies_of(pipelining);
        // In the middle of each reply as well.
        places.extend(places.clone().iter().map(|place| place + 5));
        for plan in plans(pipelining, &places, &[Deviation::Silence]) {
            cases.spawn(play_all(vec![plan], true, 2_000));
        }
    }
    assert_eq!(cases.join_all().await.len(), 40);
}

#[tokio::test]
async fn without_a_permit_no_dot_is_sent_whatever_the_host_says() {
    let deviations = [
        Deviation::Late,
        Deviation::Close,
        Deviation::Garbage,
        Deviation::Reply("354 go on\r\n"),
        Deviation::Reply("250 ok\r\n"),
    ];
    for pipelining in [true, false] {
        let mut places = replies_of(pipelining);
        places.truncate(5);
        play_all(plans(pipelining, &places, &deviations), false, LONG_MS).await;
    }
}
