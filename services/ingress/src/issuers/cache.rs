//! How long keys hold, and when they are asked for again. Pure: time is an argument.

use std::sync::Arc;
use std::time::Duration;

use bearer::KeySet;
use tokio::time::Instant;

/// When the server does not say how long its answer holds.
const USUALLY: Duration = Duration::from_secs(600);
/// However short it says.
const SHORTEST: Duration = Duration::from_secs(60);
/// However long it says: a key that was taken back should not be believed for a day.
const LONGEST: Duration = Duration::from_secs(3600);
/// After a failure, and between questions for a key that is not known.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// The keys of an issuer.
pub(super) struct Cache {
    pause: Duration,
    keys: Option<Arc<KeySet>>,
    /// When the server last said that they hold.
    confirmed: Option<Instant>,
    /// When the last question was over.
    asked: Option<Instant>,
    /// Whether it was in vain.
    failed: bool,
    answer: Answer,
}

/// What a server says of its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) etag: Option<String>,
    pub(super) holds_for: Option<Duration>,
}

impl Answer {
    /// A file may change at any time, and costs little to read.
    pub(super) fn of_file() -> Self {
        Self {
            etag: None,
            holds_for: Some(SHORTEST),
        }
    }
}

impl Cache {
    /// Without keys. `pause`: see [`PAUSE`].
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            keys: None,
            confirmed: None,
            asked: None,
            failed: false,
            answer: Answer::default(),
        }
    }

    /// The keys, if they were there within the last `keep`.
    pub(super) fn keys(&self, keep: Duration, now: Instant) -> Option<Arc<KeySet>> {
        let age = now.saturating_duration_since(self.confirmed?);
        self.keys
            .as_ref()
            .filter(|keys| age < keep && !keys.is_empty())
            .cloned()
    }

    /// The version of the keys.
    pub(super) fn etag(&self) -> Option<String> {
        self.answer.etag.clone().filter(|_| self.keys.is_some())
    }

    /// Whether the last question was in vain.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether an answer came, or failed to, after that.
    pub(super) fn was_told_after(&self, then: Instant) -> bool {
        self.asked.is_some_and(|asked| asked > then)
    }

    /// Whether it is long enough ago that a key that is not known is a reason to ask.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        self.asked
            .is_none_or(|asked| now.saturating_duration_since(asked) >= self.pause)
    }

    /// When to ask next; not before `now`.
    pub(super) fn due(&self, now: Instant) -> Instant {
        let wait = if self.failed {
            self.pause
        } else {
            let holds_for = self.answer.holds_for.unwrap_or(USUALLY);
            holds_for.clamp(SHORTEST, LONGEST)
        };
        self.asked.unwrap_or(now).max(now) + wait
    }

    /// The server has answered; `None` = the keys are the same as before.
    pub(super) fn told(&mut self, now: Instant, keys: Option<KeySet>, answer: Answer) {
        if let Some(keys) = keys {
            self.keys = Some(Arc::new(keys));
        }
        // A server that confirms what it was not asked about confirms nothing.
        self.confirmed = self.keys.as_ref().map(|_| now);
        self.asked = Some(now);
        self.failed = false;
        self.answer = Answer {
            etag: answer.etag.or(self.answer.etag.take()),
            holds_for: answer.holds_for,
        };
    }

    /// There was no answer.
    pub(super) fn failed(&mut self, now: Instant) {
        self.asked = Some(now);
        self.failed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    const DAY: Duration = Duration::from_secs(86_400);

    fn keys(json: &str) -> Option<KeySet> {
        Some(KeySet::read(json.as_bytes()).unwrap().0)
    }

    fn answer(etag: Option<&str>, seconds: Option<u64>) -> Answer {
        Answer {
            etag: etag.map(str::to_owned),
            holds_for: seconds.map(Duration::from_secs),
        }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn keys_are_asked_for_again_when_they_may_have_changed() {
        let start = Instant::now();
        let mut cache = Cache::new(PAUSE);
        assert!(cache.may_ask(start) && cache.keys(DAY, start).is_none());
        for (said, expected) in [
            (None, 600),
            (Some(0), 60),
            (Some(300), 300),
            (Some(86_400), 3600),
        ] {
            cache.told(start, keys(KEY), answer(None, said));
            assert_eq!(cache.due(start), start + seconds(expected), "{said:?}");
        }
        cache.failed(start);
        assert_eq!(cache.due(start), start + PAUSE);
        assert!(cache.has_failed());
        cache.told(start, keys(KEY), answer(None, None));
        assert!(!cache.has_failed());
    }

    #[test]
    fn the_last_good_keys_hold_for_a_time_when_no_others_come() {
        let start = Instant::now();
        let mut cache = Cache::new(PAUSE);
        cache.told(start, keys(KEY), answer(None, None));
        cache.failed(start + seconds(600));
        let last = start + DAY - seconds(1);
        assert!(cache.keys(DAY, last).is_some());
        assert!(cache.keys(DAY, start + DAY).is_none());
        // That they are the same as before makes them hold again.
        cache.told(start + DAY, None, answer(None, None));
        assert!(cache.keys(DAY, start + DAY + seconds(1)).is_some());
        // An issuer that has taken all of them back is believed.
        cache.told(start + DAY, keys("{\"keys\":[]}"), answer(None, None));
        assert!(cache.keys(DAY, start + DAY).is_none());
        let mut cache = Cache::new(PAUSE);
        cache.told(start, None, answer(None, None));
        assert!(cache.keys(DAY, start).is_none() && cache.etag().is_none());
    }

    #[test]
    fn an_unknown_key_is_asked_for_now_and_then() {
        let start = Instant::now();
        let mut cache = Cache::new(PAUSE);
        cache.told(start, keys(KEY), answer(Some("\"1\""), None));
        assert_eq!(cache.etag().as_deref(), Some("\"1\""));
        assert!(!cache.may_ask(start + PAUSE - seconds(1)));
        assert!(cache.may_ask(start + PAUSE));
        cache.failed(start + PAUSE);
        assert!(!cache.may_ask(start + PAUSE));
        assert!(cache.was_told_after(start) && !cache.was_told_after(start + PAUSE));
        // An answer of 304 need not repeat the tag.
        cache.told(start, None, answer(None, None));
        assert_eq!(cache.etag().as_deref(), Some("\"1\""));
        cache.told(start, keys(KEY), answer(Some("\"2\""), None));
        assert_eq!(cache.etag().as_deref(), Some("\"2\""));
    }
}
