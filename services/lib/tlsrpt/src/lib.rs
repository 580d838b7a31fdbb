//! Reports about TLS to the domains that ask for them (SMTP TLS Reporting, RFC 8460).
//!
//! - [`endpoints`]: the TXT record of `_smtp._tls.<domain>`, which says where reports are to go
//! - [`Tally`]: what is counted of a day, from the events of senders
//! - [`Report`]: what one domain is told of a day, as JSON and as mail
//! - [`Day`]: a day in UTC
//!
//! Pure: senders count (`reporting.rs`), feedback asks the DNS and sends (`tls_reports.rs`).

mod compose;
mod day;
mod record;
mod report;
mod tally;

pub use compose::{Built, Letter};
pub use day::Day;
pub use record::{Endpoint, endpoints};
pub use report::{Report, Reporter};
pub use tally::{Bounds, Counted, Failure, Policy, Tally};
