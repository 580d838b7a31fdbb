//! Sending domains whose mail another one signs, too.

use super::References;
use crate::resources::Resource;
use crate::{Kind, SendingDomain};

impl References<'_> {
    /// The service domain must be another one, and have keys.
    pub(super) fn check_service_domain(&self, resource: &Resource, domain: &SendingDomain) {
        let Some(service) = &domain.service_domain else {
            return;
        };
        let path = "spec.serviceDomain";
        if *service == domain.domain {
            let what = "is the domain itself: another one is expected".to_owned();
            return self.report(resource, path, what);
        }
        self.check_name(resource, path, Kind::SendingDomain, service.as_str());
        let key = (Kind::SendingDomain, service.to_string());
        if let Some(Resource::SendingDomain(found)) = self.entries.get(&key)
            && found.dkim.is_empty()
        {
            let what = format!("SendingDomain/{service} has no dkim keys to sign with");
            self.report(resource, path, what);
        }
    }
}
