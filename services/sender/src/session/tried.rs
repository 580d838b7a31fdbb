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
    /// What the host lacked that lacked the least.
    best: Option<Lack>,
    /// A host was in trouble: it may be another's turn to be asked, and have everything.
    in_trouble: bool,
}

impl Tried {
    /// A host is not asked, since it did not answer lately or others had so many addresses.
    pub fn is_cut_short(&mut self) {
        self.in_trouble = true;
    }

    pub fn has_no_address(&mut self, host: &str, reply: Reply) {
        self.in_trouble = true;
        self.note_unasked(host, reply);
    }

    /// It is not one of the domain's.
    pub fn is_forbidden(&mut self, host: &str, reply: Reply) {
        self.best.get_or_insert(Lack::Host);
        self.note_unasked(host, reply);
    }

    pub fn failed(&mut self, host: &str, address: IpAddr, reply: Reply) {
        self.in_trouble = true;
        self.note(host, Some(address), reply);
    }

    pub fn lacks(&mut self, host: &str, address: IpAddr, reply: Reply, lack: Lack) {
        if self.best != Some(Lack::RequireTls) {
            self.best = Some(lack);
        }
        self.note(host, Some(address), reply);
    }

    /// What a host said that was asked says more.
    fn note_unasked(&mut self, host: &str, reply: Reply) {
        if self.last.is_none() {
            self.note(host, None, reply);
        }
    }

    fn note(&mut self, host: &str, address: Option<IpAddr>, reply: Reply) {
        self.last = Some(OpenFailure::Failed {
            reply,
            host: host.to_owned(),
            address,
        });
    }

    /// What is reported when the next host is this relay: what became of those before it, or, when it is the first, that
    /// the mail would go round in circles.
    pub fn end_before(self, host: &str, address: IpAddr, reply: Reply) -> OpenFailure {
        self.last.unwrap_or_else(|| OpenFailure::Failed {
            reply,
            host: host.to_owned(),
            address: Some(address),
        })
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
                    // Nobody was asked: nothing is to be taken for reached.
                    Lack::Host => encryption_needed(Stage::Dns, &reply.text),
                    Lack::Tls | Lack::Certificate => encryption_needed(Stage::Mail, &reply.text),
                },
                host,
                address,
            },
            (_, last) => last,
        }
    }
}

/// RFC 8689 section 4.2.1.
pub(super) fn encryption_needed(stage: Stage, why: &str) -> Reply {
    own_words(stage, 550, "5.7.10", &format!("Encryption needed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::demand::Wish;

    /// Stage, code and enhanced code, and the host.
    fn end(tell: impl FnOnce(&mut Tried), wish: Wish) -> (Stage, u32, String, String) {
        let mut tried = Tried::default();
        tell(&mut tried);
        match tried.end(&Demand::new(wish, None)) {
            OpenFailure::Failed { reply, host, .. } => {
                (reply.stage(), reply.code, reply.enhanced, host)
            }
            other => panic!("{other:?}"),
        }
    }

    fn lacks(tried: &mut Tried, host: &str, lack: Lack) {
        let reply = own_words(Stage::Starttls, 0, "4.7.5", "it lacks something");
        tried.lacks(host, [192, 0, 2, 1].into(), reply, lack);
    }

    fn forbidden(tried: &mut Tried, host: &str) {
        tried.is_forbidden(host, own_words(Stage::Dns, 0, "4.7.5", "not this one"));
    }

    fn fails(tried: &mut Tried, host: &str) {
        let reply = own_words(Stage::Connect, 0, "", "no connection");
        tried.failed(host, [192, 0, 2, 1].into(), reply);
    }

    #[test]
    fn only_what_requires_tls_goes_back_and_only_when_no_host_is_left_to_ask() {
        type Tell = fn(&mut Tried);
        let said =
            |stage, code, enhanced: &str, host: &str| (stage, code, enhanced.into(), host.into());
        let unable: Tell = |tried| {
            lacks(tried, "a", Lack::RequireTls);
            lacks(tried, "b", Lack::Certificate);
        };
        let no_tls: Tell = |tried| {
            lacks(tried, "a", Lack::Tls);
            forbidden(tried, "b");
        };
        let nobody_asked: Tell = |tried| {
            forbidden(tried, "a");
            forbidden(tried, "b");
        };
        let one_is_down: Tell = |tried| {
            fails(tried, "a");
            lacks(tried, "b", Lack::RequireTls);
        };
        let the_only_one_is_down: Tell = |tried| {
            forbidden(tried, "a");
            fails(tried, "b");
            forbidden(tried, "c");
        };
        let one_has_no_address: Tell = |tried| {
            lacks(tried, "a", Lack::Tls);
            tried.has_no_address("b", own_words(Stage::Dns, 0, "4.4.3", ""));
        };
        use Stage::{Connect, Dns, Mail, Starttls};
        for (tell, required, usual) in [
            (
                unable,
                said(Mail, 550, "5.7.30", "b"),
                said(Starttls, 0, "4.7.5", "b"),
            ),
            (
                no_tls,
                said(Mail, 550, "5.7.10", "a"),
                said(Starttls, 0, "4.7.5", "a"),
            ),
            (
                nobody_asked,
                said(Dns, 550, "5.7.10", "a"),
                said(Dns, 0, "4.7.5", "a"),
            ),
            (
                one_is_down,
                said(Starttls, 0, "4.7.5", "b"),
                said(Starttls, 0, "4.7.5", "b"),
            ),
            (
                the_only_one_is_down,
                said(Connect, 0, "", "b"),
                said(Connect, 0, "", "b"),
            ),
            (
                one_has_no_address,
                said(Starttls, 0, "4.7.5", "a"),
                said(Starttls, 0, "4.7.5", "a"),
            ),
            (|_| {}, said(Dns, 0, "4.4.4", ""), said(Dns, 0, "4.4.4", "")),
        ] {
            assert_eq!(end(tell, Wish::Required), required);
            assert_eq!(end(tell, Wish::Usual), usual);
        }
    }
}
