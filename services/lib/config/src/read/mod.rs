//! From text to typed fields.

mod fields;
mod node;

pub use fields::Fields;
pub use node::{Node, NodeValue};
