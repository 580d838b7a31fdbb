//! Values of others, made short and harmless.

/// Longest value that is kept, octets.
pub(crate) const LONGEST: usize = 1024;

/// One line: white space and control characters become one blank, at most [`LONGEST`] octets.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    let is_gap = |c: char| c.is_whitespace() || c.is_control();
    for word in text.split(is_gap).filter(|word| !word.is_empty()) {
        let room = LONGEST.saturating_sub(line.len() + 1);
        if room == 0 {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word[..word.floor_char_boundary(room)]);
    }
    line
}

/// [`one_line`] of octets that should be UTF-8.
pub(crate) fn value(octets: &[u8]) -> String {
    let octets = &octets[..octets.len().min(2 * LONGEST)];
    one_line(&String::from_utf8_lossy(octets))
}

/// The lines of a text, however they end.
pub(crate) fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = octets.strip_suffix(b"\n").unwrap_or(octets);
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Name and value of the fields in lines, folded ones joined; `None` for an empty line. Lines that are no fields are left out.
pub(crate) fn fields_in(octets: &[u8]) -> Vec<Option<(String, String)>> {
    let mut fields: Vec<Option<(String, String)>> = Vec::new();
    let mut may_go_on = false;
    for line in lines(octets) {
        if line.trim_ascii().is_empty() {
            fields.push(None);
            may_go_on = false;
        } else if matches!(line.first(), Some(b' ' | b'\t')) {
            if let Some(Some((_, text))) = fields.last_mut().filter(|_| may_go_on) {
                go_on(text, &value(line));
            }
        } else if let Some((name, text)) = field_in(line) {
            fields.push(Some((name.to_ascii_lowercase(), value(text))));
            may_go_on = true;
        } else {
            may_go_on = false;
        }
    }
    fields
}

/// Joins what is folded, as long as there is room.
fn go_on(text: &mut String, more: &str) {
    let room = LONGEST.saturating_sub(text.len() + 1);
    let more = &more[..more.floor_char_boundary(room)];
    if !more.is_empty() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(more);
    }
}

/// Name and value of a line that is a field.
pub(crate) fn field_in(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(line[..colon].trim_ascii_end()).ok()?;
    let is_name = (1..=76).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_name.then(|| (name, &line[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_folded_fields_and_bounds_them() {
        let fields = fields_in(b"A: 1\r\n 2\r\nno field\r\n x\n\nb-C : 3\n");
        let field = |name: &str, text: &str| Some((name.to_owned(), text.to_owned()));
        assert_eq!(fields, [field("a", "1 2"), None, field("b-c", "3")]);
        let long = format!("A: {}\n{}", "x".repeat(5000), " y\n".repeat(5000));
        let fields = fields_in(long.as_bytes());
        assert!(fields[0].as_ref().unwrap().1.len() <= LONGEST);
        assert_eq!(one_line(" a\r\n\u{0} b "), "a b");
    }
}
