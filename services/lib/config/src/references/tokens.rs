//! Tokens lead to one issuer and to one credential.

use std::collections::HashMap;

use super::References;
use crate::resources::Resource;
use crate::{Kind, TokenSubject};

impl References<'_> {
    pub(super) fn check_tokens(&self) {
        let mut issuers: HashMap<&str, &str> = HashMap::new();
        let mut subjects: HashMap<&TokenSubject, &str> = HashMap::new();
        for resource in self.entries.values() {
            match resource {
                Resource::TokenIssuer(issuer) => {
                    if let Some(other) = issuers.insert(&issuer.issuer, &issuer.name) {
                        let what = format!("TokenIssuer/{other} has the same");
                        self.report(resource, "spec.issuer", what);
                    }
                }
                Resource::Credential(credential) => {
                    for (index, token) in credential.tokens.iter().enumerate() {
                        let path = format!("spec.tokens[{index}]");
                        let issuer = format!("{path}.issuer");
                        self.check_name(resource, &issuer, Kind::TokenIssuer, &token.issuer);
                        if let Some(other) = subjects.insert(token, &credential.name) {
                            let what = format!("Credential/{other} has the same");
                            self.report(resource, &path, what);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}
