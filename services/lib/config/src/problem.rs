//! What is wrong with a document.

use std::cell::RefCell;
use std::fmt;

/// One thing that is wrong, where it is, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Document and field, such as `doc 3 Credential/acme-app spec.tenant`; empty for a whole file.
    pub at: String,
    /// Line in the text, from 1; `None` when it does not come from a text.
    pub line: Option<u32>,
    /// What is wrong, and what was expected.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match (self.at.as_str(), self.line) {
            ("", None) => String::new(),
            ("", Some(line)) => format!("line {line}: "),
            (at, None) => format!("{at}: "),
            (at, Some(line)) => format!("{at} (line {line}): "),
        };
        write!(f, "{place}{}", self.what)
    }
}

/// Collects problems while documents are read, so that all are reported at once.
#[derive(Debug, Default)]
pub struct Problems {
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn add(&self, at: impl Into<String>, line: Option<u32>, what: impl Into<String>) {
        self.found.borrow_mut().push(Problem {
            at: at.into(),
            line,
            what: what.into(),
        });
    }

    /// `value` when there was no problem, else all of them.
    pub fn none_or<T>(self, value: T) -> Result<T, Vec<Problem>> {
        let found = self.found.into_inner();
        if found.is_empty() {
            Ok(value)
        } else {
            Err(found)
        }
    }

    /// Whether there is none so far.
    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }
}
