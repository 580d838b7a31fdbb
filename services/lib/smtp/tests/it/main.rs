//! Tests over the public face of the crate.

#[cfg(test)]
mod chunks;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod data;
#[cfg(test)]
mod known_faults;
#[cfg(test)]
mod pieces;
mod proxy_protocol;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod writing;
