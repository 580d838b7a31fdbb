//! The scheduler: owns partitions, keeps their queues, and decides when each delivery leaves, from where and by whom.
//!
//! [`machine`] decides, without I/O; the rest of the crate feeds it and carries out what it wants.

pub mod machine;
