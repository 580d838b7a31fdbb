//! The nouns of mail: what every other crate speaks of.

mod address;
mod domain;
mod ids;

pub use address::{Address, AddressError};
pub use domain::{Domain, DomainError};
pub use ids::{MessageId, MessageIdError, PartitionId, Place};
