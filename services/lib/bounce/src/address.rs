//! Addresses in texts.

/// Longest address that is taken, octets (RFC 5321 section 4.5.3.1).
const LONGEST: usize = 320;

/// An address in a line, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) at: usize,
    pub(crate) address: &'a str,
}

/// The addresses in a line, from the left. Quoted local parts are not found. Linear: no octet is looked at twice from the same side.
pub(crate) fn addresses_in(line: &str) -> impl Iterator<Item = Found<'_>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = from + line.get(from..)?.find('@')?;
            let local = local_part_before(&line[from..at]);
            let domain = domain_after(&line[at + 1..]);
            let (start, end) = (at - local.len(), at + 1 + domain.len());
            from = end.max(at + 1);
            let is_address = !local.is_empty() && domain.contains('.') && end - start <= LONGEST;
            if is_address {
                return Some(Found {
                    at: start,
                    address: &line[start..end],
                });
            }
        }
    })
}

/// The first one.
pub(crate) fn first_address(text: &str) -> Option<&str> {
    addresses_in(text).next().map(|found| found.address)
}

fn local_part_before(text: &str) -> &str {
    let is_of_it = |c: char| c.is_alphanumeric() || "!#$%&*+-/=?^_`{|}~.".contains(c);
    let start = text
        .char_indices()
        .rev()
        .take_while(|(_, c)| is_of_it(*c))
        .last()
        .map_or(text.len(), |(start, _)| start);
    let local = text[start..].trim_start_matches(['.', '=', '-', '*', '#', '|', '/']);
    // `dda:SMTP=a@b.example`, as X.400 writes it.
    match local.get(..5) {
        Some(kind) if kind.eq_ignore_ascii_case("smtp=") => &local[5..],
        _ => local,
    }
}

fn domain_after(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '.'))
        .unwrap_or(text.len());
    text[..end].trim_end_matches(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_addresses_among_words() {
        for (line, found) in [
            ("<a.b+c@d.example>:", "a.b+c@d.example"),
            (
                "to a@b.example. And c@d.example,",
                "a@b.example c@d.example",
            ),
            ("rfc822;a@b.example", "a@b.example"),
            ("mailto:a@b.example?x", "a@b.example"),
            ("a@b, @c.example, x@", ""),
            ("'a@b.example'", "a@b.example"),
            ("jürgen@bücher.example", "jürgen@bücher.example"),
            ("a@b@c.example", ""),
            ("---a@b.example", "a@b.example"),
            ("c=x;dda:SMTP=a@b.example;", "a@b.example"),
        ] {
            let all: Vec<&str> = addresses_in(line).map(|found| found.address).collect();
            assert_eq!(all.join(" "), found, "{line}");
        }
    }
}
