//! What is found.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Works, and somebody should know.
    Note,
    /// The DNS did not answer: nothing is known.
    Unknown,
    /// Mail will be refused, filtered, or not come back.
    Wrong,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// RFC 7208.
    Spf,
    /// RFC 6376.
    Dkim,
    /// RFC 7489 and its successors.
    Dmarc,
    /// Where bounces go.
    ReturnPath,
    /// Names of the addresses that are sent from.
    Names,
    /// RFC 8461.
    MtaSts,
    /// RFC 8460.
    TlsRpt,
}

impl Topic {
    /// As it is written, also for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spf => "spf",
            Self::Dkim => "dkim",
            Self::Dmarc => "dmarc",
            Self::ReturnPath => "return-path",
            Self::Names => "names",
            Self::MtaSts => "mta-sts",
            Self::TlsRpt => "tls-rpt",
        }
    }
}

/// A record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where, without the final dot.
    pub name: String,
    /// `TXT`, `MX`, `PTR`, `A` or `AAAA`.
    pub kind: &'static str,
    /// Its data; a text in one piece.
    pub value: String,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// What it is about.
    pub topic: Topic,
    /// What was looked at: a name or an address.
    pub at: String,
    /// What was found, in one sentence.
    pub what: String,
    /// What to publish instead.
    pub publish: Option<Record>,
}

impl Finding {
    pub(crate) fn new(verdict: Verdict, topic: Topic, at: &str, what: impl Into<String>) -> Self {
        Self {
            verdict,
            topic,
            at: at.to_owned(),
            what: what.into(),
            publish: None,
        }
    }

    pub(crate) fn publishing(self, name: &str, kind: &'static str, value: String) -> Self {
        let name = name.to_owned();
        Self {
            publish: Some(Record { name, kind, value }),
            ..self
        }
    }
}
