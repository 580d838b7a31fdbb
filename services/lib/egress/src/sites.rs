//! Which site a domain belongs to.

use std::sync::Arc;

use hashbrown::HashMap;

/// How long a resolved site is used, milliseconds. The resolver below has caches of its own with the records' TTLs.
const FRESH_MS: u64 = 300_000;
/// How long a failed resolution is not repeated, milliseconds.
const FAILED_MS: u64 = 30_000;
/// Domains remembered.
const DOMAINS: usize = 100_000;

/// What is known of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteOf {
    /// Its site.
    Known(Arc<str>),
    /// Being resolved; what waits for it comes back with [`Sites::resolved`]. `ask` is set when the question is new.
    Unknown {
        /// A resolution must be started.
        ask: bool,
    },
    /// The last resolution failed, and why.
    Failed(SiteNews),
}

/// What a resolution found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteNews {
    /// The site.
    Site(Arc<str>),
    /// For now there is no answer; with what went wrong.
    Temporary(String),
    /// The domain does not exist (5.1.2) or takes no mail (5.1.10): enhanced code and text.
    Permanent(&'static str, String),
}

#[derive(Debug)]
enum Entry<T> {
    Known { site: Arc<str>, until_ms: u64 },
    Resolving(Vec<T>),
    Failed { news: SiteNews, until_ms: u64 },
}

/// A cache of sites with the deliveries that wait for a resolution. One domain whose DNS fails holds up no other.
#[derive(Debug)]
pub struct Sites<T> {
    domains: HashMap<Arc<str>, Entry<T>>,
}

impl<T> Default for Sites<T> {
    fn default() -> Self {
        Self {
            domains: HashMap::new(),
        }
    }
}

impl<T> Sites<T> {
    /// The site of a domain; when it must be resolved first, `waiting` is kept until it is.
    pub fn site_of(&mut self, now_ms: u64, domain: &str, waiting: impl FnOnce() -> T) -> SiteOf {
        match self.domains.get_mut(domain) {
            Some(Entry::Known { site, until_ms }) if now_ms < *until_ms => {
                return SiteOf::Known(site.clone());
            }
            Some(Entry::Failed { news, until_ms }) if now_ms < *until_ms => {
                return SiteOf::Failed(news.clone());
            }
            Some(Entry::Resolving(waiters)) => {
                waiters.push(waiting());
                return SiteOf::Unknown { ask: false };
            }
            Some(Entry::Known { .. } | Entry::Failed { .. }) | None => {}
        }
        if self.domains.len() >= DOMAINS {
            self.domains
                .retain(|_, entry| matches!(entry, Entry::Resolving(_)));
        }
        self.domains
            .insert(domain.into(), Entry::Resolving(vec![waiting()]));
        SiteOf::Unknown { ask: true }
    }

    /// Takes a resolution; gives back what waited for it.
    pub fn resolved(&mut self, now_ms: u64, domain: &str, news: SiteNews) -> Vec<T> {
        let entry = match news {
            SiteNews::Site(site) => Entry::Known {
                site,
                until_ms: now_ms + FRESH_MS,
            },
            failed => Entry::Failed {
                news: failed,
                until_ms: now_ms + FAILED_MS,
            },
        };
        match self.domains.insert(domain.into(), entry) {
            Some(Entry::Resolving(waiters)) => waiters,
            _ => Vec::new(),
        }
    }

    /// A sender saw other MX hosts: the next question is asked anew.
    pub fn forget(&mut self, domain: &str) {
        if !matches!(self.domains.get(domain), Some(Entry::Resolving(_))) {
            self.domains.remove(domain);
        }
    }

    /// The site of a domain, if it is in the cache.
    pub fn peek(&self, domain: &str) -> Option<&str> {
        match self.domains.get(domain)? {
            Entry::Known { site, .. } => Some(site),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_once_and_keeps_those_who_wait() {
        let mut sites = Sites::default();
        assert_eq!(
            sites.site_of(0, "a.example", || 1),
            SiteOf::Unknown { ask: true }
        );
        assert_eq!(
            sites.site_of(0, "a.example", || 2),
            SiteOf::Unknown { ask: false }
        );
        assert_eq!(
            sites.resolved(0, "a.example", SiteNews::Site("mx".into())),
            [1, 2]
        );
        assert_eq!(
            sites.site_of(1, "a.example", || 3),
            SiteOf::Known("mx".into())
        );
        assert_eq!(
            sites.site_of(FRESH_MS, "a.example", || 3),
            SiteOf::Unknown { ask: true }
        );
    }

    #[test]
    fn remembers_a_failure_for_a_while() {
        let mut sites = Sites::default();
        sites.site_of(0, "a.example", || 1);
        let failure = SiteNews::Temporary("SERVFAIL".into());
        assert_eq!(sites.resolved(0, "a.example", failure.clone()), [1]);
        assert_eq!(sites.site_of(1, "a.example", || 2), SiteOf::Failed(failure));
        assert_eq!(
            sites.site_of(FAILED_MS, "a.example", || 2),
            SiteOf::Unknown { ask: true }
        );
    }

    #[test]
    fn is_asked_anew_when_a_sender_saw_other_hosts_unless_it_is_asked_already() {
        let mut sites = Sites::default();
        sites.site_of(0, "a.example", || 1);
        sites.forget("a.example");
        assert_eq!(sites.peek("a.example"), None);
        let site = SiteNews::Site("mx".into());
        assert_eq!(sites.resolved(0, "a.example", site), [1], "it waits still");
        assert_eq!(sites.peek("a.example"), Some("mx"));
        sites.forget("a.example");
        assert_eq!(sites.peek("a.example"), None);
        assert_eq!(
            sites.site_of(1, "a.example", || 2),
            SiteOf::Unknown { ask: true }
        );
    }

    #[test]
    fn forgets_what_it_knows_when_that_is_too_much_and_never_who_waits() {
        let mut sites = Sites::default();
        sites.site_of(0, "a.example", || 0);
        for number in 1..DOMAINS {
            sites.resolved(0, &number.to_string(), SiteNews::Site("mx".into()));
        }
        assert_eq!(sites.peek("1"), Some("mx"));
        sites.site_of(0, "b.example", || 1);
        assert_eq!(sites.peek("1"), None);
        let site = SiteNews::Site("mx".into());
        assert_eq!(sites.resolved(0, "a.example", site), [0]);
        sites.site_of(0, "c.example", || 2);
        assert_eq!(sites.peek("a.example"), Some("mx"), "there is room again");
    }
}
