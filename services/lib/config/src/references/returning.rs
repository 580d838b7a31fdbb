//! Domains of return paths of ours.

use super::References;
use crate::resources::Resource;
use crate::{OwnReturnPath, SendingDomain};

impl References<'_> {
    /// Sending domains that share a domain of return paths are of one tenant and forward to one address; and what is forwarded
    /// does not come back.
    pub(super) fn check_return_path(&self, resource: &Resource, domain: &SendingDomain) {
        let Some(own) = &domain.return_path else {
            return;
        };
        for (other, others) in self.return_paths() {
            if others.domain == own.domain && other.tenant != domain.tenant {
                let what = format!(
                    "SendingDomain/{} has the same and is of the tenant {}: each tenant needs a domain of its own",
                    other.domain, other.tenant
                );
                return self.report(resource, "spec.returnPath.domain", what);
            }
            if others.domain == own.domain && others.forward_to != own.forward_to {
                let what = format!(
                    "SendingDomain/{} has the same returnPath.domain and forwards to another address",
                    other.domain
                );
                return self.report(resource, "spec.returnPath.forwardTo", what);
            }
            if own.forward_to.domain().as_ref() == Some(&others.domain) {
                let what = format!("{} takes no mail but what comes back", others.domain);
                return self.report(resource, "spec.returnPath.forwardTo", what);
            }
        }
    }

    fn return_paths(&self) -> impl Iterator<Item = (&SendingDomain, &OwnReturnPath)> {
        self.entries.values().filter_map(|entry| match entry {
            Resource::SendingDomain(domain) => Some((&**domain, domain.return_path.as_ref()?)),
            _ => None,
        })
    }
}
