//! SMTP replies within texts.

use classify::Stage;

/// What a text says in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reply {
    /// 0 when there is none.
    pub(crate) code: u16,
    pub(crate) enhanced: Option<(u8, u16, u16)>,
    /// Where the first of both stands in the text, octets.
    pub(crate) at: usize,
}

/// The first reply code that an enhanced code follows, else the first of either.
pub(crate) fn reply_in(text: &str) -> Reply {
    let mut first = Reply::default();
    let mut last_code = None;
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '.');
    for (position, token) in text
        .split(ends)
        .filter(|token| !token.is_empty())
        .enumerate()
    {
        let token = token.trim_matches('.');
        let at = token.as_ptr() as usize - text.as_ptr() as usize;
        if let Some(code) = code_of(token) {
            last_code = Some((position, code, at));
            if first.code == 0 {
                first.code = code;
                first.at = at;
            }
        } else if let Some(enhanced) = enhanced_of(token) {
            let before = last_code.filter(|(before, code, _)| {
                before + 1 == position && code / 100 == u16::from(enhanced.0)
            });
            if let Some((_, code, at)) = before {
                return Reply {
                    code,
                    enhanced: Some(enhanced),
                    at,
                };
            }
            first.enhanced.get_or_insert(enhanced);
        }
    }
    first
}

/// Reply codes of RFC 5321 and its extensions that say no.
fn code_of(token: &str) -> Option<u16> {
    let code: u16 = token.parse().ok()?;
    let is_one =
        token.len() == 3 && matches!(code, 421 | 430..=459 | 500..=504 | 510..=559 | 570..=579);
    is_one.then_some(code)
}

/// An enhanced code that says no (RFC 3463).
pub(crate) fn enhanced_of(token: &str) -> Option<(u8, u16, u16)> {
    let (first, rest) = token.split_once('.')?;
    let (subject, detail) = rest.split_once('.')?;
    let number = |text: &str| -> Option<u16> {
        let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse().ok())?
    };
    let first = match first {
        "4" => 4,
        "5" => 5,
        _ => return None,
    };
    Some((first, number(subject)?, number(detail)?))
}

/// At which command the reply came, where a text says so; programs name commands in many ways. What says nothing is taken for the
/// end of the message, since rules for other stages need a reason to be asked.
pub(crate) fn stage_in(text: &str) -> Stage {
    let lower = text.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if has(&[
        "end of data",
        "end of the message",
        "end-of-data",
        "final dot",
    ]) {
        Stage::FinalDot
    } else if has(&["rcpt to", "rcpt command"]) {
        Stage::Rcpt
    } else if has(&["mail from"]) {
        Stage::Mail
    } else if has(&["data command"]) {
        Stage::Data
    } else {
        Stage::FinalDot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_replies_among_words() {
        for (text, code, enhanced) in [
            ("smtp; 550 5.1.1 no such user", 550, Some((5, 1, 1))),
            ("550-5.7.26 unauthenticated", 550, Some((5, 7, 26))),
            ("host 192.0.2.5 said: 452 4.2.2 full", 452, Some((4, 2, 2))),
            ("#5.1.1 SMTP; 550 user unknown", 550, Some((5, 1, 1))),
            ("554 554 5.7.0 Header error", 554, Some((5, 7, 0))),
            ("(#4.4.3)", 0, Some((4, 4, 3))),
            ("550 bytes of 5.1 MB at 10:45:04", 550, None),
            ("587 and 404 and 1.2.3", 0, None),
            ("status 5.0.0, then 451 4.3.0", 451, Some((4, 3, 0))),
        ] {
            let reply = reply_in(text);
            assert_eq!((reply.code, reply.enhanced), (code, enhanced), "{text}");
        }
    }

    #[test]
    fn finds_the_command() {
        assert_eq!(stage_in("(in reply to RCPT TO command)"), Stage::Rcpt);
        assert_eq!(stage_in("after end of data:"), Stage::FinalDot);
        assert_eq!(stage_in("no such user"), Stage::FinalDot);
    }
}
