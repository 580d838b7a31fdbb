//! What follows when the checks of a tenant find something (requirement A16): it is counted, said in the message, or the message is
//! refused. What is found is decided in the crate `preflight`.

use std::sync::Arc;

use config::Tenant;
use message::Content;
use preflight::{Envelope, Findings, look_at_content, look_at_header};
use smtp::EnhancedCode;

use crate::answer::Answer;
use crate::metrics::Metrics;

/// Looks over content before any of it leaves; gives fields to put on top.
pub(crate) type Examine = Box<dyn FnOnce(&Content<'_>) -> Result<String, Answer> + Send>;

/// A header section that is not refused.
#[derive(Default)]
pub(crate) struct Looked {
    /// Fields to put on top.
    pub(crate) fields: String,
    /// When the content has to be looked over, too.
    pub(crate) examine: Option<Examine>,
}

/// Looks over a header section. What is found is counted, and said, with what is found in the content, if that is looked at.
pub(crate) fn look_over(
    header: &[u8],
    envelope: &Envelope<'_>,
    tenant: &Arc<Tenant>,
    metrics: &Arc<Metrics>,
) -> Result<Looked, Answer> {
    if tenant.preflight.checks.is_empty() {
        return Ok(Looked::default());
    }
    let findings = look_at_header(header, envelope);
    if findings.refused_for.is_empty() && tenant.preflight.looks_at_content(envelope.stream) {
        let (tenant, metrics) = (Arc::clone(tenant), Arc::clone(metrics));
        let stream = envelope.stream.to_owned();
        let examine: Examine = Box::new(move |content| {
            let preflight = &tenant.preflight;
            let findings = look_at_content(content, preflight, &stream, findings.warnings);
            conclude(&findings, &tenant, &metrics)
        });
        return Ok(Looked {
            fields: String::new(),
            examine: Some(examine),
        });
    }
    let fields = conclude(&findings, tenant, metrics)?;
    Ok(Looked {
        fields,
        examine: None,
    })
}

/// Counts what was found in a message; gives the fields for it, or its refusal.
fn conclude(findings: &Findings, tenant: &Tenant, metrics: &Metrics) -> Result<String, Answer> {
    metrics.looked_over(findings);
    match findings.refusal() {
        Some(text) => Err(Answer::with(554, EnhancedCode(5, 7, 1), text)),
        None if tenant.preflight.warn_header => Ok(findings.header_fields()),
        None => Ok(String::new()),
    }
}
