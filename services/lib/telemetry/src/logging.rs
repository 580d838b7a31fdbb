//! Structured logs on standard error.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(Error::Format(other.chars().take(32).collect())),
        }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `json` nor `text`.
    #[error("unknown log format {0:?}: json or text is expected")]
    Format(String),
    /// The filter is not in the form of `tracing_subscriber::EnvFilter`.
    #[error("the log filter {filter:?} is not valid: {reason}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Sends log records of the whole process to standard error. `filter` is a list such as
/// `info,spool=debug`; empty means `info`. When logging is set up already (tests, several services
/// in one process) nothing changes.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), Error> {
    let filter_text = if filter.trim().is_empty() {
        "info"
    } else {
        filter
    };
    let filter = EnvFilter::try_new(filter_text).map_err(|error| Error::Filter {
        filter: filter_text.to_owned(),
        reason: error.to_string(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
    };
    // The only error is that a subscriber is there already, which is what was asked for.
    drop(outcome);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn can_be_set_up_twice_and_refuses_a_bad_filter() {
        init_logging(LogFormat::Json, "").unwrap();
        init_logging(LogFormat::Text, "warn,spool=debug").unwrap();
        assert!(matches!(
            init_logging(LogFormat::Text, "spool=loud"),
            Err(Error::Filter { .. })
        ));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
