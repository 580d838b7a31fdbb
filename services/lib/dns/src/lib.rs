//! Where the mail of a domain goes: MX hosts, their addresses, and the site they make up; the texts in which keys stand, and
//! the certificates that hosts may show.
//! The only user of the resolver library.

mod asking;
mod hosts;
mod memo;
mod resolver;
mod reverse;
mod target;
mod tlsa;

pub use hosts::{MailHost, MailHosts};
pub use resolver::{Error, Family, Resolver};
pub use target::is_private_target;
pub use tlsa::{Tlsa, TlsaRecord};
