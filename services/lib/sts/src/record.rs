//! The TXT record at `_mta-sts.<domain>` (RFC 8461 section 3.1).

/// Letters and digits of an id.
const LONGEST_ID: usize = 32;

/// The id of the domain's policy. `None`: it has none, since not exactly one of the records is of MTA-STS, or that one
/// can't be read. Each record is given in one piece, however many strings it is stored in.
pub fn policy_id<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a str> {
    let mut of_sts = records.into_iter().filter_map(fields_of);
    match (of_sts.next(), of_sts.next()) {
        (Some(fields), None) => id_in(fields),
        _ => None,
    }
}

/// What follows the version, with its semicolon, in a record of MTA-STS.
fn fields_of(record: &[u8]) -> Option<&[u8]> {
    let rest = record.strip_prefix(b"v=STSv1")?;
    rest.trim_ascii_start().starts_with(b";").then_some(rest)
}

/// The first id counts; fields that are not known are passed over, but they must be fields.
fn id_in(fields: &[u8]) -> Option<&str> {
    let fields = std::str::from_utf8(fields).ok()?;
    let blank = [' ', '\t'];
    let mut id = None;
    // Before the first semicolon is nothing, and behind the last one there may be nothing.
    let mut rest = fields.split(';').skip(1).peekable();
    while let Some(field) = rest.next() {
        let field = field.trim_matches(blank);
        if field.is_empty() && rest.peek().is_none() {
            break;
        }
        let (name, value) = field.split_once('=')?;
        if !is_name(name) || !is_value(value) {
            return None;
        }
        if name == "id" && id.is_none() {
            id = Some(value);
        }
    }
    id.filter(|id| id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=LONGEST_ID).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(known)
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exactly_one_record_of_the_right_form_names_a_policy() {
        for (records, id) in [
            (
                &["v=STSv1; id=20160831085700Z;"][..],
                Some("20160831085700Z"),
            ),
            (&["v=STSv1;id=1"], Some("1")),
            (&["v=STSv1 ;\tid=1 ; "], Some("1")),
            (&["v=STSv1; ext=a:b; id=1; id=2"], Some("1")),
            (
                &["v=spf1 -all", "v=STSv1; id=1;", "v=STSv10; id=2;"],
                Some("1"),
            ),
            (
                &["v=STSv1; id=12345678901234567890123456789012"],
                Some("12345678901234567890123456789012"),
            ),
            (&["v=STSv1; id=123456789012345678901234567890123"], None),
            (&["v=STSv1; id=1;", "v=STSv1; id=1;"], None),
            (&["v=STSv1; id=1;", "v=STSv1; broken"], None),
            (&["v=STSv1; id=1; ; x=y"], None),
            (&["v=STSv1; id=1 2;"], None),
            (&["v=STSv1; id=a-b;"], None),
            (&["v=STSv1; id=;"], None),
            (&["v=STSv1; x=y"], None),
            (&["v=STSv1;"], None),
            (&["v=STSv1"], None),
            (&["V=STSv1; id=1;"], None),
            (&[" v=STSv1; id=1;"], None),
            (&["v=STSv1; ID=1;"], None),
            (&["v=STSv1; =x; id=1"], None),
            (&["v=STSv1; -x=y; id=1"], None),
            (&["v=STSv1; ü=y; id=1"], None),
            (&[], None),
        ] {
            let octets = records.iter().map(|record| record.as_bytes());
            assert_eq!(policy_id(octets), id, "{records:?}");
        }
        assert_eq!(policy_id([&b"v=STSv1; id=\xff"[..]]), None);
    }

    proptest! {
        #[test]
        fn never_panics(record in "v=STSv1 ?[;=a-z0-9. \t]{0,60}") {
            let id = policy_id([record.as_bytes()]);
            prop_assert!(id.is_none_or(|id| (1..=LONGEST_ID).contains(&id.len())));
        }
    }
}
