//! What replies and actions are about.

use config::{Scope, ShapingQuery};

use super::shortened;

/// What an action concerns. `at` is the name of a provider, or of a site that has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "the fields are names of what they are called after"
)]
pub enum Subject {
    Lane { source: Box<str>, lane: Box<str> },
    Pool { pool: Box<str>, at: Box<str> },
    TenantAtProvider { tenant: Box<str>, at: Box<str> },
    Tenant { tenant: Box<str> },
}

impl Subject {
    /// Whether it is about a tenant and not about lanes.
    pub fn is_of_tenant(&self) -> bool {
        matches!(self, Self::TenantAtProvider { .. } | Self::Tenant { .. })
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lane { source, lane } => write!(f, "lane {source}|{lane}"),
            Self::Pool { pool, at } => write!(f, "pool {pool} at {at}"),
            Self::TenantAtProvider { tenant, at } => write!(f, "tenant {tenant} at {at}"),
            Self::Tenant { tenant } => write!(f, "tenant {tenant}"),
        }
    }
}

/// A reply, and from where to where it was heard. Without a reply it asks what holds there.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// Source, site, domain, stream and pool.
    pub lane: ShapingQuery<'a>,
    /// Name of the lane, beside its source.
    pub name: &'a str,
    /// Provider of the lane.
    pub provider: Option<&'a str>,
    /// Whose mail it was.
    pub tenant: &'a str,
    /// Reply code.
    pub code: u16,
    /// Enhanced code; may be empty.
    pub enhanced: &'a str,
    /// Text of the reply.
    pub text: &'a str,
}

impl Heard<'_> {
    /// What an action of this scope is about.
    pub fn subject(&self, scope: Scope) -> Subject {
        let at = || self.provider.unwrap_or(self.lane.site).into();
        match scope {
            Scope::Lane => Subject::Lane {
                source: self.lane.source.into(),
                lane: self.name.into(),
            },
            Scope::Pool => Subject::Pool {
                pool: self.lane.pool.into(),
                at: at(),
            },
            Scope::TenantAtProvider => Subject::TenantAtProvider {
                tenant: self.tenant.into(),
                at: at(),
            },
            Scope::Tenant => Subject::Tenant {
                tenant: self.tenant.into(),
            },
        }
    }

    /// The reply in one line.
    pub(super) fn cause(&self, most: usize) -> String {
        let code = match self.code {
            0 => String::new(),
            code => format!("{code} "),
        };
        let enhanced = match self.enhanced {
            "" => String::new(),
            enhanced => format!("{enhanced} "),
        };
        let line = format!("{code}{enhanced}{}", self.text.trim());
        shortened(&line, most).to_owned()
    }
}
