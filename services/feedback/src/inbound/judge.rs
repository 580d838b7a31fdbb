//! What follows from a message that came in.

use bounce::{
    Action, Automatic, Destination, Feedback, Inbound, Purpose, Recipient, Report, Token,
};
use mail::Address;
use proto::event::event::Kind;
use proto::event::{Complaint, OutOfBandBounce, Unsubscribe};
use proto::inbound::Record;
use proto::journal::{Class, Reply};

use super::attribution::{Known, Subject, Written};

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Consequence {
    /// An event is told.
    Told(Box<Told>),
    /// People read it.
    Forwarded { tenant: String, to: Address },
    /// Nothing; the word is a label of metrics.
    Dropped(&'static str),
}

/// An event about a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) tenant: String,
    pub(crate) stream: String,
    /// Names the message and its recipient.
    pub(crate) token: Token,
    pub(crate) kind: Kind,
}

impl Told {
    /// The address that it is about; empty when nothing that came with it is.
    pub(crate) fn recipient(&self) -> &str {
        match &self.kind {
            Kind::OutOfBandBounce(bounce) => &bounce.recipient,
            Kind::Complaint(complaint) => &complaint.recipient,
            Kind::Unsubscribe(unsubscribe) => &unsubscribe.recipient,
            _ => "",
        }
    }

    /// The address is known from elsewhere.
    pub(crate) fn name(&mut self, recipient: &str) {
        let place = match &mut self.kind {
            Kind::OutOfBandBounce(bounce) => &mut bounce.recipient,
            Kind::Complaint(complaint) => &mut complaint.recipient,
            Kind::Unsubscribe(unsubscribe) => &mut unsubscribe.recipient,
            _ => return,
        };
        recipient.clone_into(place);
    }

    /// A word for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match &self.kind {
            Kind::OutOfBandBounce(_) => "bounce",
            Kind::Complaint(_) => "complaint",
            _ => "unsubscribe",
        }
    }
}

/// Reads the message once, and says what follows for each address that it came to.
pub(crate) fn judge(record: &Record, known: Known<'_>) -> Vec<Consequence> {
    let read = bounce::read(&record.content);
    let mut all: Vec<Consequence> = Vec::new();
    for address in &record.recipients {
        let Some(written) = known.written(address) else {
            all.push(Consequence::Dropped("unknown_address"));
            continue;
        };
        for consequence in of_address(record, &read, &written, known) {
            // Written to postmaster and abuse, it is read once.
            if !all.contains(&consequence) {
                all.push(consequence);
            }
        }
    }
    all
}

fn of_address(
    record: &Record,
    read: &Inbound,
    written: &Written<'_>,
    known: Known<'_>,
) -> Vec<Consequence> {
    let forwarded = || Consequence::Forwarded {
        tenant: written.tenant.to_owned(),
        to: written.own.forward_to.clone(),
    };
    let (purpose, token) = match written.destination {
        Destination::Token(purpose, token) => (purpose, token),
        // Without a token of its own a complaint is about the message that it brings.
        Destination::Postmaster | Destination::Abuse | Destination::Complaints => {
            return match read {
                Inbound::Feedback(feedback) => {
                    match known.of_original(&feedback.original, &feedback.mail_from) {
                        Some(subject) => vec![complaint(subject, feedback, known)],
                        None => vec![forwarded()],
                    }
                }
                Inbound::Automatic(Automatic::Reply) => vec![Consequence::Dropped("automatic")],
                _ => vec![forwarded()],
            };
        }
    };
    let Some(subject) = known.subject(token, written.tenant) else {
        return vec![Consequence::Dropped("unknown_tenant")];
    };
    vec![match (read, purpose) {
        // Programs unsubscribe for their users.
        (Inbound::Automatic(Automatic::Generated) | Inbound::Other, Purpose::Unsubscribe) => {
            unsubscribed(subject, record, known)
        }
        (Inbound::Automatic(_), _) => Consequence::Dropped("automatic"),
        (Inbound::Challenge, _) => Consequence::Dropped("challenge"),
        (Inbound::Receipt, _) => Consequence::Dropped("receipt"),
        (Inbound::Feedback(feedback), _) => {
            // Of all recipients of a message the copy that comes back may tell which one it was.
            let of_copy = known
                .of_original(&feedback.original, &feedback.mail_from)
                .filter(|copy| copy.token.message == token.message);
            let subject = match of_copy {
                Some(copy) if !known.is_of_one(&token) => copy,
                _ => subject,
            };
            complaint(subject, feedback, known)
        }
        (Inbound::Report(report), Purpose::Bounce) => bounced(subject, report, known),
        // Of our own answers, or of nothing of ours.
        (Inbound::Report(_), _) => Consequence::Dropped("report_elsewhere"),
        (Inbound::Other, _) => forwarded(),
    }]
}

fn bounced(subject: Subject<'_>, report: &Report, known: Known<'_>) -> Consequence {
    let token = &subject.token;
    let addresses = |recipient: &Recipient| {
        [
            recipient.address.clone(),
            recipient.original_address.clone(),
        ]
    };
    let named = report.recipients.iter().find_map(|recipient| {
        let addresses = addresses(recipient);
        let named = known.named(token, addresses.iter().map(String::as_str))?;
        Some((recipient, named.to_owned()))
    });
    let (recipient, name) = match named {
        Some((recipient, name)) => (recipient, name),
        None => {
            let mut recipients = report.recipients.iter();
            let failed = recipients.find(|recipient| recipient.action == Action::Failed);
            let Some(any) = failed.or(report.recipients.first()) else {
                return Consequence::Dropped("empty_report");
            };
            let of_copy = report.original.to.iter().map(String::as_str);
            let name = known.named(token, of_copy).unwrap_or_default();
            (any, name.to_owned())
        }
    };
    // What an address behind ours can't take says nothing of ours.
    let is_about_ours = recipient.address.is_empty() || known.keys.is_of(token, &recipient.address);
    let enhanced = recipient
        .status
        .map(|(class, subject, detail)| format!("{class}.{subject}.{detail}"));
    let bounce = OutOfBandBounce {
        message_id: message_id(token),
        stream: subject.stream.to_owned(),
        recipient: name,
        action: recipient.action.name().to_owned(),
        reply: Some(Reply {
            code: recipient.code.into(),
            enhanced: enhanced.unwrap_or_default(),
            text: words(recipient).to_owned(),
            ..Reply::default()
        }),
        class: Class::try_from(recipient.class() as i32)
            .unwrap_or_default()
            .into(),
        reason: recipient.judgement.reason.name().to_owned(),
        hard: recipient.is_hard() && is_about_ours,
        remote_mta: recipient.remote_mta.clone(),
        reporting_mta: report.reporting_mta.clone(),
    };
    told(subject, Kind::OutOfBandBounce(bounce))
}

/// What was said, without the codes before it: they are told beside it.
fn words(recipient: &Recipient) -> &str {
    let text = recipient.diagnostic.as_str();
    let code = recipient.code.to_string();
    let Some(rest) = text.strip_prefix(&code).filter(|_| recipient.code > 0) else {
        return text;
    };
    let rest = rest.trim_start_matches([' ', '-']);
    match rest.split_once(' ') {
        Some((first, more)) if is_enhanced(first) => more,
        _ => rest,
    }
}

fn is_enhanced(word: &str) -> bool {
    let mut parts = word.split('.');
    let all_numbers = parts.clone().all(|part| part.parse::<u16>().is_ok());
    all_numbers && parts.by_ref().count() == 3
}

fn complaint(subject: Subject<'_>, feedback: &Feedback, known: Known<'_>) -> Consequence {
    let told_of = feedback.recipients.iter().chain(&feedback.original.to);
    let named = known.named(&subject.token, told_of.map(String::as_str));
    let complaint = Complaint {
        message_id: message_id(&subject.token),
        stream: subject.stream.to_owned(),
        recipient: named.unwrap_or_default().to_owned(),
        feedback_type: feedback.kind.name().to_owned(),
        user_agent: feedback.user_agent.clone(),
    };
    told(subject, Kind::Complaint(complaint))
}

/// The reader's own wish; who got the message from somebody else has the address, too, and can't take anybody off.
fn unsubscribed(subject: Subject<'_>, record: &Record, known: Known<'_>) -> Consequence {
    let Some(named) = known.named(&subject.token, [record.return_path.as_str()]) else {
        return Consequence::Dropped("unsubscribe_by_others");
    };
    let unsubscribe = Unsubscribe {
        message_id: message_id(&subject.token),
        stream: subject.stream.to_owned(),
        recipient: named.to_owned(),
        by: "mail".to_owned(),
    };
    told(subject, Kind::Unsubscribe(unsubscribe))
}

fn told(subject: Subject<'_>, kind: Kind) -> Consequence {
    Consequence::Told(Box::new(Told {
        tenant: subject.tenant.to_owned(),
        stream: subject.stream.to_owned(),
        token: subject.token,
        kind,
    }))
}

fn message_id(token: &Token) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(token.message.as_bytes())
}

#[cfg(test)]
mod tests;
