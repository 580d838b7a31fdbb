//! Where the mail of a domain goes: MX hosts, their addresses, and the site they make up; and the texts in which keys stand.
//! The only user of the resolver library.

mod hosts;
mod memo;
mod resolver;
mod reverse;
mod target;

pub use hosts::{MailHost, MailHosts};
pub use resolver::{Error, Family, Resolver};
pub use target::is_private_target;
