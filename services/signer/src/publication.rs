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
/// A key that waits for its record is asked for so often.
const PENDING: Duration = Duration::from_secs(60);
/// One whose record is not as it should be, or not known.
const WRONG: Duration = Duration::from_secs(300);
/// One whose record was seen.
const SHOWN: Duration = Duration::from_secs(3600);
/// Keys that are asked for in one round, and those at the same time: a DNS without answers must not keep others waiting.
const ROUND: usize = 64;
const AT_ONCE: usize = 16;

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

/// Asks for all keys of the keyring, each in its time, and tells what was seen. Ends when nobody listens.
pub(crate) async fn ask(
    resolver: Resolver,
    mut keyring: watch::Receiver<Arc<Keyring>>,
    tell: mpsc::Sender<Vec<Seen>>,
) {
    let mut agenda: HashMap<Name, (Arc<str>, Instant)> = HashMap::new();
    loop {
        let present = keyring.borrow_and_update().clone();
        let questions = due(&present, &mut agenda, Instant::now());
        if questions.is_empty() {
            tokio::select! {
                changed = keyring.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(TICK) => {}
                () = tell.closed() => return,
            }
            continue;
        }
        let answers = stream::iter(questions).map(|question| look(&resolver, question));
        let seen: Vec<(Seen, Duration)> = answers.buffer_unordered(AT_ONCE).collect().await;
        let now = Instant::now();
        let mut told = Vec::with_capacity(seen.len());
        for (seen, again) in seen {
            agenda.insert(seen.name.clone(), (seen.record.clone(), now + again));
            told.push(seen);
        }
        if tell.send(told).await.is_err() {
            return;
        }
    }
}

struct Question {
    name: Name,
    record: Arc<str>,
    pending: bool,
}

/// Keys whose time has come, those first that wait for it.
fn due(
    keyring: &Keyring,
    agenda: &mut HashMap<Name, (Arc<str>, Instant)>,
    now: Instant,
) -> Vec<Question> {
    let mut questions = Vec::new();
    let mut present = 0;
    for (domain, standing) in keyring.standings() {
        let Some(record) = &standing.record else {
            continue;
        };
        present += 1;
        let name = (domain.clone(), standing.selector.clone());
        let is_due = agenda
            .get(&name)
            .is_none_or(|(asked, at)| asked != record || *at <= now);
        if is_due {
            questions.push(Question {
                name,
                record: record.clone(),
                pending: standing.used == Use::Pending,
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
    questions.sort_by_key(|question| !question.pending);
    questions.truncate(ROUND);
    questions
}

/// One answer, and when to ask again.
async fn look(resolver: &Resolver, question: Question) -> (Seen, Duration) {
    let (domain, selector) = &question.name;
    let name = format!("{selector}._domainkey.{domain}");
    let publication = match resolver.texts(&name).await {
        Ok(texts) => judge(&question.record, texts.iter().map(AsRef::as_ref)),
        Err(error) if error.is_permanent() => Publication::Absent,
        Err(_) => Publication::Unknown,
    };
    let again = match publication {
        Publication::Shown(_) => SHOWN,
        _ if question.pending => PENDING,
        _ => WRONG,
    };
    let seen = Seen {
        name: question.name,
        record: question.record,
        publication,
    };
    (seen, again)
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
    use super::*;

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
