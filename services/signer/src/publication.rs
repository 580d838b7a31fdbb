//! What the DNS shows of the keys: asked again and again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dkim::PublicKey;
use dns::Resolver;
use futures::{StreamExt, stream};
use mail::Domain;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::keyring::Keyring;
use crate::rotation::{Publication, Use};

/// How often it is looked for keys whose time to be asked for has come.
const TICK: Duration = Duration::from_secs(5);
/// A key whose record is not there, or not as it should be, is asked for so often.
const PENDING: Duration = Duration::from_secs(60);
/// One that the DNS gave no answer for.
const WRONG: Duration = Duration::from_secs(300);
/// One whose record was seen.
const SHOWN: Duration = Duration::from_secs(3600);
/// Keys that are asked for in one round, and those at the same time: a DNS without answers must not keep others waiting.
const ROUND: usize = 64;
const AT_ONCE: usize = 16;
/// One look takes no longer: then there is no answer.
const LOOK: Duration = Duration::from_secs(10);

/// A key by domain and selector.
pub(crate) type Name = (Domain, String);

/// An answer.
#[derive(Debug)]
pub(crate) struct Seen {
    pub name: Name,
    /// Text of the record that was looked for: the key may be another by now.
    pub record: Arc<str>,
    /// `Shown` with the time of this answer; `Unknown` when there was none.
    pub publication: Publication,
}

/// When to ask for a key again.
struct Planned {
    record: Arc<str>,
    due: Instant,
    /// There was no answer the last time.
    silent: bool,
}

/// Asks for all keys of the keyring, each in its time, and tells what was seen as it comes. After the first round it tells
/// an empty list. Ends when nobody listens.
pub(crate) async fn ask(
    resolver: Resolver,
    mut keyring: watch::Receiver<Arc<Keyring>>,
    tell: mpsc::Sender<Vec<Seen>>,
) {
    let mut agenda: HashMap<Name, Planned> = HashMap::new();
    let mut is_first = true;
    loop {
        let present = keyring.borrow_and_update().clone();
        let questions = due(&present, &mut agenda, Instant::now());
        if questions.is_empty() && !is_first {
            tokio::select! {
                changed = keyring.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(TICK) => {}
                () = tell.closed() => return,
            }
            continue;
        }
        let answers = stream::iter(questions).map(|question| look(&resolver, question));
        // Those that are there: none waits for a slower one.
        let mut packs = answers.buffer_unordered(AT_ONCE).ready_chunks(AT_ONCE);
        while let Some(pack) = packs.next().await {
            let now = Instant::now();
            for seen in &pack {
                let planned = Planned {
                    record: seen.record.clone(),
                    due: now + again(seen.publication),
                    silent: seen.publication == Publication::Unknown,
                };
                agenda.insert(seen.name.clone(), planned);
            }
            if tell.send(pack).await.is_err() {
                return;
            }
        }
        if is_first && tell.send(Vec::new()).await.is_err() {
            return;
        }
        is_first = false;
    }
}

fn again(publication: Publication) -> Duration {
    match publication {
        Publication::Shown(_) => SHOWN,
        Publication::Absent | Publication::Other => PENDING,
        Publication::Unknown => WRONG,
    }
}

struct Question {
    name: Name,
    record: Arc<str>,
    /// It waits for its record, and the DNS did answer.
    pending: bool,
    /// `None`: it was never asked for.
    due: Option<Instant>,
}

/// Keys whose time has come: those first that wait for it, and of them those that were never asked for, then the longest due.
fn due(keyring: &Keyring, agenda: &mut HashMap<Name, Planned>, now: Instant) -> Vec<Question> {
    let mut questions = Vec::new();
    let mut present = 0;
    for (domain, standing) in keyring.standings() {
        let Some(record) = &standing.record else {
            continue;
        };
        present += 1;
        let name = (domain.clone(), standing.selector.clone());
        let planned = agenda
            .get(&name)
            .filter(|planned| planned.record == *record);
        if planned.is_none_or(|planned| planned.due <= now) {
            // One without an answer takes long, and would come before the others again and again.
            let silent = planned.is_some_and(|planned| planned.silent);
            questions.push(Question {
                pending: standing.used == Use::Pending && !silent,
                due: planned.map(|planned| planned.due),
                name,
                record: record.clone(),
            });
        }
    }
    // Some are no longer configured.
    if agenda.len() > present {
        let names: std::collections::HashSet<Name> = keyring
            .standings()
            .map(|(domain, standing)| (domain.clone(), standing.selector.clone()))
            .collect();
        agenda.retain(|name, _| names.contains(name));
    }
    questions.sort_by_key(|question| (!question.pending, question.due));
    questions.truncate(ROUND);
    questions
}

/// One answer.
async fn look(resolver: &Resolver, question: Question) -> Seen {
    let (domain, selector) = &question.name;
    let name = format!("{selector}._domainkey.{domain}");
    let publication = match tokio::time::timeout(LOOK, resolver.texts(&name)).await {
        Ok(Ok(texts)) => judge(&question.record, texts.iter().map(AsRef::as_ref)),
        Ok(Err(error)) if error.is_permanent() => Publication::Absent,
        Ok(Err(_)) | Err(_) => Publication::Unknown,
    };
    Seen {
        name: question.name,
        record: question.record,
        publication,
    }
}

/// What the records of a name are for the key. With two of them verifiers may take either (RFC 6376 section 3.6.2.2).
fn judge<'a>(record: &str, texts: impl Iterator<Item = &'a str>) -> Publication {
    let Ok(own) = PublicKey::parse(record) else {
        return Publication::Unknown;
    };
    let mut records = texts.filter(|text| text.contains("p="));
    match (records.next(), records.next()) {
        (None, _) => Publication::Absent,
        (Some(only), None) => match PublicKey::parse(only) {
            Ok(shown) if shown.is_same_key(&own) => Publication::Shown(runtime::now_ms()),
            _ => Publication::Other,
        },
        (Some(_), Some(_)) => Publication::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::keyring::Standing;

    /// Keys of one domain by selector, with a record each.
    fn keyring(keys: impl Iterator<Item = (String, Use)>) -> Arc<Keyring> {
        let record: Arc<str> = dkim::Key::from_pem(dkim::generate_ed25519().as_bytes())
            .unwrap()
            .dns_record()
            .into();
        let standings: Vec<Standing> = keys
            .map(|(selector, used)| Standing {
                selector,
                algorithm: "ed25519-sha256",
                key: None,
                used,
                publication: Publication::Unknown,
                record: Some(record.clone()),
                problem: None,
            })
            .collect();
        let domain = Domain::parse("acme.example").unwrap();
        let states = BTreeMap::from([(domain, Arc::from(standings))]);
        let none = |_: &Domain| unreachable!("no domain is configured");
        Arc::new(Keyring::new(&Arc::default(), states, none))
    }

    #[test]
    fn the_longest_due_comes_first_and_silent_ones_starve_nobody() {
        let keys = [
            ("shown", Use::Active),
            ("silent", Use::Pending),
            ("late", Use::Pending),
            ("early", Use::Pending),
            ("new", Use::Pending),
            ("not-yet", Use::Pending),
        ];
        let keyring = keyring(keys.iter().map(|(name, used)| ((*name).to_owned(), *used)));
        let start = Instant::now();
        let mut agenda = HashMap::new();
        for (selector, seconds, silent) in [
            ("shown", 1, false),
            ("silent", 2, true),
            ("late", 4, false),
            ("early", 3, false),
            ("not-yet", 6, false),
        ] {
            let planned = Planned {
                record: keyring
                    .standings()
                    .next()
                    .unwrap()
                    .1
                    .record
                    .clone()
                    .unwrap(),
                due: start + Duration::from_secs(seconds),
                silent,
            };
            let domain = Domain::parse("acme.example").unwrap();
            agenda.insert((domain, selector.to_owned()), planned);
        }
        let questions = due(&keyring, &mut agenda, start + Duration::from_secs(5));
        let order: Vec<&str> = questions.iter().map(|it| it.name.1.as_str()).collect();
        assert_eq!(order, ["new", "early", "late", "shown", "silent"]);
    }

    #[test]
    fn asks_soon_after_an_answer_that_is_not_the_key() {
        assert_eq!(again(Publication::Shown(1)), SHOWN);
        assert_eq!(again(Publication::Absent), PENDING);
        assert_eq!(again(Publication::Other), PENDING);
        assert_eq!(again(Publication::Unknown), WRONG);
    }

    /// Says of every name that there is none, but nothing of names that begin with `d`.
    async fn half_dead(socket: tokio::net::UdpSocket) {
        let mut octets = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut octets).await.unwrap();
            let name = octets[12..length].iter().position(|octet| *octet == 0);
            let end = 12 + name.unwrap() + 5;
            if octets[13] == b'd' {
                continue;
            }
            octets[2] |= 0x80;
            octets[3] = 0x83;
            octets[6..12].fill(0);
            socket.send_to(&octets[..end], from).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_answer_is_told_before_slower_ones() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolver = Resolver::new(&[socket.local_addr().unwrap()]).unwrap();
        tokio::spawn(half_dead(socket));
        let names = (0..AT_ONCE - 1).map(|number| format!("d{number}"));
        let names = names.chain(["live".to_owned()]);
        let (_source, keyring) = watch::channel(keyring(names.map(|name| (name, Use::Pending))));
        let (tell, mut told) = mpsc::channel(1);
        tokio::spawn(ask(resolver, keyring, tell));
        let start = Instant::now();
        let first = told.recv().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(4));
        assert_eq!((first.len(), first[0].name.1.as_str()), (1, "live"));
        assert_eq!(first[0].publication, Publication::Absent);
        let mut dead = 0;
        loop {
            let pack = told.recv().await.unwrap();
            if pack.is_empty() {
                break;
            }
            assert!(pack.iter().all(|it| it.publication == Publication::Unknown));
            dead += pack.len();
        }
        assert_eq!(dead, AT_ONCE - 1);
        assert!(start.elapsed() < LOOK + Duration::from_secs(4));
    }

    #[test]
    fn only_the_key_itself_and_alone_counts() {
        let record = |pem: &str| dkim::Key::from_pem(pem.as_bytes()).unwrap().dns_record();
        let own = record(&dkim::generate_ed25519());
        let other = record(&dkim::generate_ed25519());
        let judge = |texts: &[&str]| judge(&own, texts.iter().copied());
        for texts in [
            &[own.as_str()][..],
            &[&own.replace("v=DKIM1; ", "")],
            &[&format!("{own}; t=s; n=note")],
            &["v=spf1 -all", &own],
        ] {
            assert!(matches!(judge(texts), Publication::Shown(_)), "{texts:?}");
        }
        for texts in [
            &[other.as_str()][..],
            &["v=DKIM1; k=ed25519; p="],
            &["v=DKIM1; p=!"],
            &[&own, &other],
            &[&own, &own],
        ] {
            assert_eq!(judge(texts), Publication::Other, "{texts:?}");
        }
        assert_eq!(judge(&["v=spf1 -all"]), Publication::Absent);
        assert_eq!(judge(&[]), Publication::Absent);
    }
}
