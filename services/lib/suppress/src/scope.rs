//! For which mail an entry holds.

use std::fmt;

use proto::suppression::Change;

/// For which mail an entry holds. The order is from the widest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// All mail of the installation: by hand only.
    Global,
    /// All mail of a tenant.
    Tenant(String),
    /// A stream of a tenant.
    Stream(String, String),
}

impl Scope {
    /// An empty tenant stands for all of them, an empty stream for all of the tenant's.
    pub fn new(tenant: &str, stream: &str) -> Self {
        match (tenant, stream) {
            ("", _) => Self::Global,
            (tenant, "") => Self::Tenant(tenant.to_owned()),
            (tenant, stream) => Self::Stream(tenant.to_owned(), stream.to_owned()),
        }
    }

    /// That of a change.
    pub fn of(change: &Change) -> Self {
        Self::new(&change.tenant, &change.stream)
    }

    /// Its tenant; empty for all of them.
    pub fn tenant(&self) -> &str {
        match self {
            Self::Global => "",
            Self::Tenant(tenant) | Self::Stream(tenant, _) => tenant,
        }
    }

    /// Its stream; empty for all of them.
    pub fn stream(&self) -> &str {
        match self {
            Self::Global | Self::Tenant(_) => "",
            Self::Stream(_, stream) => stream,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("all tenants"),
            Self::Tenant(tenant) => write!(f, "{tenant}"),
            Self::Stream(tenant, stream) => write!(f, "{tenant}/{stream}"),
        }
    }
}
