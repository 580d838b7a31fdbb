//! Messages made by somebody else.

mod foreign;
