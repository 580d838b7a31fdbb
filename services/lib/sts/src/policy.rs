//! A policy, as it is fetched (RFC 8461 section 3.2).

use std::time::Duration;

use mail::Domain;

/// What is to happen when a host does not fit the policy (RFC 8461 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is sent to it.
    Enforce,
    /// It is noted, and the mail goes out.
    Testing,
    /// There is no policy any more.
    None,
}

/// What a domain asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How serious it is meant.
    pub mode: Mode,
    /// For so long it holds from when it was fetched: at most a year and a day.
    pub max_age: Duration,
    hosts: Vec<Pattern>,
}

/// The document is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It has octets that no text has.
    #[error("the policy is no text")]
    NoText,
    /// A line is no field.
    #[error("line {0} of the policy is no field")]
    NoField(usize),
    /// A field has a value that it can't have.
    #[error("line {0} of the policy has an invalid value")]
    Value(usize),
    /// There must be such a field.
    #[error("the policy has no {0}")]
    Missing(&'static str),
}

/// Names of mail hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    This(Domain),
    /// Those with exactly one label more.
    Below(Domain),
}

/// Names of hosts in a policy: a domain has twenty at most here, and each is compared with all of them.
const MOST_HOSTS: usize = 128;
/// Longest that a policy may hold: a year and a day.
const LONGEST: u64 = 31_557_600;

impl Policy {
    /// Reads a policy. Lines end with LF or CRLF; fields that are not known are passed over, and of those that are, all
    /// but the first, `mx` apart.
    pub fn parse(document: &[u8]) -> Result<Self, PolicyError> {
        let text = std::str::from_utf8(document).map_err(|_| PolicyError::NoText)?;
        let mut version = None;
        let mut mode = None;
        let mut max_age = None;
        let mut hosts = Vec::new();
        for (number, line) in (1..).zip(text.split('\n')) {
            let line = line.trim_end_matches(['\r', ' ', '\t']);
            if line.is_empty() {
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(PolicyError::NoField(number))?;
            let value = value.trim_start_matches([' ', '\t']);
            let wrong = PolicyError::Value(number);
            match name.trim_end_matches([' ', '\t']) {
                "version" if version.is_none() => {
                    version = Some(value).filter(|version| *version == "STSv1");
                    version.ok_or(wrong)?;
                }
                "mode" if mode.is_none() => {
                    mode = Some(match value {
                        "enforce" => Mode::Enforce,
                        "testing" => Mode::Testing,
                        "none" => Mode::None,
                        _ => return Err(wrong),
                    });
                }
                "max_age" if max_age.is_none() => max_age = Some(seconds(value).ok_or(wrong)?),
                "mx" if hosts.len() >= MOST_HOSTS => return Err(wrong),
                "mx" => hosts.push(Pattern::parse(value).ok_or(wrong)?),
                _ => {}
            }
        }
        version.ok_or(PolicyError::Missing("version"))?;
        let mode = mode.ok_or(PolicyError::Missing("mode"))?;
        let max_age = max_age.ok_or(PolicyError::Missing("max_age"))?;
        if hosts.is_empty() && mode != Mode::None {
            return Err(PolicyError::Missing("mx"));
        }
        Ok(Self {
            mode,
            max_age,
            hosts,
        })
    }

    /// Whether a mail host of this name (lower case, A-labels) may get mail of the domain (RFC 8461 section 4.1). Its
    /// certificate must be for the host's own name then, whatever the policy says.
    pub fn takes(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.fits(host))
    }

    /// The hosts that it takes, as it names them.
    pub fn hosts(&self) -> impl Iterator<Item = String> {
        self.hosts.iter().map(|pattern| match pattern {
            Pattern::This(name) => name.to_string(),
            Pattern::Below(name) => format!("*.{name}"),
        })
    }

    /// Its fields that are known, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mode = match self.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        };
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {mode}")];
        lines.extend(self.hosts().map(|host| format!("mx: {host}")));
        lines.push(format!("max_age: {}", self.max_age.as_secs()));
        lines
    }

    /// Octets that it takes up, about.
    pub(crate) fn weight(&self) -> usize {
        let of = |pattern: &Pattern| match pattern {
            Pattern::This(name) | Pattern::Below(name) => 32 + name.as_str().len(),
        };
        self.hosts.iter().map(of).sum()
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let domain = |name: &str| Domain::parse(name).ok().filter(|_| name.is_ascii());
        match text.strip_prefix("*.") {
            Some(rest) => domain(rest).map(Self::Below),
            None => domain(text).map(Self::This),
        }
    }

    fn fits(&self, host: &str) -> bool {
        match self {
            Self::This(name) => name.as_str() == host,
            Self::Below(name) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == name.as_str()),
        }
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let is_number =
        (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: u64 = text.parse().ok().filter(|_| is_number)?;
    Some(Duration::from_secs(seconds.min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str =
        "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n";

    #[test]
    fn reads_the_example_of_the_rfc_in_every_form() {
        let good = Policy::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(good.mode, Mode::Enforce);
        assert_eq!(good.max_age, Duration::from_secs(604_800));
        for other in [
            GOOD.replace('\n', "\r\n"),
            GOOD.replace(": ", ":"),
            GOOD.replace(": ", " : \t"),
            GOOD.replace('\n', " \t\n"),
            GOOD.trim_end().to_owned(),
            format!("\n{GOOD}\n\n"),
            format!("{GOOD}mode: none\nversion: STSv2\nmax_age: 1\n"),
            format!("unknown: ü\n{GOOD}x-y:\n"),
            GOOD.replace("mail.example", "MAIL.Example"),
        ] {
            assert_eq!(
                Policy::parse(other.as_bytes()),
                Ok(good.clone()),
                "{other:?}"
            );
        }
    }

    #[test]
    fn says_what_it_says() {
        let good = Policy::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(good.lines().join("\n") + "\n", GOOD);
        let hosts: Vec<String> = good.hosts().collect();
        assert_eq!(hosts, ["mail.example.com", "*.example.net"]);
    }

    #[test]
    fn says_what_is_wrong() {
        for (from, to, error) in [
            ("version: STSv1\n", "", PolicyError::Missing("version")),
            ("STSv1", "STSv2", PolicyError::Value(1)),
            ("STSv1", "stsv1", PolicyError::Value(1)),
            ("mode: enforce\n", "", PolicyError::Missing("mode")),
            ("enforce", "Enforce", PolicyError::Value(2)),
            ("max_age: 604800\n", "", PolicyError::Missing("max_age")),
            ("604800", "", PolicyError::Value(5)),
            ("604800", "-1", PolicyError::Value(5)),
            ("604800", "+1", PolicyError::Value(5)),
            ("604800", "12345678901", PolicyError::Value(5)),
            (
                "mx: mail.example.com\nmx: *.example.net\n",
                "",
                PolicyError::Missing("mx"),
            ),
            ("mail.example.com", "mail..example", PolicyError::Value(3)),
            ("mail.example.com", "", PolicyError::Value(3)),
            ("*.example.net", "*", PolicyError::Value(4)),
            ("*.example.net", "a.*.example.net", PolicyError::Value(4)),
            ("*.example.net", "*.*.example.net", PolicyError::Value(4)),
            ("*.example.net", "bücher.example", PolicyError::Value(4)),
            ("mode", "<html>\nmode", PolicyError::NoField(2)),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_eq!(Policy::parse(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(
            Policy::parse(b"version: STSv1\n\xff"),
            Err(PolicyError::NoText)
        );
        assert_eq!(Policy::parse(b""), Err(PolicyError::Missing("version")));
    }

    #[test]
    fn a_policy_that_ends_one_needs_no_hosts_and_no_policy_holds_for_ever() {
        let ended = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 9999999999\n").unwrap();
        assert_eq!(ended.mode, Mode::None);
        assert_eq!(ended.max_age, Duration::from_secs(LONGEST));
        assert!(!ended.takes("mail.example.com"));
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        let policy = Policy::parse(GOOD.as_bytes()).unwrap();
        for (host, takes) in [
            ("mail.example.com", true),
            ("a.mail.example.com", false),
            ("example.com", false),
            ("mx1.example.net", true),
            ("a.mx1.example.net", false),
            ("example.net", false),
            (".example.net", false),
            ("mx1.example.net.evil.example", false),
            ("mx1-example.net", false),
            ("", false),
        ] {
            assert_eq!(policy.takes(host), takes, "{host}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(document in "(version: STSv1|mode: none|mode:|max_age: ?[0-9]{0,12}|mx: [*.a-z-]{0,20}|[\\PC]{0,9}|\r?\n){0,12}") {
            if let Ok(policy) = Policy::parse(document.as_bytes()) {
                prop_assert!(policy.max_age.as_secs() <= LONGEST);
            }
        }
    }
}
