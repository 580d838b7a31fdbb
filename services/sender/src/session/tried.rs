//! What the hosts of a domain came to, when none of them got the mail.

use std::net::IpAddr;

use proto::journal::{Reply, Stage};

use super::demand::{Demand, Lack};
use super::open::{OpenFailure, failed};
use super::{no_require_tls, own_words};

/// Failures, of which one is reported.
#[derive(Default)]
pub(super) struct Tried {
    last: Option<OpenFailure>,
    /// The host that lacked the least.
    best: Option<Lack>,
    /// A host was in trouble: it may be another's turn to be asked, and have everything.
    in_trouble: bool,
}

impl Tried {
    /// Any other failure says more.
    pub fn has_no_address(&mut self, host: &str, reply: Reply) {
        self.in_trouble = true;
        self.last.get_or_insert(OpenFailure::Failed {
            reply,
            host: host.to_owned(),
            address: None,
        });
    }

    pub fn failed(&mut self, host: &str, address: IpAddr, reply: Reply) {
        self.in_trouble = true;
        self.note(host, Some(address), reply);
    }

    pub fn lacks(&mut self, host: &str, address: Option<IpAddr>, reply: Reply, lack: Lack) {
        if self.best != Some(Lack::RequireTls) {
            self.best = Some(lack);
        }
        self.note(host, address, reply);
    }

    fn note(&mut self, host: &str, address: Option<IpAddr>, reply: Reply) {
        self.last = Some(OpenFailure::Failed {
            reply,
            host: host.to_owned(),
            address,
        });
    }

    /// What is reported: the last failure. But a message with REQUIRETLS goes back when every host was asked, and none has
    /// what it needs (RFC 8689 section 4.2.1).
    pub fn end(self, demand: &Demand) -> OpenFailure {
        let Some(last) = self.last else {
            return failed(own_words(Stage::Dns, 0, "4.4.4", "no host to connect to"));
        };
        match (self.best, last) {
            (
                Some(best),
                OpenFailure::Failed {
                    reply,
                    host,
                    address,
                },
            ) if demand.requires_tls() && !self.in_trouble => OpenFailure::Failed {
                reply: match best {
                    Lack::RequireTls => no_require_tls(),
                    Lack::Host | Lack::Tls | Lack::Certificate => {
                        let text = format!("Encryption needed: {}", reply.text);
                        own_words(Stage::Mail, 550, "5.7.10", &text)
                    }
                },
                host,
                address,
            },
            (_, last) => last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::demand::Wish;

    fn end(tell: impl FnOnce(&mut Tried), wish: Wish) -> (u32, String, String) {
        let mut tried = Tried::default();
        tell(&mut tried);
        match tried.end(&Demand::new(wish, None)) {
            OpenFailure::Failed { reply, host, .. } => (reply.code, reply.enhanced, host),
            other => panic!("{other:?}"),
        }
    }

    fn lacks(tried: &mut Tried, host: &str, lack: Lack) {
        let reply = own_words(Stage::Starttls, 0, "4.7.5", "it lacks something");
        tried.lacks(host, None, reply, lack);
    }

    fn fails(tried: &mut Tried, host: &str) {
        let reply = own_words(Stage::Connect, 0, "", "no connection");
        tried.failed(host, [192, 0, 2, 1].into(), reply);
    }

    #[test]
    fn only_what_requires_tls_goes_back_and_only_when_no_host_is_left_to_ask() {
        let all_lack = |tried: &mut Tried| {
            lacks(tried, "a", Lack::RequireTls);
            lacks(tried, "b", Lack::Certificate);
        };
        assert_eq!(
            end(all_lack, Wish::Required),
            (550, "5.7.30".into(), "b".into())
        );
        assert_eq!(end(all_lack, Wish::Usual), (0, "4.7.5".into(), "b".into()));
        let no_tls = |tried: &mut Tried| {
            lacks(tried, "a", Lack::Tls);
            lacks(tried, "b", Lack::Host);
        };
        assert_eq!(
            end(no_tls, Wish::Required),
            (550, "5.7.10".into(), "b".into())
        );
        let one_is_down = |tried: &mut Tried| {
            fails(tried, "a");
            lacks(tried, "b", Lack::RequireTls);
        };
        assert_eq!(
            end(one_is_down, Wish::Required),
            (0, "4.7.5".into(), "b".into())
        );
        let one_has_no_address = |tried: &mut Tried| {
            lacks(tried, "a", Lack::Tls);
            tried.has_no_address("b", own_words(Stage::Dns, 0, "4.4.3", ""));
        };
        assert_eq!(
            end(one_has_no_address, Wish::Required),
            (0, "4.7.5".into(), "a".into())
        );
        assert_eq!(
            end(|_| {}, Wish::Required),
            (0, "4.4.4".into(), String::new())
        );
    }
}
