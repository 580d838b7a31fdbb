//! Whole messages.
