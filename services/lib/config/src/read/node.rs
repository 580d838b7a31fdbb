//! A document as a tree that knows its lines.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::Problem;

/// A value and the line that it is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// From 1; `None` when the value does not come from a text.
    pub line: Option<u32>,
    /// The value.
    pub value: NodeValue,
}

/// The kinds of values that YAML and JSON share.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum NodeValue {
    Null,
    Boolean(bool),
    Integer(i128),
    Fraction(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A configuration over this size is refused before it is read.
const LARGEST_TEXT: usize = 64 << 20;

impl Node {
    /// Reads the documents of a YAML text (JSON is YAML too); empty documents are left out.
    pub fn from_yaml(text: &str) -> Result<Vec<Self>, Problem> {
        if text.len() > LARGEST_TEXT {
            return Err(Problem {
                at: String::new(),
                line: None,
                what: "the text is larger than 64 MiB".to_owned(),
            });
        }
        let documents: Vec<Spanned<NodeValue>> =
            serde_saphyr::from_multiple(text).map_err(|error| broken(&error))?;
        Ok(documents
            .into_iter()
            .map(Self::from)
            .filter(|node| node.value != NodeValue::Null)
            .collect())
    }
}

impl Node {
    /// The line of the field at a path such as `spec.rules[0].match.pool`, or of what is nearest
    /// above it.
    pub(crate) fn line_at(&self, path: &str) -> Option<u32> {
        let mut node = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match &node.value {
                NodeValue::Map(entries) => entries
                    .iter()
                    .find(|(name, _)| name == step)
                    .map(|(_, entry)| entry),
                NodeValue::List(items) => step
                    .trim_end_matches(']')
                    .parse()
                    .ok()
                    .and_then(|index: usize| items.get(index)),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.line
    }
}

fn broken(error: &serde_saphyr::Error) -> Problem {
    let location = error.location();
    let bare = error.without_snippet().to_string();
    // The reason may span lines and repeat the place; the place is given apart.
    let reason = bare.lines().next().unwrap_or_default();
    let reason = reason.split(" at line ").next().unwrap_or(reason);
    let column = location.map_or(String::new(), |location| {
        format!("column {}: ", location.column())
    });
    Problem {
        at: String::new(),
        line: location.and_then(|location| u32::try_from(location.line()).ok()),
        what: format!("{column}not valid YAML: {reason}"),
    }
}

impl From<Spanned<NodeValue>> for Node {
    fn from(spanned: Spanned<NodeValue>) -> Self {
        Self {
            line: u32::try_from(spanned.referenced.line())
                .ok()
                .filter(|line| *line > 0),
            value: spanned.value,
        }
    }
}

impl From<&serde_json::Value> for Node {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value;
        let value = match json {
            Value::Null => NodeValue::Null,
            Value::Bool(value) => NodeValue::Boolean(*value),
            Value::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(integer), _) => NodeValue::Integer(integer),
                (None, fraction) => NodeValue::Fraction(fraction.unwrap_or(f64::NAN)),
            },
            Value::String(text) => NodeValue::Text(text.clone()),
            Value::Array(items) => NodeValue::List(items.iter().map(Self::from).collect()),
            Value::Object(entries) => NodeValue::Map(
                entries
                    .iter()
                    .map(|(name, entry)| (name.clone(), Self::from(entry)))
                    .collect(),
            ),
        };
        Self { line: None, value }
    }
}

impl NodeValue {
    /// For messages: "the number 5", "a list".
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Boolean(value) => format!("the truth value {value}"),
            Self::Integer(value) => format!("the number {value}"),
            Self::Fraction(value) => format!("the number {value}"),
            Self::Text(text) => format!("the text {:?}", text.chars().take(80).collect::<String>()),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for NodeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = NodeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_none<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<NodeValue, D::Error> {
        NodeValue::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeValue, E> {
        Ok(NodeValue::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<NodeValue, E> {
        Ok(NodeValue::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<NodeValue, E> {
        Ok(NodeValue::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<NodeValue, E> {
        Ok(NodeValue::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<NodeValue, E> {
        Ok(NodeValue::Fraction(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<NodeValue, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<NodeValue>>()? {
            list.push(Node::from(item));
        }
        Ok(NodeValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<NodeValue, A::Error> {
        let mut map = Vec::new();
        while let Some((name, value)) = entries.next_entry::<String, Spanned<NodeValue>>()? {
            map.push((name, Node::from(value)));
        }
        Ok(NodeValue::Map(map))
    }
}
