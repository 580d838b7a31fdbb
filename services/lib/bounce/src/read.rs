//! The reader.

use std::borrow::Cow;

use classify::{Judgement, Kind, Rules};
use message::{HeaderEnd, Piece, read_pieces};

use crate::feedback::{self, of_kind, read_feedback};
use crate::head::Head;
use crate::inbound::{
    Action, Automatic, Feedback, FeedbackKind, Form, Inbound, NO_JUDGEMENT, Original, Recipient,
    Report,
};
use crate::judge::{Found, judge};
use crate::line::one_line;
use crate::original::{HEADER_LIMIT, read_original};
use crate::prose::{TEXT_LIMIT, Told, read_prose, split_copy};
use crate::signs::{CHALLENGES, DELAYED, FAILED_TEXT, has};
use crate::status::{self, Group, read_status};

/// As much of a message as is looked at, octets. What follows is the message that was sent back.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// Reads a message by the shipped rules.
pub fn read(message: &[u8]) -> Inbound {
    read_by(Rules::shipped(), message)
}

/// Reads a message: what it is, and of a report for each recipient why. Never fails; takes linear time, and memory for a few times
/// the message. Of a message of more than 4 MiB the beginning is looked at.
pub fn read_by(rules: &Rules, message: &[u8]) -> Inbound {
    let message = with_line_ends(&message[..message.len().min(MESSAGE_LIMIT)]);
    let (header, body) = match HeaderEnd::new().push(&message) {
        Some(body) => (&message[..body - 2], &message[body..]),
        None => (&message[..], &[][..]),
    };
    let head = Head::read(header);
    let parts = Parts::read(header, body);
    parts.inbound(rules, &head)
}

/// Only CRLF ends a line where structure is read.
fn with_line_ends(message: &[u8]) -> Cow<'_, [u8]> {
    let mut ends = memchr::memchr_iter(b'\n', message);
    if ends.all(|at| at > 0 && message[at - 1] == b'\r') {
        return message.into();
    }
    let mut whole = Vec::with_capacity(message.len() + message.len() / 32);
    for byte in message {
        if *byte == b'\n' && whole.last() != Some(&b'\r') {
            whole.push(b'\r');
        }
        whole.push(*byte);
    }
    whole.into()
}

/// What the parts are for.
#[derive(Default)]
struct Parts<'a> {
    status: Option<Piece<'a>>,
    feedback: Option<Piece<'a>>,
    receipt: bool,
    original: Option<Piece<'a>>,
    /// Texts before the original; HTML only when nothing else was there.
    texts: Vec<Piece<'a>>,
    html: Option<Piece<'a>>,
    body: &'a [u8],
}

/// Texts that are read of one message.
const MOST_TEXTS: usize = 4;

impl<'a> Parts<'a> {
    fn read(header: &'a [u8], body: &'a [u8]) -> Self {
        let mut parts = Self {
            body,
            ..Self::default()
        };
        read_pieces(header, body, &mut |piece| parts.take(piece));
        parts
    }

    fn take(&mut self, piece: Piece<'a>) {
        match &piece.full_type[..] {
            b"message/delivery-status" | b"message/global-delivery-status" => {
                self.status.get_or_insert(piece);
            }
            b"message/feedback-report" => {
                self.feedback.get_or_insert(piece);
            }
            b"message/disposition-notification" | b"message/global-disposition-notification" => {
                self.receipt = true;
            }
            b"message/rfc822"
            | b"text/rfc822-headers"
            | b"text/rfc822-header"
            | b"message/rfc822-headers"
            | b"message/global"
            | b"message/global-headers" => {
                self.original.get_or_insert(piece);
            }
            b"text/html" => {
                self.html.get_or_insert(piece);
            }
            _ if piece.is_text() && self.texts.len() < MOST_TEXTS && self.original.is_none() => {
                self.texts.push(piece);
            }
            _ => {}
        }
    }

    fn inbound(&self, rules: &Rules, head: &Head) -> Inbound {
        if let Some(feedback) = self.feedback(head) {
            return Inbound::Feedback(feedback);
        }
        if let Some(piece) = &self.status
            && let Some(report) = self.fields(rules, head, &piece.octets(status::PART_LIMIT))
        {
            return Inbound::Report(report);
        }
        let fails = head.speaks_of_failure();
        // Some say with a receipt that they rejected it.
        if self.receipt && !fails {
            return Inbound::Receipt;
        }
        let text = self.text();
        let lower = text.to_lowercase();
        if head.is_challenge || (!fails && has(&head.subject, CHALLENGES)) {
            return Inbound::Challenge;
        }
        // Both are written by programs; only one of them by a mail system, or with a subject of mail systems.
        let is_answer =
            !self.receipt && head.automatic == Some(Automatic::Reply) && !head.is_daemon && !fails;
        let sends_back = self.original.is_some() && !head.is_bulk && has(&lower, FAILED_TEXT);
        let may_be_report = !is_answer
            && (head.is_daemon || fails || sends_back || !head.failed_recipients.is_empty());
        // Some write the fields into a text, or a structure that nobody can read.
        if may_be_report
            && lower.contains("final-recipient:")
            && let Some(report) = self.fields(rules, head, text.as_bytes())
        {
            return Inbound::Report(report);
        }
        if may_be_report && let Some(report) = self.words(rules, head, &text, &lower) {
            return Inbound::Report(report);
        }
        if !fails && !head.is_bulk && has(&lower, CHALLENGES) {
            return Inbound::Challenge;
        }
        match head.automatic {
            Some(automatic) => Inbound::Automatic(automatic),
            None if head.is_bulk || head.is_daemon => Inbound::Automatic(Automatic::Generated),
            None => Inbound::Other,
        }
    }

    fn original(&self) -> Original {
        let octets = self
            .original
            .as_ref()
            .map(|piece| piece.octets(HEADER_LIMIT));
        octets.map_or_else(Original::default, |octets| read_original(&octets))
    }

    fn feedback(&self, head: &Head) -> Option<Feedback> {
        let read = match &self.feedback {
            Some(piece) => read_feedback(&piece.octets(feedback::PART_LIMIT)),
            // Some write the fields as a text; JMRP of old wrote none.
            None => {
                let texts = self.texts.iter().filter(|_| self.original.is_some());
                let texts = texts.map(|piece| piece.octets(feedback::PART_LIMIT));
                texts
                    .filter(|text| {
                        let start = &text[..text.len().min(4096)];
                        memchr::memmem::find(&start.to_ascii_lowercase(), b"feedback-type:")
                            .is_some()
                    })
                    .find_map(|text| read_feedback(&text))
                    .or_else(|| {
                        let is_one = head.is_from_jmrp && self.original.is_some();
                        is_one.then(|| of_kind(FeedbackKind::Abuse))
                    })
            }
        };
        let mut feedback = read?;
        feedback.original = self.original();
        if feedback.recipients.is_empty() {
            feedback.recipients.clone_from(&feedback.original.to);
        }
        Some(feedback)
    }

    /// A report in fields.
    fn fields(&self, rules: &Rules, head: &Head, octets: &[u8]) -> Option<Report> {
        let status = read_status(octets);
        if status.groups.is_empty() {
            return None;
        }
        let mut words = Words {
            parts: self,
            head,
            told: None,
            asked: 0,
        };
        let mut recipients: Vec<Recipient> = Vec::with_capacity(status.groups.len());
        for group in status.groups {
            recipients.push(of_group(rules, group, &mut words));
        }
        Some(Report {
            form: Form::Standard,
            reporting_mta: status.reporting_mta,
            envelope_id: status.envelope_id,
            recipients,
            original: self.original(),
        })
    }

    /// The texts for people.
    fn text(&self) -> String {
        let mut text = String::new();
        for piece in &self.texts {
            let limit = TEXT_LIMIT - text.len().min(TEXT_LIMIT);
            text.push_str(&piece.text(limit));
            text.push('\n');
        }
        if text.trim().is_empty() {
            text = match &self.html {
                Some(piece) => piece.text(4 * TEXT_LIMIT).into_owned(),
                // A structure that nobody can read has its words all the same.
                None => String::from_utf8_lossy(&self.body[..self.body.len().min(TEXT_LIMIT)])
                    .into_owned(),
            };
        }
        text.truncate(text.floor_char_boundary(TEXT_LIMIT));
        text
    }

    /// A report in words.
    fn words(&self, rules: &Rules, head: &Head, text: &str, lower: &str) -> Option<Report> {
        let (words, copy) = split_copy(text);
        let mut told = read_prose(rules, words, &head.failed_recipients, &head.own);
        if let [one] = &mut told[..]
            && one.found.is_nothing()
        {
            // Some say why in the subject only.
            let found = judge(rules, &head.subject, None, "");
            if !found.is_nothing() {
                one.found = found;
                one.words = one_line(&head.subject);
            }
        }
        let is_told = told
            .iter()
            .any(|told| !told.found.is_nothing() || told.found.reply.code != 0);
        let has_evidence = is_told && (head.is_daemon || head.speaks_of_failure())
            || has(lower, FAILED_TEXT)
            || head.speaks_of_failure() && head.is_daemon
            || !head.failed_recipients.is_empty();
        if !has_evidence {
            return None;
        }
        let is_delay = has(&words.to_lowercase(), DELAYED)
            || has(&head.subject, &["delayed", "warning: could not send"]);
        let action = if is_delay {
            Action::Delayed
        } else {
            Action::Failed
        };
        let recipients = told
            .into_iter()
            .map(|told| of_words(told, action))
            .collect();
        let mut original = self.original();
        if original.is_empty() {
            original = read_original(copy.as_bytes());
        }
        Some(Report {
            form: Form::Words,
            reporting_mta: String::new(),
            envelope_id: String::new(),
            recipients,
            original,
        })
    }
}

/// What the text of a report in fields tells beside them; read when fields tell nothing.
struct Words<'a, 'p> {
    parts: &'p Parts<'a>,
    head: &'p Head,
    told: Option<Vec<Told>>,
    /// How often it was asked.
    asked: usize,
}

/// Recipients in fields that say nothing for whom the text is asked.
const MOST_ASKED: usize = 100;

impl Words<'_, '_> {
    /// Of the recipient, or of the only one that is told of; `None` when it was asked too often.
    fn about(&mut self, rules: &Rules, address: &str) -> Option<&Told> {
        if self.asked >= MOST_ASKED {
            return None;
        }
        self.asked += 1;
        let (parts, head) = (self.parts, self.head);
        let told = self.told.get_or_insert_with(|| {
            let text = parts.text();
            read_prose(rules, split_copy(&text).0, &[], &head.own)
        });
        let of_address = told
            .iter()
            .position(|told| told.address.eq_ignore_ascii_case(address));
        let position = of_address.or((told.len() == 1).then_some(0))?;
        told.get(position)
    }
}

fn of_group(rules: &Rules, group: Group, words: &mut Words<'_, '_>) -> Recipient {
    let address = if group.last.is_empty() {
        group.original.clone()
    } else {
        group.last.clone()
    };
    let action = group.action.unwrap_or(match group.status {
        _ if group.is_success => Action::Delivered,
        Some((4, _, _)) => Action::Delayed,
        _ => Action::Failed,
    });
    let mut recipient = Recipient {
        address,
        original_address: group.original,
        action,
        status: group.status,
        code: 0,
        diagnostic: one_line(&group.diagnostic),
        remote_mta: group.remote_mta,
        judgement: NO_JUDGEMENT,
    };
    if !matches!(action, Action::Failed | Action::Delayed) {
        return recipient;
    }
    let mut found = judge(
        rules,
        &recipient.diagnostic,
        group.status,
        &recipient.remote_mta,
    );
    if found.is_vague()
        && let Some(told) = words.about(rules, &recipient.address)
        && !told.found.is_nothing()
    {
        let said = judge(rules, &told.words, group.status, &recipient.remote_mta);
        if !said.is_vague() || found.is_nothing() {
            let reply = found.reply;
            found = said;
            if found.reply.code == 0 {
                found.reply = reply;
            }
            if recipient.diagnostic.is_empty() {
                recipient.diagnostic.clone_from(&told.words);
            }
        }
    }
    fill(&mut recipient, &found);
    recipient
}

fn of_words(told: Told, action: Action) -> Recipient {
    let mut recipient = Recipient {
        address: told.address,
        original_address: String::new(),
        action,
        status: None,
        code: 0,
        diagnostic: told.words,
        remote_mta: String::new(),
        judgement: NO_JUDGEMENT,
    };
    fill(&mut recipient, &told.found);
    recipient
}

fn fill(recipient: &mut Recipient, found: &Found) {
    recipient.code = found.reply.code;
    if found.reply.enhanced.is_some() {
        recipient.status = found.reply.enhanced;
    }
    recipient.judgement = Judgement {
        kind: match (recipient.action, found.judgement.kind) {
            (Action::Failed, kind) => kind,
            // Whoever goes on trying has not given up, whatever was said.
            _ => Kind::Transient,
        },
        reason: found.judgement.reason,
    };
}
