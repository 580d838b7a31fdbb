//! Reports in words: who was not reached, and the words that tell why.
//!
//! Nothing here knows a program by name. A report names addresses that are neither its author nor its reader, at the beginnings of
//! lines or after words such as RCPT TO; what tells why stands near; and a copy of the message comes last.

use classify::Rules;

use crate::address::addresses_in;
use crate::judge::{Found, judge};
use crate::line::{field_in, one_line};
use crate::signs::{COPIES, has};

/// As much of a text as is read, octets.
pub(crate) const TEXT_LIMIT: usize = 32 * 1024;
/// Recipients of a report in words.
const MOST_RECIPIENTS: usize = 100;
/// Places where addresses stand that are looked at.
const MOST_MENTIONS: usize = 4 * MOST_RECIPIENTS;
/// As much of a line before an address as is looked at, octets.
const MOST_BEFORE: usize = 200;
/// Lines that are read.
const MOST_LINES: usize = 600;
/// Lines of one place that tell about a recipient.
const MOST_BLOCK: usize = 12;
/// Paragraphs behind the first that may tell why.
const MOST_PARAGRAPHS: usize = 5;

/// Before the copy of the message, and that copy from its first field on.
pub(crate) fn split_copy(text: &str) -> (&str, &str) {
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').peekable();
    let mut seen_words = false;
    while let Some(line) = lines.next() {
        let bare = line.trim().trim_start_matches(['>', '|', ' ']);
        let next = lines.peek().copied().unwrap_or_default();
        if seen_words && begins_copy(line, next) {
            return (
                &text[..at],
                &text[at + (line.len() - line.trim_start().len())..],
            );
        }
        if seen_words && is_marker(bare) {
            return (&text[..at], &text[at + line.len()..]);
        }
        seen_words |= !bare.is_empty();
        at += line.len();
    }
    (text, "")
}

/// `--- Below this line is a copy of the message.`
fn is_marker(line: &str) -> bool {
    let is_set_off = line.starts_with(['-', '*', '=', '_', '+', '#'])
        || line.ends_with([':', '-', '.', '*', '_']);
    let lower = line.to_lowercase();
    // `These did not receive a copy of your message:`
    is_set_off && line.len() < 200 && !lower.contains(" not ") && has(&lower, COPIES)
}

/// Fields that only the copy of a message has.
fn begins_copy(line: &str, next: &str) -> bool {
    let Some((name, _)) = field_in(line.as_bytes()) else {
        return false;
    };
    let is_one = [
        "received",
        "return-path",
        "message-id",
        "dkim-signature",
        "delivered-to",
        "mime-version",
    ]
    .iter()
    .any(|known| name.eq_ignore_ascii_case(known));
    is_one && (next.starts_with([' ', '\t']) || field_in(next.as_bytes()).is_some())
}

/// Somebody of whom a text tells.
#[derive(Debug)]
pub(crate) struct Told {
    /// Empty when the text names nobody.
    pub(crate) address: String,
    pub(crate) words: String,
    pub(crate) found: Found,
}

struct Mention<'a> {
    line: usize,
    address: &'a str,
    is_strong: bool,
}

/// Reads a text without the copy of the message. `known`: who was not reached, when fields say it; `own`: addresses in lower case
/// that are none of them.
pub(crate) fn read_prose(rules: &Rules, text: &str, known: &[String], own: &[String]) -> Vec<Told> {
    let lines: Vec<&str> = text.lines().take(MOST_LINES).collect();
    let mentions = mentions(&lines, known, own);
    let mut addresses: Vec<&str> = Vec::new();
    for address in known
        .iter()
        .map(String::as_str)
        .chain(mentions.iter().map(|mention| mention.address))
    {
        let is_new = !addresses
            .iter()
            .any(|other| other.eq_ignore_ascii_case(address));
        if is_new && addresses.len() < MOST_RECIPIENTS {
            addresses.push(address);
        }
    }
    match &addresses[..] {
        [] => vec![told(rules, "", &lines, &[0])],
        [one] => {
            let places: Vec<usize> = mentions.iter().map(|mention| mention.line).collect();
            let places = if places.is_empty() { &[0][..] } else { &places };
            vec![told(rules, one, &lines, places)]
        }
        several => {
            let told = several
                .iter()
                .map(|address| one_of_several(rules, address, &lines, &mentions));
            with_common_reason(rules, told.collect(), &lines)
        }
    }
}

/// When none of several has a reason of its own, the text may give one for all.
fn with_common_reason(rules: &Rules, mut told: Vec<Told>, lines: &[&str]) -> Vec<Told> {
    if told.iter().any(|told| !told.found.is_vague()) {
        return told;
    }
    let mut all = Best::default();
    all.look(rules, lines);
    if let Some(found) = all.found.filter(|found| !found.is_nothing()) {
        for told in told.iter_mut().filter(|told| told.found.is_nothing()) {
            told.words.clone_from(&all.words);
            told.found = found.clone();
        }
    }
    told
}

/// Where addresses stand, only the better places when there are some.
fn mentions<'a>(lines: &[&'a str], known: &[String], own: &[String]) -> Vec<Mention<'a>> {
    let mut mentions = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let lower = line.to_lowercase();
        if lower.contains("message-id") || lower.contains("message id") {
            continue;
        }
        for found in addresses_in(line) {
            if mentions.len() >= MOST_MENTIONS {
                break;
            }
            let address = found.address.to_lowercase();
            let is_known = known
                .iter()
                .any(|other| other.eq_ignore_ascii_case(&address));
            let before = Before::of(line, found.at);
            if is_known
                || (known.is_empty()
                    && !own.contains(&address)
                    && !is_servant(&address)
                    && !is_author(before.text))
            {
                mentions.push(Mention {
                    line: number,
                    address: found.address,
                    is_strong: is_known
                        || (!is_of_summary(lines, number)
                            && is_strong(before, &line[found.at + found.address.len()..])),
                });
            }
        }
    }
    if mentions.iter().any(|mention| mention.is_strong) {
        mentions.retain(|mention| mention.is_strong);
    }
    mentions
}

/// What stands before an address in its line.
#[derive(Clone, Copy)]
struct Before<'a> {
    text: &'a str,
    /// The line begins farther left.
    is_cut: bool,
}

impl<'a> Before<'a> {
    /// At most [`MOST_BEFORE`] octets and a character, or a line of addresses would be read again for each of them.
    fn of(line: &'a str, at: usize) -> Self {
        let start = line.floor_char_boundary(at.saturating_sub(MOST_BEFORE));
        Self {
            text: &line[start..at],
            is_cut: start > 0,
        }
    }
}

/// `To:` beside `Subject:`: to whom the message said that it is, which may be a list.
fn is_of_summary(lines: &[&str], number: usize) -> bool {
    let begins = |line: &&str, name: &str| {
        let start = line.trim_start().get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let around = &lines[number.saturating_sub(3)..(number + 4).min(lines.len())];
    begins(&lines[number], "to:") && around.iter().any(|line| begins(line, "subject:"))
}

/// Addresses that are given for questions.
fn is_servant(address: &str) -> bool {
    let local = address.split('@').next().unwrap_or_default();
    [
        "postmaster",
        "mailer-daemon",
        "abuse",
        "hostmaster",
        "support",
        "helpdesk",
        "help",
        "noreply",
        "no-reply",
        "webmaster",
    ]
    .contains(&local)
}

/// Words before the address of whoever wrote, or of whom to ask.
fn is_author(before: &str) -> bool {
    let lower = before.to_lowercase();
    let last = lower
        .trim_end_matches(|c: char| !c.is_alphanumeric())
        .rsplit(|c: char| !(c.is_alphanumeric() || c == '-'))
        .next()
        .unwrap_or_default();
    [
        "from",
        "sender",
        "contact",
        "von",
        "reply-to",
        "mailto",
        "mittente",
        "absender",
        "expediteur",
        "remitente",
    ]
    .contains(&last)
        && !lower.contains("rcpt")
        && !lower.contains("generated from")
}

/// At the beginning of the line, or after a word that says so.
fn is_strong(before: Before<'_>, after: &str) -> bool {
    let is_cut = before.is_cut;
    let before = before
        .text
        .trim_matches(|c: char| c.is_whitespace() || "<\"'([*->•·:=".contains(c));
    let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == ' ';
    if !is_cut && before.chars().all(is_number) {
        // `<a@b.example>: reason`, alone on its line, or after a reply code.
        return true;
    }
    let lower = before.to_lowercase();
    let named = [
        "rcpt to",
        "recipient",
        "recipients",
        "rfc822",
        "smtp",
        "to",
        "destinatario",
        "destinataire",
        "empfänger",
        "user",
        "userid",
        "address",
        "addressee",
        "mailbox",
        "for",
        "получатель",
        "收件人",
        "宛先",
        "failed",
        "unknown user",
        "an",
        "a",
        "à",
        "para",
        "aan",
    ];
    let words = lower.trim_end_matches(|c: char| !c.is_alphanumeric());
    named.iter().any(|name| {
        words
            .strip_suffix(name)
            .is_some_and(|rest| !rest.ends_with(char::is_alphanumeric))
    }) && !after.trim_start().starts_with('?')
}

/// The nearest words that tell something, with a code if there are any: of the places' paragraphs, then of what follows, then of
/// all.
fn told(rules: &Rules, address: &str, lines: &[&str], places: &[usize]) -> Told {
    let mut best = Best::default();
    for place in places.iter().take(4) {
        let mut at = paragraph_start(lines, *place);
        // Lines above an address in its paragraph are of others more often than not, unless the address ends it.
        if *place > at && place + 1 < lines.len() && !lines[place + 1].trim().is_empty() {
            at = *place;
        }
        for _ in 0..MOST_PARAGRAPHS {
            let end = paragraph_end(lines, at);
            best.look(rules, &lines[at..end]);
            at = end
                + lines[end..]
                    .iter()
                    .take_while(|line| line.trim().is_empty())
                    .count();
            if at >= lines.len() || best.is_sure() {
                break;
            }
        }
        if best.is_sure() {
            break;
        }
    }
    if !best.tells() {
        best.look(rules, lines);
    }
    best.told(rules, address)
}

/// The best words so far: those with a code before those without, what is not vague before what is, and the first of equals.
#[derive(Default)]
struct Best {
    rank: u8,
    words: String,
    found: Option<Found>,
}

impl Best {
    fn look(&mut self, rules: &Rules, lines: &[&str]) {
        let words = one_line(&lines.join("\n"));
        let found = judge(rules, &words, None, "");
        let has_code = found.reply.code != 0 || found.reply.enhanced.is_some();
        let rank = match (found.is_vague(), has_code) {
            (false, true) => 4,
            (false, false) => 3,
            _ if !found.is_nothing() => 2,
            _ => 1,
        };
        if rank > self.rank {
            *self = Self {
                rank,
                words,
                found: Some(found),
            };
        }
    }

    /// It is enough.
    fn tells(&self) -> bool {
        self.rank >= 3
    }

    /// Nothing better can be.
    fn is_sure(&self) -> bool {
        self.rank == 4
    }

    fn told(self, rules: &Rules, address: &str) -> Told {
        Told {
            address: address.to_owned(),
            words: self.words,
            found: self.found.unwrap_or_else(|| judge(rules, "", None, "")),
        }
    }
}

fn paragraph_start(lines: &[&str], at: usize) -> usize {
    let before = lines[..at].iter().rposition(|line| line.trim().is_empty());
    before.map_or(0, |empty| empty + 1)
}

fn paragraph_end(lines: &[&str], at: usize) -> usize {
    let after = lines[at..].iter().position(|line| line.trim().is_empty());
    after.map_or(lines.len(), |length| (at + length).max(at + 1))
}

/// Of several recipients each has the lines from where it is named to where another is.
fn one_of_several(rules: &Rules, address: &str, lines: &[&str], mentions: &[Mention<'_>]) -> Told {
    let mut best = Best::default();
    let is_it = |mention: &&Mention<'_>| mention.address.eq_ignore_ascii_case(address);
    for mention in mentions.iter().filter(is_it).take(4) {
        let other = mentions
            .iter()
            .find(|other| other.line > mention.line && !is_it(other))
            .map_or(lines.len(), |other| other.line);
        let end = other.min(mention.line + MOST_BLOCK).max(mention.line + 1);
        best.look(rules, &lines[mention.line..end]);
        if best.is_sure() {
            break;
        }
    }
    if !best.tells() {
        // A list of recipients, and a reason for all of them.
        let last = mentions.last().map_or(0, |mention| mention.line);
        let end = (last + 2 * MOST_BLOCK).min(lines.len());
        best.look(rules, &lines[paragraph_start(lines, last).min(end)..end]);
    }
    best.told(rules, address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use classify::Reason;

    fn read(text: &str) -> Vec<(String, Reason)> {
        let own = ["me@x.example".to_owned()];
        let (text, _) = split_copy(text);
        read_prose(Rules::shipped(), text, &[], &own)
            .into_iter()
            .map(|told| (told.address, told.found.judgement.reason))
            .collect()
    }

    fn one(address: &str, reason: Reason) -> Vec<(String, Reason)> {
        vec![(address.to_owned(), reason)]
    }

    #[test]
    fn finds_who_was_not_reached_and_why() {
        let text = "Sorry, this did not work out.\nA message from me@x.example, or ask help@y.example.\n\n<a@b.example>:\n\
                    192.0.2.1 does not like it.\nRemote host said: 550 no such user\n\n--- Below this line is a copy of the message.\n\n\
                    Return-Path: <z@x.example>\n";
        assert_eq!(read(text), one("a@b.example", Reason::UnknownMailbox));
        let text = "Your message to\n   a@b.example\n\ncould not be delivered. The reason is below.\n\nMailbox is full\n";
        assert_eq!(read(text), one("a@b.example", Reason::MailboxFull));
        let text = "It failed.\nRCPT TO:<a@b.example> gave\n550 blocked using a list\n";
        assert_eq!(read(text), one("a@b.example", Reason::Reputation));
    }

    #[test]
    fn gives_each_of_several_its_own_reason() {
        let text = "<a@b.example>: user unknown\n\n<c@d.example>: mailbox full\n";
        assert_eq!(
            read(text),
            [
                ("a@b.example".to_owned(), Reason::UnknownMailbox),
                ("c@d.example".to_owned(), Reason::MailboxFull)
            ]
        );
        let text = "These failed:\n  a@b.example\n  c@d.example\nThere is no such domain\n";
        let found = read(text);
        assert!(
            found
                .iter()
                .all(|(_, reason)| *reason == Reason::NoSuchDomain),
            "{found:?}"
        );
    }

    #[test]
    fn a_reason_before_several_is_that_of_all() {
        let text =
            "The host is not responding.\n\nNot reached:\n\n<a@b.example>\n\n<c@d.example>\n";
        let found = read(text);
        assert_eq!(found.len(), 2);
        assert!(
            found
                .iter()
                .all(|(_, reason)| *reason == Reason::Infrastructure),
            "{found:?}"
        );
    }

    #[test]
    fn a_long_line_of_addresses_is_read_with_bounded_work() {
        let mut line = "é ".to_owned();
        while line.len() < 64 * 1024 {
            line.push_str("é <a@b.example>, ");
        }
        assert_eq!(mentions(&[&line[..]; 3], &[], &[]).len(), MOST_MENTIONS);
        let longest = addresses_in(&line).map(|found| Before::of(&line, found.at).text.len());
        assert!(
            longest
                .max()
                .is_some_and(|length| length <= MOST_BEFORE + 3)
        );
        assert_eq!(read(&line), one("a@b.example", Reason::Unspecified));
    }

    #[test]
    fn the_beginning_of_a_line_is_near() {
        for (before, is_expected) in [(" ".repeat(150), true), (" ".repeat(250), false)] {
            let line = format!("{before}a@b.example");
            let is_strong = mentions(&[&line[..]], &[], &[])[0].is_strong;
            assert_eq!(is_strong, is_expected, "{}", before.len());
        }
    }

    #[test]
    fn finds_where_the_copy_begins() {
        for (text, rest) in [
            (
                "no\n\n--- Original message ---\nSubject: s\n",
                "Subject: s\n",
            ),
            (
                "no\n\nReceived: from x\n\tby y\nSubject: s\n",
                "Received: from x\n\tby y\nSubject: s\n",
            ),
            ("no copy of a message\n", ""),
            ("no\nThese did not receive a copy of your message:\n", ""),
            ("no\nMessage-ID: <1@x>\n", ""),
        ] {
            assert_eq!(split_copy(text).1, rest, "{text}");
        }
    }

    #[test]
    fn says_why_when_nobody_is_named() {
        assert_eq!(
            read("Your message was refused, since it has a virus."),
            one("", Reason::Malware)
        );
        assert_eq!(read(""), one("", Reason::Unspecified));
    }
}
