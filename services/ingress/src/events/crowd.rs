//! Of many events that are alike the first few are told one by one, and the others together: nobody who is refused can fill
//! the stream. Pure: the time is an argument.

use std::collections::HashMap;

use prost::Message as _;
use proto::event::Event;
use proto::event::event::Kind;
use proto::event::{LoginFailed, LoginsBlocked};

/// Alike are events of so long, milliseconds.
const SPAN_MS: u64 = 60_000;
/// Kinds of events that are alike, in a span; of more only the number is known.
const MOST_KINDS: usize = 4_096;
/// Events that are told one by one in a span, of all kinds.
const MOST_SINGLE: u32 = 1_000;

/// What was told in the last span.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    kinds: HashMap<Vec<u8>, Alike>,
    singles: Singles,
}

#[derive(Debug)]
struct Alike {
    /// What they have in common.
    common: Event,
    since_ms: u64,
    told: u32,
    /// Not told yet.
    count: u64,
    first_ms: u64,
    last_ms: u64,
}

#[derive(Debug, Default)]
struct Singles {
    since_ms: u64,
    told: u32,
}

/// What becomes of an event.
#[derive(Debug, PartialEq)]
pub(super) enum Noted {
    /// It is told at once.
    Told(Box<Event>),
    /// It is told later, together with others.
    Later,
    /// There are too many kinds.
    Dropped,
}

impl Crowd {
    pub(super) fn note(&mut self, event: Event, now_ms: u64) -> Noted {
        let Some((common, singly)) = common(&event) else {
            return Noted::Told(Box::new(event));
        };
        let key = common.encode_to_vec();
        if !self.kinds.contains_key(&key) && self.kinds.len() >= MOST_KINDS {
            return Noted::Dropped;
        }
        let alike = self.kinds.entry(key).or_insert_with(|| Alike {
            common,
            since_ms: now_ms,
            told: 0,
            count: 0,
            first_ms: 0,
            last_ms: 0,
        });
        if alike.told < singly && self.singles.may_tell(now_ms) {
            alike.told += 1;
            return Noted::Told(Box::new(event));
        }
        if alike.count == 0 {
            alike.first_ms = event.at_ms;
        }
        alike.count += 1;
        alike.last_ms = event.at_ms;
        Noted::Later
    }

    /// What is to be told together now.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Event> {
        let over = |alike: &Alike| now_ms.saturating_sub(alike.since_ms) >= SPAN_MS;
        self.kinds
            .extract_if(|_, alike| over(alike))
            .filter_map(|(_, alike)| alike.together())
            .collect()
    }

    /// All that is not told yet: the process ends.
    pub(super) fn rest(&mut self) -> Vec<Event> {
        let kinds = std::mem::take(&mut self.kinds);
        kinds.into_values().filter_map(Alike::together).collect()
    }
}

impl Alike {
    fn together(self) -> Option<Event> {
        (self.count > 0).then(|| Event {
            at_ms: self.first_ms,
            last_ms: self.last_ms,
            count: self.count,
            ..self.common
        })
    }
}

impl Singles {
    fn may_tell(&mut self, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.since_ms) >= SPAN_MS {
            *self = Self {
                since_ms: now_ms,
                told: 0,
            };
        }
        self.told += 1;
        self.told <= MOST_SINGLE
    }
}

/// What an event has in common with those that it is alike, and how many of them are told one by one; `None` for what is
/// rare by itself, and must not be crowded out by strangers. Nothing that is common is the client's to choose freely.
fn common(event: &Event) -> Option<(Event, u32)> {
    let mut common = Event {
        at_ms: 0,
        ..event.clone()
    };
    let singly = match &mut common.kind {
        Some(Kind::Rejection(rejection)) => {
            rejection.text.clear();
            rejection.recipient.clear();
            rejection.recipients = 0;
            10
        }
        Some(Kind::Preflight(preflight)) => {
            preflight.message_id.clear();
            10
        }
        Some(Kind::Resubmission(again)) => {
            again.message_id.clear();
            again.recipients = 0;
            10
        }
        Some(Kind::LoginFailed(LoginFailed { user }))
        | Some(Kind::LoginsBlocked(LoginsBlocked { user })) => {
            user.clear();
            10
        }
        _ => return None,
    };
    Some((common, singly))
}

#[cfg(test)]
mod tests {
    use proto::event::{CredentialMeasure, Rejection};

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn rejection(network: &str, at_ms: u64) -> Event {
        Event {
            at_ms,
            network: network.to_owned(),
            kind: Some(Kind::Rejection(Rejection {
                code: 550,
                text: format!("a text of {at_ms}"),
                recipient: format!("user{at_ms}@dest.example"),
                ..Rejection::default()
            })),
            ..Event::default()
        }
    }

    fn failed(user: &str) -> Event {
        Event {
            at_ms: NOW,
            kind: Some(Kind::LoginFailed(LoginFailed { user: user.into() })),
            ..Event::default()
        }
    }

    #[test]
    fn the_first_are_told_singly_and_the_others_together_a_minute_later() {
        let mut crowd = Crowd::default();
        for number in 0..10 {
            let event = rejection("a", NOW + number);
            let told = Noted::Told(Box::new(event.clone()));
            assert_eq!(crowd.note(event, NOW + number), told);
        }
        for number in 10..500 {
            assert_eq!(
                crowd.note(rejection("a", NOW + number), NOW + number),
                Noted::Later
            );
        }
        assert!(matches!(
            crowd.note(rejection("b", NOW), NOW),
            Noted::Told(_)
        ));
        assert_eq!(crowd.due(NOW + 59_999), []);
        let together = crowd.due(NOW + 60_000);
        assert_eq!(together.len(), 1);
        assert_eq!(together[0].count, 490);
        assert_eq!(
            (together[0].at_ms, together[0].last_ms),
            (NOW + 10, NOW + 499)
        );
        let Some(Kind::Rejection(rejected)) = &together[0].kind else {
            panic!("{together:?}");
        };
        assert_eq!((rejected.code, rejected.recipient.as_str()), (550, ""));
        // The next minute begins anew.
        let later = rejection("a", NOW + 60_001);
        assert!(matches!(crowd.note(later, NOW + 60_001), Noted::Told(_)));
    }

    #[test]
    fn who_guesses_names_makes_no_kind_of_each_and_crowds_nothing_out() {
        let mut crowd = Crowd::default();
        for number in 0..10_000 {
            let noted = crowd.note(failed(&number.to_string()), NOW);
            assert_eq!(matches!(noted, Noted::Told(_)), number < 10, "{number}");
        }
        for number in 0..5_000 {
            crowd.note(rejection(&number.to_string(), NOW), NOW);
        }
        let measure = Event {
            kind: Some(Kind::CredentialMeasure(CredentialMeasure::default())),
            ..Event::default()
        };
        assert!(matches!(crowd.note(measure, NOW), Noted::Told(_)));
        let rest = crowd.rest();
        let logins = rest.iter().find(|event| event.count == 9_990);
        let kind = logins.and_then(|event| event.kind.clone());
        assert_eq!(kind, failed("").kind);
        assert_eq!(crowd.rest(), []);
    }

    #[test]
    fn neither_many_networks_nor_many_kinds_are_too_much() {
        let mut crowd = Crowd::default();
        let noted: Vec<Noted> = (0..5_000)
            .map(|number| crowd.note(rejection(&number.to_string(), NOW), NOW))
            .collect();
        let told = noted.iter().filter(|one| matches!(one, Noted::Told(_)));
        assert_eq!(told.count(), 1_000);
        let dropped = noted.iter().filter(|one| **one == Noted::Dropped);
        assert_eq!(dropped.count(), 5_000 - 4_096);
        assert_eq!(crowd.due(NOW + 60_000).len(), 4_096 - 1_000);
    }
}
