//! What is printed: results on standard output, errors on standard error.

use std::io::{self, ErrorKind, Write};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Writes to standard output. A reader that went away (`staffetta queue | head`) is no error: the
/// process ends.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(anyhow::Error::new(error).context("standard output")),
    }
}

/// Writes an error, with its causes, to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    // Nobody is left to tell when standard error can't be written either.
    drop(writeln!(io::stderr(), "staffetta: {}", chain(error)));
}

/// The causes, leaving out those that the one before already says.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Lays rows out in columns; the first row is the heading. Numbers go to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let is_number = !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
            let padded = if is_number {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:<width$}  ")
            };
            line.push_str(&padded);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_and_numbers_to_the_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(&[
            row(["SITE", "READY", "NEXT"]),
            row(["mx.example", "7", "-"]),
            row(["b", "1200", ""]),
        ]);
        assert_eq!(
            text,
            "SITE        READY  NEXT\nmx.example      7  -\nb            1200\n"
        );
    }

    #[test]
    fn an_error_is_one_line_that_repeats_nothing() {
        let inner = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(inner)
            .context("data/x: disk on fire")
            .context("init");
        assert_eq!(chain(&error), "init: data/x: disk on fire");
    }
}
