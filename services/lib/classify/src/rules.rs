//! Rules as they are written in files: those in `rules/` are shipped, an installation may have more that come before them.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::phrases::{Finder, Groups, PhraseError};
use crate::words::words_of;
use crate::{Class, Observation, Reason, Stage};

/// As much of a text as is looked at, bytes.
pub(crate) const TEXT_LIMIT: usize = 2048;
/// The same in words.
const MOST_WORDS: usize = 400;

/// The files in their order: what names groups comes first.
const SHIPPED: [(&str, &str); 5] = [
    ("words.yaml", include_str!("../rules/words.yaml")),
    ("temporary.yaml", include_str!("../rules/temporary.yaml")),
    ("providers.yaml", include_str!("../rules/providers.yaml")),
    ("phrases.yaml", include_str!("../rules/phrases.yaml")),
    ("codes.yaml", include_str!("../rules/codes.yaml")),
];

static RULES: LazyLock<Rules> =
    LazyLock::new(|| Rules::read(&[]).expect("a test reads the shipped rules"));

/// Why a file of rules is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is no YAML, or not of this form.
    #[error("{file}: {what}")]
    Form {
        /// As it was called.
        file: String,
        /// What is wrong, and where.
        what: String,
    },
    /// A rule can't be.
    #[error("{file}: rule {rule} ({reason}): {what}")]
    Rule {
        /// As it was called.
        file: String,
        /// Its number in the file, from 1.
        rule: usize,
        /// Its reason.
        reason: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A phrase can't be.
    #[error("{file}: rule {rule}: {error}")]
    Phrase {
        /// As it was called.
        file: String,
        /// The number of its rule in the file, from 1.
        rule: usize,
        /// What is wrong.
        error: PhraseError,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    #[serde(default)]
    words: Groups,
    #[serde(default)]
    rules: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    reason: Reason,
    #[serde(default)]
    temporary: bool,
    #[serde(default)]
    certain: bool,
    #[serde(default)]
    precise: bool,
    #[serde(default)]
    stages: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    codes: Vec<u16>,
    #[serde(default)]
    enhanced: Vec<String>,
    #[serde(default)]
    phrases: Vec<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "it is for those who read the file")]
    why: String,
}

/// When a rule is asked; the first that fits gives the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// For 5xx that are temporary in truth.
    Temporary,
    /// Words that mean more than any code.
    Certain,
    /// Codes that are used for what they mean.
    Precise,
    Words,
    Enhanced,
    Code,
}

/// Subject and detail of an enhanced code, and for which replies.
#[derive(Debug, Clone, Copy)]
struct EnhancedCode {
    /// 4 or 5 as the reply has it; `None`: both.
    digit: Option<u16>,
    subject: u16,
    /// `None`: any.
    detail: Option<u16>,
}

#[derive(Debug)]
struct Rule {
    turn: Turn,
    reason: Reason,
    stages: Vec<Stage>,
    hosts: Vec<String>,
    codes: Vec<u16>,
    enhanced: Vec<EnhancedCode>,
    has_phrases: bool,
}

/// Rules by which the reason of a reply is found. Nothing changes them; the shipped ones are made once.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    finder: Finder,
}

/// A reply as rules look at it.
pub(crate) struct Looked<'a> {
    seen: &'a Observation<'a>,
    host: &'a str,
    lower: String,
    /// Numbers of the rules that have a phrase in the text.
    found: Vec<usize>,
}

impl Looked<'_> {
    pub(crate) fn stage(&self) -> Stage {
        self.seen.stage
    }
}

impl Rules {
    /// Those that are shipped.
    pub fn shipped() -> &'static Self {
        &RULES
    }

    /// Those of the files (name, content), before those that are shipped. Words that a file gives to a group come to those that
    /// are shipped.
    ///
    /// # Errors
    /// When one of the files is not of the form that `docs/bounces.md` describes.
    pub fn read(files: &[(&str, &str)]) -> Result<Self, RulesError> {
        let mut read = Vec::new();
        let mut groups = Groups::new();
        for (name, text) in files.iter().chain(&SHIPPED) {
            let file: File = serde_saphyr::from_str(text).map_err(|error| RulesError::Form {
                file: (*name).into(),
                what: error.to_string(),
            })?;
            for (group, words) in file.words {
                groups.entry(group).or_default().extend(words);
            }
            read.push((*name, file.rules));
        }
        let mut rules = Self {
            rules: Vec::new(),
            finder: Finder::default(),
        };
        for (file, written) in read {
            for (number, written) in written.into_iter().enumerate() {
                rules.add(file, number + 1, written, &groups)?;
            }
        }
        Ok(rules)
    }

    fn add(
        &mut self,
        file: &str,
        number: usize,
        written: Written,
        groups: &Groups,
    ) -> Result<(), RulesError> {
        for phrase in &written.phrases {
            let added = self.finder.add(phrase, self.rules.len(), groups);
            added.map_err(|error| RulesError::Phrase {
                file: file.into(),
                rule: number,
                error,
            })?;
        }
        let reason = written.reason.name();
        let rule = Rule::read(written).map_err(|what| RulesError::Rule {
            file: file.into(),
            rule: number,
            reason,
            what,
        })?;
        self.rules.push(rule);
        Ok(())
    }

    pub(crate) fn look<'a>(&self, seen: &'a Observation<'a>, host: &'a str) -> Looked<'a> {
        let text = &seen.text[..seen.text.floor_char_boundary(TEXT_LIMIT)];
        Looked {
            seen,
            host,
            lower: text.to_ascii_lowercase(),
            found: self.finder.rules_in(&words_of(text, MOST_WORDS)),
        }
    }

    /// Why a 5xx is temporary in truth, if it is. "Try again later" does not count after a code that says that an address is wrong
    /// or its mailbox full, unless the rule names that code.
    pub(crate) fn temporary(&self, looked: &Looked<'_>) -> Option<Reason> {
        let is_final = looked.seen.enhanced.is_some_and(is_final);
        let mut rules = self.rules.iter().enumerate();
        rules
            .find(|(number, rule)| {
                let is_vague = rule.reason == Reason::Unspecified && rule.enhanced.is_empty();
                rule.turn == Turn::Temporary
                    && !(is_final && is_vague)
                    && rule.fits(*number, looked)
            })
            .map(|(_, rule)| rule.reason)
    }

    /// The reason that the reply gives itself, by words or an enhanced code.
    pub(crate) fn given(&self, looked: &Looked<'_>) -> Option<Reason> {
        let by_code = self.first(looked, Turn::Precise);
        let certain = self.first(looked, Turn::Certain);
        let agrees =
            by_code.is_some_and(Reason::is_about_address) && self.speaks_of_address(looked);
        certain
            .filter(|certain| !agrees || certain.is_about_address())
            .or(by_code)
            .or_else(|| self.by_words_or_enhanced(looked))
    }

    /// Words before the code, but for words about an address behind a code of policy or content.
    fn by_words_or_enhanced(&self, looked: &Looked<'_>) -> Option<Reason> {
        let by_words = self.first(looked, Turn::Words);
        let enhanced = self.first(looked, Turn::Enhanced);
        let is_refusal = |code: &Reason| matches!(code.class(), Class::Policy | Class::Content);
        enhanced
            .filter(|code| by_words.is_some_and(Reason::is_about_address) && is_refusal(code))
            .or(by_words)
            .or(enhanced)
    }

    /// The reason by the reply code alone.
    pub(crate) fn by_code(&self, looked: &Looked<'_>) -> Option<Reason> {
        self.first(looked, Turn::Code)
    }

    /// Whether words say that there is no such mailbox, whatever else they say.
    fn speaks_of_address(&self, looked: &Looked<'_>) -> bool {
        let found = looked.found.iter().map(|number| &self.rules[*number]);
        found
            .filter(|rule| matches!(rule.turn, Turn::Words | Turn::Certain))
            .any(|rule| rule.reason.is_about_address())
    }

    fn first(&self, looked: &Looked<'_>, turn: Turn) -> Option<Reason> {
        let mut rules = self.rules.iter().enumerate();
        rules
            .find(|(number, rule)| rule.turn == turn && rule.fits(*number, looked))
            .map(|(_, rule)| rule.reason)
    }
}

/// Codes behind which another attempt does not help, whatever the text asks for.
const fn is_final(enhanced: (u8, u16, u16)) -> bool {
    matches!(enhanced, (5, 1, 1 | 2 | 3 | 6 | 10) | (5, 2, 2))
}

impl Rule {
    fn read(written: Written) -> Result<Self, String> {
        let stages = written.stages.iter().map(|stage| match &stage[..] {
            "mail" => Ok(Stage::Mail),
            "rcpt" => Ok(Stage::Rcpt),
            "data" => Ok(Stage::Data),
            "finalDot" => Ok(Stage::FinalDot),
            other => Err(format!(
                "{other:?} is none of the stages mail, rcpt, data, finalDot"
            )),
        });
        let enhanced: Vec<EnhancedCode> = written
            .enhanced
            .iter()
            .map(|text| EnhancedCode::read(text))
            .collect::<Result<_, _>>()?;
        let has_phrases = !written.phrases.is_empty();
        if !has_phrases && enhanced.is_empty() && written.codes.is_empty() {
            return Err("it needs phrases, enhanced or codes".into());
        }
        if let Some(code) = written
            .codes
            .iter()
            .find(|code| !(400..=599).contains(*code))
        {
            return Err(format!("{code} is no reply code from 400 to 599"));
        }
        if let Some(host) = written.hosts.iter().find(|host| host.len() < 4) {
            return Err(format!("{host:?} is no end of a host's name"));
        }
        let turn = match (written.temporary, written.certain, written.precise) {
            (true, false, false) => Turn::Temporary,
            (false, true, false) if has_phrases => Turn::Certain,
            (false, false, true) if !enhanced.is_empty() => Turn::Precise,
            (false, false, false) if has_phrases => Turn::Words,
            (false, false, false) if !enhanced.is_empty() => Turn::Enhanced,
            (false, false, false) => Turn::Code,
            _ => {
                return Err(
                    "it is temporary, certain (with phrases) or precise (with enhanced)".into(),
                );
            }
        };
        Ok(Self {
            turn,
            reason: written.reason,
            stages: stages.collect::<Result<_, _>>()?,
            hosts: written
                .hosts
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
            codes: written.codes,
            enhanced,
            has_phrases,
        })
    }

    fn fits(&self, number: usize, looked: &Looked<'_>) -> bool {
        let seen = looked.seen;
        (!self.has_phrases || looked.found.contains(&number))
            && (self.stages.is_empty() || self.stages.contains(&seen.stage))
            && (self.codes.is_empty() || self.codes.contains(&seen.code))
            && (self.enhanced.is_empty() || self.enhanced.iter().any(|code| code.fits(seen)))
            && (self.hosts.is_empty()
                || self.hosts.iter().any(|host| {
                    looked.lower.contains(&host[..])
                        || looked.host.to_ascii_lowercase().ends_with(&host[..])
                }))
    }
}

impl EnhancedCode {
    /// `5.1.1`, `x.1.1` for 4 and 5, `x.1` for all of a subject.
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not of the form 5.1.1, x.1.1 or x.1");
        let mut parts = text.split('.');
        let digit = match parts.next() {
            Some("4") => Some(4),
            Some("5") => Some(5),
            Some("x") => None,
            _ => return Err(wrong()),
        };
        let number = |part: &str| part.parse::<u16>().map_err(|_| wrong());
        let subject = number(parts.next().ok_or_else(wrong)?)?;
        let detail = parts.next().map(number).transpose()?;
        match parts.next() {
            None => Ok(Self {
                digit,
                subject,
                detail,
            }),
            Some(_) => Err(wrong()),
        }
    }

    /// The digit of the reply counts, when there was one: an enhanced code may contradict it.
    fn fits(self, seen: &Observation<'_>) -> bool {
        let Some((first, subject, detail)) = seen.enhanced else {
            return false;
        };
        let digit = match seen.code / 100 {
            0 => u16::from(first),
            digit => digit,
        };
        self.digit.is_none_or(|wanted| wanted == digit)
            && self.subject == subject
            && self.detail.is_none_or(|wanted| wanted == detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Rules::read(&[("own.yaml", text)]).unwrap_err().to_string()
    }

    #[test]
    fn what_an_installation_says_comes_before_what_is_shipped() {
        let own = "words: { absent: [ gone fishing ] }\nrules:\n- { reason: throttled, temporary: true, codes: [550], \
                   hosts: [.slow.example], phrases: [not now] }\n- { reason: policy, phrases: [our own word] }\n";
        let rules = Rules::read(&[("own.yaml", own)]).unwrap();
        let seen = |text| Observation {
            stage: Stage::Rcpt,
            code: 550,
            enhanced: None,
            text,
            dot_sent: false,
        };
        let words = "mailbox full, our own word";
        assert_eq!(
            rules.judge_report(&seen("user gone fishing"), "").reason,
            Reason::UnknownMailbox
        );
        assert_eq!(
            rules
                .judge_report(&seen("our own word, no such user"), "")
                .reason,
            Reason::Policy
        );
        // What is certain stays so.
        assert_eq!(
            rules.judge_report(&seen(words), "").reason,
            Reason::MailboxFull
        );
        assert!(
            rules
                .temporary(&rules.look(&seen("Not now"), "mx.slow.example"))
                .is_some()
        );
        assert!(
            rules
                .temporary(&rules.look(&seen("Not now"), "mx.example"))
                .is_none()
        );
        assert!(
            rules
                .temporary(&rules.look(&seen("mx.slow.example said: not now"), ""))
                .is_some()
        );
    }

    #[test]
    fn says_where_a_file_is_wrong() {
        for (text, what) in [
            (
                "rules: [ { reason: policy } ]",
                "own.yaml: rule 1 (policy): it needs phrases, enhanced or codes",
            ),
            (
                "rules: [ { reason: policy, codes: [250] } ]",
                "250 is no reply code",
            ),
            (
                "rules: [ { reason: policy, enhanced: [7.1] } ]",
                "is not of the form",
            ),
            (
                "rules: [ { reason: policy, stages: [ehlo], codes: [550] } ]",
                "none of the stages",
            ),
            (
                "rules: [ { reason: policy, precise: true, codes: [550] } ]",
                "it is temporary, certain",
            ),
            (
                "rules: [ { reason: policy, hosts: [x], codes: [550] } ]",
                "no end of a host's name",
            ),
            (
                "rules: [ { reason: policy, phrases: ['{none}'] } ]",
                "own.yaml: rule 1: \"{none}\": there are no words",
            ),
            ("rules: [ { reason: bad, codes: [550] } ]", "own.yaml: "),
            ("rule: []", "own.yaml: "),
        ] {
            let error = error(text);
            assert!(error.contains(what), "{error}");
        }
    }
}
