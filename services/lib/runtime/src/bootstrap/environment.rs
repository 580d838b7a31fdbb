//! `${NAME}` in the values of `staffetta.yaml`.
//!
//! Replaced in texts that are read already, so that no value of a variable can become syntax. `$${` stands for `${`;
//! any other `$` for itself.

use config::{Node, NodeValue, Problems};

/// Replaces variables in all texts of the document. `lookup` gives their values.
pub(super) fn expand(
    document: &mut Node,
    problems: &Problems,
    lookup: &dyn Fn(&str) -> Option<String>,
) {
    expand_below(document, "", problems, lookup);
}

fn expand_below(
    node: &mut Node,
    path: &str,
    problems: &Problems,
    lookup: &dyn Fn(&str) -> Option<String>,
) {
    match &mut node.value {
        NodeValue::Text(text) => match expanded(text, lookup) {
            Ok(Some(new)) => *text = new,
            Ok(None) => {}
            Err(problem) => problems.add(path, node.line, problem),
        },
        NodeValue::List(entries) => {
            for (index, entry) in entries.iter_mut().enumerate() {
                expand_below(entry, &format!("{path}[{index}]"), problems, lookup);
            }
        }
        NodeValue::Map(entries) => {
            for (name, value) in entries {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                expand_below(value, &path, problems, lookup);
            }
        }
        NodeValue::Null
        | NodeValue::Boolean(_)
        | NodeValue::Integer(_)
        | NodeValue::Fraction(_) => {}
    }
}

/// The text with its variables replaced; `None` when there is nothing to replace.
fn expanded(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, found) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = &found[2..];
            continue;
        }
        result.push_str(before);
        let end = found
            .find('}')
            .ok_or_else(|| "\"${\" has no \"}\" (\"$${\" stands for \"${\")".to_owned())?;
        let name = &found[2..end];
        if !is_name(name) {
            return Err(format!(
                "the name of an environment variable is expected in ${{…}}, found {name:?}"
            ));
        }
        let value =
            lookup(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
        result.push_str(&value);
        rest = &found[end + 1..];
    }
    result.push_str(rest);
    Ok(Some(result))
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "POD_IP" => Some("10.1.2.3".to_owned()),
            "TRICK" => Some("${POD_IP}\", x: \"".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_once_and_a_double_dollar_is_kept() {
        let of = |text: &str| expanded(text, &lookup);
        assert_eq!(of("a:1"), Ok(None));
        assert_eq!(of("$POD_IP $5"), Ok(None));
        assert_eq!(of("${POD_IP}:7103").unwrap().unwrap(), "10.1.2.3:7103");
        assert_eq!(
            of("${POD_IP}-${POD_IP}").unwrap().unwrap(),
            "10.1.2.3-10.1.2.3"
        );
        assert_eq!(of("$${POD_IP}").unwrap().unwrap(), "${POD_IP}");
        assert_eq!(of("${TRICK}").unwrap().unwrap(), "${POD_IP}\", x: \"");
    }

    #[test]
    fn what_is_not_set_or_not_written_well_is_told() {
        let problem = |text: &str| expanded(text, &lookup).unwrap_err();
        assert_eq!(
            problem("${OTHER}"),
            "the environment variable OTHER is not set"
        );
        assert!(problem("x${POD_IP").contains("has no"));
        for name in ["", "1A", "A-B", "A:-b"] {
            assert!(problem(&format!("${{{name}}}")).contains("name of an environment variable"));
        }
    }
}
