//! Lines of tables (RFC 4180).

/// The fields of a record.
pub(super) fn fields(text: &str) -> anyhow::Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                anyhow::ensure!(
                    !field.contains('"'),
                    "a quote in a field that does not begin with one"
                );
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        rest = match after.strip_prefix(',') {
            Some(rest) => rest,
            None => {
                anyhow::ensure!(after.is_empty(), "something stands behind a closing quote");
                return Ok(fields);
            }
        };
    }
}

/// The field whose opening quote is read, and what comes after it.
fn unquote(text: &str) -> anyhow::Result<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            anyhow::bail!("a quote is not closed");
        };
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, after)),
        }
    }
}

/// A record, with its line end. A field that a spreadsheet would take for a formula gets a blank before it.
pub(super) fn line(fields: &[&str]) -> String {
    let quoted = fields.iter().map(|field| {
        let guard = if field.starts_with(['=', '+', '-', '@']) {
            " "
        } else {
            ""
        };
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{guard}{}\"", field.replace('"', "\"\""))
        } else {
            format!("{guard}{field}")
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let given = ["a", "", "b,c", "d \"e\"", "f\ng", "\"", " h"];
        let line = line(&given);
        assert_eq!(fields(line.trim_end_matches("\r\n")).unwrap(), given);
        assert_eq!(fields("").unwrap(), [""]);
        for bad in ["\"a", "\"a\"b", "a\"b"] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_field_is_a_formula() {
        assert_eq!(line(&["=1+1", "@a", "a=b"]), " =1+1, @a,a=b\r\n");
    }
}
