//! The nouns of mail: what every other crate speaks of.

mod address;
mod domain;
mod ids;
mod units;

pub use address::{Address, AddressError};
pub use domain::{Domain, DomainError};
pub use ids::{MessageId, MessageIdError, PartitionId, Place};
pub use units::{ByteSize, Rate, Span, UnitError};
