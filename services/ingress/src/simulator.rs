//! Addresses of the simulator: what each of them answers.
//!
//! They are read when they are accepted, and what they answer is stored with the recipient: no later change of the
//! configuration makes real mail of it.

use mail::Domain;
use proto::envelope::Simulated;
use smtp::EnhancedCode;

use crate::answer::Answer;

/// Deferrals of `defer-N`, and seconds of `slow-N`, at most.
const MOST_DEFERRALS: u32 = 100;
const MOST_SECONDS: u32 = 3600;
/// Seconds of `slow`.
const SLOW_SECONDS: u32 = 30;
/// Octets of a label.
const LONGEST_LABEL: usize = 64;

/// What the simulator knows.
const UNKNOWN: Answer = Answer::new(
    550,
    EnhancedCode(5, 1, 1),
    "No such address of the simulator; it has success, bounce, bounce+552-5.2.2, defer, defer+452-4.2.2, defer-2, slow and slow-10, each with a +label if you like",
);

/// What the simulator answers for an address; `None` when it is not the simulator's. Refused when it is, and means nothing.
pub(crate) fn simulated(simulator: &Domain, address: &str) -> Result<Option<Simulated>, Answer> {
    let of_simulator = address
        .rsplit_once('@')
        .filter(|(_, domain)| domain.eq_ignore_ascii_case(simulator.as_str()));
    match of_simulator {
        None => Ok(None),
        Some((local_part, _)) => read(&local_part.to_ascii_lowercase())
            .map(Some)
            .ok_or(UNKNOWN),
    }
}

fn read(local_part: &str) -> Option<Simulated> {
    let mut parts = local_part.splitn(3, '+');
    let (name, number) = match parts.next()?.split_once('-') {
        None => (local_part.split('+').next()?, None),
        Some((name, number)) => (name, Some(number.parse::<u32>().ok()?)),
    };
    let mut rest = parts.peekable();
    let code = rest.peek().filter(|part| is_code(part)).copied();
    if code.is_some() {
        rest.next();
    }
    // What is left is one label.
    let labels: Vec<&str> = rest.collect();
    if labels.len() > 1 || !labels.iter().all(|label| is_label(label)) {
        return None;
    }
    match (name, number, code) {
        ("success", None, None) => Some(accepts()),
        ("bounce", None, None) => Some(refuses(550, "5.1.1")),
        ("bounce", None, Some(code)) => read_code(code, '5'),
        ("defer", None, None) => Some(refuses(451, "4.3.0")),
        ("defer", None, Some(code)) => read_code(code, '4'),
        ("defer", Some(deferrals @ 1..=MOST_DEFERRALS), None) => Some(Simulated {
            deferrals,
            ..accepts()
        }),
        ("slow", None, None) => Some(after(SLOW_SECONDS)),
        ("slow", Some(seconds @ 1..=MOST_SECONDS), None) => Some(after(seconds)),
        _ => None,
    }
}

/// Whether what follows a "+" begins like a reply code: three digits, and nothing or "-" after them.
fn is_code(part: &str) -> bool {
    let octets = part.as_bytes();
    octets.len() >= 3
        && octets[..3].iter().all(u8::is_ascii_digit)
        && octets.get(3).is_none_or(|octet| *octet == b'-')
}

fn is_label(label: &str) -> bool {
    let is_part = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(is_part)
}

/// `552` or `552-5.2.2`, of this class.
fn read_code(text: &str, class: char) -> Option<Simulated> {
    let (code, enhanced) = match text.split_once('-') {
        Some((code, enhanced)) => (code, enhanced.to_owned()),
        None => (text, format!("{class}.0.0")),
    };
    let mut parts = enhanced.split('.');
    let is_class = parts.next()? == class.to_string();
    let numbers: Vec<u16> = parts.map(str::parse).collect::<Result<_, _>>().ok()?;
    let is_enhanced = is_class && numbers.len() == 2 && numbers.iter().all(|part| *part < 1000);
    (code.starts_with(class) && is_enhanced).then_some(())?;
    Some(refuses(code.parse().ok()?, &enhanced))
}

fn refuses(code: u32, enhanced: &str) -> Simulated {
    Simulated {
        code,
        enhanced: enhanced.to_owned(),
        ..Simulated::default()
    }
}

fn accepts() -> Simulated {
    refuses(250, "2.0.0")
}

fn after(seconds: u32) -> Simulated {
    Simulated {
        after_ms: seconds * 1000,
        ..accepts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Result<Option<(u32, String, u32, u32)>, u16> {
        let simulator = Domain::parse("simulator.example").unwrap();
        let answers = simulated(&simulator, address).map_err(|refusal| refusal.code)?;
        Ok(answers.map(|of| (of.code, of.enhanced, of.deferrals, of.after_ms)))
    }

    #[test]
    fn an_address_says_what_is_answered() {
        for (local_part, code, enhanced, deferrals, after_ms) in [
            ("success", 250, "2.0.0", 0, 0),
            ("Success+order-17", 250, "2.0.0", 0, 0),
            ("bounce", 550, "5.1.1", 0, 0),
            ("bounce+label", 550, "5.1.1", 0, 0),
            ("bounce+552", 552, "5.0.0", 0, 0),
            ("bounce+552-5.2.2", 552, "5.2.2", 0, 0),
            ("bounce+552-5.2.2+label", 552, "5.2.2", 0, 0),
            ("bounce+5520", 550, "5.1.1", 0, 0),
            ("defer", 451, "4.3.0", 0, 0),
            ("defer+452-4.2.2", 452, "4.2.2", 0, 0),
            ("defer-2", 250, "2.0.0", 2, 0),
            ("defer-100+x", 250, "2.0.0", 100, 0),
            ("slow", 250, "2.0.0", 0, 30_000),
            ("slow-10+x", 250, "2.0.0", 0, 10_000),
        ] {
            let expected = Ok(Some((code, enhanced.to_owned(), deferrals, after_ms)));
            assert_eq!(of(&format!("{local_part}@Simulator.Example")), expected);
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for local_part in [
            "nobody",
            "",
            "success+",
            "success+a+b",
            "success+250",
            "success-1",
            "bounce+450",
            "bounce+552-4.2.2",
            "bounce+552-5.2",
            "bounce+552-5.2.1000",
            "bounce+552-5.2.x",
            "bounce+552-5.2.2+",
            "bounce-3",
            "defer+550",
            "defer-0",
            "defer-101",
            "defer-two",
            "defer-2+452",
            "slow-3601",
            "\"success\"",
            "success+\u{e9}",
        ] {
            assert_eq!(
                of(&format!("{local_part}@simulator.example")),
                Err(550),
                "{local_part}"
            );
        }
        for other in [
            "success@example",
            "success@a.simulator.example",
            "postmaster",
        ] {
            assert_eq!(of(other), Ok(None), "{other}");
        }
    }
}
