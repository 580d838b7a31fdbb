//! Reading typed fields out of a map, with every problem collected.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use mail::Domain;

use crate::{Node, NodeValue, Problems};

/// The fields of one map of a document. Each reader notes its name; `close` reports what no reader
/// asked for. A reader that finds a problem reports it and gives `None` (or an empty value), so
/// that reading goes on and finds the next one.
pub struct Fields<'a> {
    prefix: String,
    path: String,
    line: Option<u32>,
    entries: &'a [(String, Node)],
    known: RefCell<Vec<&'static str>>,
    problems: &'a Problems,
}

impl<'a> Fields<'a> {
    /// Opens a map. `prefix` says which document it is and comes before every path; it may be empty.
    pub fn open(prefix: &str, path: &str, node: &'a Node, problems: &'a Problems) -> Self {
        let entries = match &node.value {
            NodeValue::Map(entries) => entries.as_slice(),
            NodeValue::Null => &[],
            other => {
                let at = joined(prefix, path);
                problems.add(
                    at,
                    node.line,
                    format!("a map is expected, found {}", other.describe()),
                );
                &[]
            }
        };
        Self {
            prefix: prefix.to_owned(),
            path: path.to_owned(),
            line: node.line,
            entries,
            known: RefCell::default(),
            problems,
        }
    }

    /// The line that the map is on.
    pub fn line(&self) -> Option<u32> {
        self.line
    }

    /// Whether the field is there and not null.
    pub fn is_given(&self, name: &'static str) -> bool {
        self.present(name).is_some()
    }

    /// Whether the field is a list without anything in it.
    pub fn is_empty_list(&self, name: &'static str) -> bool {
        self.present(name)
            .is_some_and(|node| matches!(&node.value, NodeValue::List(items) if items.is_empty()))
    }

    /// Takes a field as known that was read before.
    pub fn skip(&self, name: &'static str) {
        self.is_given(name);
    }

    /// Reports a problem of the field `name`, or of the map when it is empty.
    pub fn problem(&self, name: &str, what: impl Into<String>) {
        let line = self.find(name).map_or(self.line, |node| node.line);
        self.problems
            .add(joined(&self.prefix, &self.path_of(name)), line, what);
    }

    /// A text.
    pub fn text(&self, name: &'static str) -> Option<&'a str> {
        let node = self.present(name)?;
        match &node.value {
            NodeValue::Text(text) => Some(text),
            NodeValue::Integer(_) | NodeValue::Fraction(_) | NodeValue::Boolean(_) => {
                let found = node.value.describe();
                self.problem(
                    name,
                    format!("a text is expected, found {found}: write it in quotes"),
                );
                None
            }
            other => {
                self.problem(
                    name,
                    format!("a text is expected, found {}", other.describe()),
                );
                None
            }
        }
    }

    /// A text that must be there.
    pub fn required_text(&self, name: &'static str) -> Option<&'a str> {
        match self.text(name) {
            Some("") => {
                self.problem(name, "must not be empty");
                None
            }
            Some(text) => Some(text),
            None => {
                if self.present(name).is_none() {
                    self.problem(name, "is missing");
                }
                None
            }
        }
    }

    /// A text that is read by `FromStr`.
    pub fn parsed<T>(&self, name: &'static str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let node = self.present(name)?;
        // "0" needs no unit, and YAML makes it a number.
        if node.value == NodeValue::Integer(0) {
            return self.parsed_text(name, "0");
        }
        let text = self.text(name)?;
        self.parsed_text(name, text)
    }

    /// A text read by `read`, which says what is wrong with it.
    pub fn read<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(what) => {
                self.problem(name, format!("{what}, found {:?}", shortened(text)));
                None
            }
        }
    }

    /// As `read`, for secrets: the text is not repeated in the problem.
    pub fn read_secret<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.present(name)?;
        let outcome = match &node.value {
            NodeValue::Text(text) => read(text),
            _ => Err("a text is expected: write it in quotes".to_owned()),
        };
        outcome.map_err(|what| self.problem(name, what)).ok()
    }

    /// A domain name.
    pub fn domain(&self, name: &'static str) -> Option<Domain> {
        self.read(name, |text| {
            Domain::parse(text).map_err(|error| format!("a domain is expected ({error})"))
        })
    }

    fn parsed_text<T>(&self, name: &'static str, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, format!("{error}, found {:?}", shortened(text)));
                None
            }
        }
    }

    /// A whole number of a range.
    pub fn integer(&self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.present(name)?;
        let value = match &node.value {
            NodeValue::Integer(value) => u64::try_from(*value).ok(),
            _ => None,
        };
        let value = value.filter(|value| range.contains(value));
        if value.is_none() {
            let (low, high) = (range.start(), range.end());
            let found = node.value.describe();
            self.problem(
                name,
                format!("a whole number from {low} to {high} is expected, found {found}"),
            );
        }
        value
    }

    /// A whole number of a range.
    pub fn small_integer(&self, name: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.integer(name, range)
            .and_then(|value| u32::try_from(value).ok())
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &'static str) -> Option<bool> {
        let node = self.present(name)?;
        match &node.value {
            NodeValue::Boolean(value) => Some(*value),
            other => {
                self.problem(
                    name,
                    format!("true or false is expected, found {}", other.describe()),
                );
                None
            }
        }
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let chosen = choices.iter().find(|(word, _)| *word == text);
        if chosen.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let expected = words.join(", ");
            self.problem(
                name,
                format!("one of {expected} is expected, found {:?}", shortened(text)),
            );
        }
        chosen.map(|(_, value)| *value)
    }

    /// A map inside this one; a missing map is an empty one.
    pub fn map(&self, name: &'static str) -> Fields<'a> {
        match self.present(name) {
            Some(node) => Fields::open(&self.prefix, &self.path_of(name), node, self.problems),
            None => Fields {
                prefix: self.prefix.clone(),
                path: self.path_of(name),
                line: self.line,
                entries: &[],
                known: RefCell::default(),
                problems: self.problems,
            },
        }
    }

    /// A list of maps.
    pub fn maps(&self, name: &'static str) -> Vec<Fields<'a>> {
        self.items(name)
            .iter()
            .enumerate()
            .map(|(index, node)| {
                let path = format!("{}[{index}]", self.path_of(name));
                Fields::open(&self.prefix, &path, node, self.problems)
            })
            .collect()
    }

    /// A list of texts that are read by `FromStr`; what can't be read is reported and left out.
    pub fn parsed_list<T>(&self, name: &'static str) -> Vec<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.read_list(name, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    /// A list of texts, each read by `read`, which says what is wrong with one.
    pub fn read_list<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (index, node) in self.items(name).iter().enumerate() {
            let outcome = match &node.value {
                NodeValue::Text(text) => {
                    read(text).map_err(|what| format!("{what}, found {:?}", shortened(text)))
                }
                other => Err(format!("a text is expected, found {}", other.describe())),
            };
            match outcome {
                Ok(value) => values.push(value),
                Err(what) => {
                    let path = format!("{}[{index}]", self.path_of(name));
                    self.problems
                        .add(joined(&self.prefix, &path), node.line, what);
                }
            }
        }
        values
    }

    /// A list of whole numbers of a range; others are reported and left out.
    pub fn integers(&self, name: &'static str, range: RangeInclusive<u32>) -> Vec<u32> {
        let (low, high) = (range.start(), range.end());
        let mut values = Vec::new();
        for (index, node) in self.items(name).iter().enumerate() {
            let value = match &node.value {
                NodeValue::Integer(value) => u32::try_from(*value).ok(),
                _ => None,
            };
            match value.filter(|value| range.contains(value)) {
                Some(value) => values.push(value),
                None => {
                    let path = format!("{}[{index}]", self.path_of(name));
                    let found = node.value.describe();
                    self.problems.add(
                        joined(&self.prefix, &path),
                        node.line,
                        format!("a whole number from {low} to {high} is expected, found {found}"),
                    );
                }
            }
        }
        values
    }

    /// Reports fields that no reader asked for.
    pub fn close(self) {
        self.report_unknown();
    }

    /// As [`Fields::close`]: for the end of reading.
    pub(crate) fn report_unknown(&self) {
        let known = self.known.borrow();
        for (name, node) in self.entries {
            if known.iter().any(|field| field == name) {
                continue;
            }
            let at = joined(&self.prefix, &self.path_of(name));
            let what = format!("unknown field; known: {}", known.join(", "));
            self.problems.add(at, node.line, what);
        }
    }

    fn items(&self, name: &'static str) -> &'a [Node] {
        match self.present(name).map(|node| &node.value) {
            None => &[],
            Some(NodeValue::List(items)) => items,
            Some(other) => {
                self.problem(
                    name,
                    format!("a list is expected, found {}", other.describe()),
                );
                &[]
            }
        }
    }

    /// The field, unless it is missing or null.
    fn present(&self, name: &'static str) -> Option<&'a Node> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&name) {
            known.push(name);
        }
        self.find(name).filter(|node| node.value != NodeValue::Null)
    }

    fn find(&self, name: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(entry, _)| entry == name)
            .map(|(_, node)| node)
    }

    fn path_of(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        }
    }
}

fn joined(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, path) => format!("{prefix} {path}"),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
