//! Canonical JSON (RFC 8785), so that the same configuration always has the same hash.

use serde_json::Value;

/// Writes a value canonically: no blanks, members sorted by their names as UTF-16, shortest string
/// escapes. Numbers in our model are whole and below 2^53, which RFC 8785 writes as plain digits.
pub(crate) fn write(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_by(|(left, _), (right, _)| left.encode_utf16().cmp(right.encode_utf16()));
            write_list(text, ('{', '}'), sorted, |text, (name, member)| {
                // serde_json's escapes are those of RFC 8785 section 3.2.2.2.
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(':');
                write_value(text, member);
            });
        }
        Value::Array(items) => write_list(text, ('[', ']'), items, write_value),
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn write_list<T>(
    text: &mut String,
    brackets: (char, char),
    items: impl IntoIterator<Item = T>,
    write_item: impl Fn(&mut String, T),
) {
    text.push(brackets.0);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_item(text, item);
    }
    text.push(brackets.1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn sorts_by_utf16_and_escapes_as_the_rfc_shows() {
        // The example of RFC 8785 section 3.2.3, without its fractions.
        let value: Value = serde_json::from_str(
            r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",
                "1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
        )
        .unwrap();
        let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
                        \"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\
                        \"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
        assert_eq!(write(&value), expected);
        let strings = json!("€$\u{f}\nA'B\"\\\"/\u{7f}");
        assert_eq!(write(&strings), "\"€$\\u000f\\nA'B\\\"\\\\\\\"/\u{7f}\"");
    }

    fn values() -> impl Strategy<Value = Value> {
        let scalars = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53)..(1 << 53)).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(Value::Null),
        ];
        scalars.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_and_is_written_alike(value in values()) {
            let text = write(&value);
            let read: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &value);
            prop_assert_eq!(write(&read), text);
        }
    }
}
