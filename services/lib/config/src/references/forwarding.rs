//! Credentials that forward mail of foreign senders.

use super::References;
use crate::resources::Resource;
use crate::{Credential, Kind};

impl References<'_> {
    /// The tenant must allow it, and the domain must be the tenant's and able to do what is asked for.
    pub(super) fn check_foreign_senders(&self, resource: &Resource, credential: &Credential) {
        let Some(foreign) = &credential.foreign_senders else {
            return;
        };
        let tenant = (Kind::Tenant, credential.tenant.clone());
        if let Some(Resource::Tenant(tenant)) = self.entries.get(&tenant)
            && !tenant.may_forward
        {
            let what = format!(
                "the tenant {} may not forward mail of others: its document must say `mayForward: true`",
                tenant.name
            );
            self.report(resource, "spec.foreignSenders", what);
        }
        let (path, domain) = ("spec.foreignSenders.domain", foreign.domain.as_str());
        self.check_name(resource, path, Kind::SendingDomain, domain);
        let key = (Kind::SendingDomain, domain.to_owned());
        let Some(Resource::SendingDomain(found)) = self.entries.get(&key) else {
            return;
        };
        if found.tenant != credential.tenant {
            let what = format!("{domain} is a domain of the tenant {}", found.tenant);
            self.report(resource, path, what);
        } else if foreign.seal && found.dkim.is_empty() {
            let what = format!("SendingDomain/{domain} has no dkim keys to seal with");
            self.report(resource, "spec.foreignSenders.seal", what);
        }
    }
}
