//! The nouns of mail: what every other crate speaks of.

mod address;
mod domain;
mod https_url;
mod ids;
mod units;

pub use address::{Address, AddressError};
pub use domain::{Domain, DomainError};
pub use https_url::{HttpsUrl, HttpsUrlError, WebUrl, WebUrlError};
pub use ids::{MessageId, MessageIdError, PartitionId, Place};
pub use units::{ByteSize, Rate, Span, UnitError};
