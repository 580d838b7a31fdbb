//! What names may be.

/// For messages.
pub(super) const LABEL_FORM: &str =
    "a name of at most 63 lower-case letters, digits, '-' and '.' is expected";

/// Names of resources, streams and sources: what Kubernetes takes too, and short enough for a label
/// of a metric.
pub(super) fn is_label(name: &str) -> bool {
    let edge = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
        })
}

/// A domain, exactly or with what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DomainMatch {
    /// Written `example.com`.
    Exact(mail::Domain),
    /// Written `.example.com`: every name below it, not itself.
    Below(mail::Domain),
}

impl DomainMatch {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (below, name) = match text.strip_prefix('.') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let domain = mail::Domain::parse(name).map_err(|error| {
            format!("a domain such as example.com or .example.com is expected ({error})")
        })?;
        Ok(if below {
            Self::Below(domain)
        } else {
            Self::Exact(domain)
        })
    }

    /// Whether `domain` (lower case, A-labels) is one of them.
    pub fn matches(&self, domain: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == domain,
            Self::Below(suffix) => domain
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }

    /// Longer suffixes before shorter ones, exact names before all.
    pub(crate) fn specificity(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Below(suffix) => suffix.as_str().len(),
        }
    }
}

impl std::fmt::Display for DomainMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(domain) => write!(f, "{domain}"),
            Self::Below(domain) => write!(f, ".{domain}"),
        }
    }
}
