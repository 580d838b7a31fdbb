//! What an outcome says of an address.

use proto::journal::{Class, Disposition, RecipientOutcome, Stage};

/// What an outcome says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// There is no such mailbox: its host said so, in its answer to RCPT, for good.
    Hard,
    /// It could not be delivered to, for a reason that lies with the mailbox and may pass.
    Soft,
    /// It was delivered to.
    Works,
    /// Nothing: it is about us, about the message, or about the host.
    Nothing,
}

/// What an outcome says of its address. Reputation, content, limits and the like are never about the address, and neither
/// is what only ran out of time; so a block of ours takes nobody off a list.
pub fn meaning(recipient: &RecipientOutcome) -> Meaning {
    let class = recipient.class();
    match recipient.disposition() {
        Disposition::Delivered => Meaning::Works,
        Disposition::Bounced if class == Class::Recipient && is_refused_at_rcpt(recipient) => {
            Meaning::Hard
        }
        Disposition::Bounced | Disposition::Expired if class == Class::MailboxFull => Meaning::Soft,
        // "No such user" with a code that lets us try again, for as long as we tried.
        Disposition::Expired if class == Class::Recipient => Meaning::Soft,
        _ => Meaning::Nothing,
    }
}

fn is_refused_at_rcpt(recipient: &RecipientOutcome) -> bool {
    let reply = recipient.reply.as_ref();
    reply.is_some_and(|reply| reply.stage() == Stage::Rcpt && (500..600).contains(&reply.code))
}

#[cfg(test)]
mod tests {
    use proto::journal::Reply;

    use super::*;

    fn of(disposition: Disposition, class: Class, stage: Stage, code: u32) -> Meaning {
        meaning(&RecipientOutcome {
            disposition: disposition.into(),
            class: class.into(),
            reply: Some(Reply {
                stage: stage.into(),
                code,
                ..Reply::default()
            }),
            ..RecipientOutcome::default()
        })
    }

    #[test]
    fn only_what_is_about_the_address_counts_against_it() {
        use Disposition::{Bounced, Cancelled, Deferred, Delivered, Expired};
        for (disposition, class, stage, code, expected) in [
            (Bounced, Class::Recipient, Stage::Rcpt, 550, Meaning::Hard),
            // Some hosts say after the content what they could have said before: nothing is sure then.
            (
                Bounced,
                Class::Recipient,
                Stage::FinalDot,
                550,
                Meaning::Nothing,
            ),
            (
                Bounced,
                Class::Recipient,
                Stage::Mail,
                550,
                Meaning::Nothing,
            ),
            (Bounced, Class::Policy, Stage::Rcpt, 550, Meaning::Nothing),
            (
                Bounced,
                Class::Throttled,
                Stage::Rcpt,
                550,
                Meaning::Nothing,
            ),
            (
                Bounced,
                Class::Content,
                Stage::FinalDot,
                554,
                Meaning::Nothing,
            ),
            (
                Bounced,
                Class::Unspecified,
                Stage::Rcpt,
                550,
                Meaning::Nothing,
            ),
            (Bounced, Class::Dns, Stage::Dns, 0, Meaning::Nothing),
            (Bounced, Class::MailboxFull, Stage::Rcpt, 552, Meaning::Soft),
            (Expired, Class::MailboxFull, Stage::Rcpt, 452, Meaning::Soft),
            (Expired, Class::Recipient, Stage::Rcpt, 450, Meaning::Soft),
            (
                Expired,
                Class::Infrastructure,
                Stage::Connect,
                0,
                Meaning::Nothing,
            ),
            (
                Expired,
                Class::Greylisted,
                Stage::Rcpt,
                451,
                Meaning::Nothing,
            ),
            (
                Deferred,
                Class::MailboxFull,
                Stage::Rcpt,
                452,
                Meaning::Nothing,
            ),
            (
                Delivered,
                Class::Unspecified,
                Stage::FinalDot,
                250,
                Meaning::Works,
            ),
            (
                Cancelled,
                Class::Recipient,
                Stage::Rcpt,
                550,
                Meaning::Nothing,
            ),
        ] {
            let found = of(disposition, class, stage, code);
            assert_eq!(
                found, expected,
                "{disposition:?} {class:?} {stage:?} {code}"
            );
        }
    }
}
