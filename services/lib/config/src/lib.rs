//! x
mod problem;
mod read;
pub use problem::{Problem, Problems};
pub use read::{Fields, Node, NodeValue};
