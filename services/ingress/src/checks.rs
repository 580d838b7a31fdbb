//! What follows when the checks of a tenant find something (requirement A16): it is counted, told, said in the message, or the message is
//! refused. What is found is decided in the crate `preflight`.

use std::sync::Arc;

use config::Tenant;
use mail::MessageId;
use message::Content;
use preflight::{Envelope, Findings, look_at_content, look_at_header};
use smtp::EnhancedCode;

use crate::answer::Answer;
use crate::events::{Events, Whose};
use crate::metrics::Metrics;

/// Looks over content before any of it leaves.
pub(crate) type Examine = Box<dyn FnOnce(&Content<'_>) -> Result<Said, Answer> + Send>;

/// What is said of a message that is not refused.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Fields to put on top.
    pub(crate) fields: String,
    /// What all warnings weigh together.
    pub(crate) weight: u32,
}

/// A header section that is not refused.
#[derive(Default)]
pub(crate) struct Looked {
    pub(crate) said: Said,
    /// When the content has to be looked over, too; then all is said by that.
    pub(crate) examine: Option<Examine>,
}

/// Who hears of what is found in a message.
#[derive(Clone)]
pub(crate) struct Hearers {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
    pub(crate) whose: Whose,
    pub(crate) id: MessageId,
}

/// Looks over a header section. What is found is told and said with what is found in the content, if that is looked at.
pub(crate) fn look_over(
    header: &[u8],
    envelope: &Envelope<'_>,
    tenant: &Arc<Tenant>,
    hearers: impl FnOnce() -> Hearers,
) -> Result<Looked, Answer> {
    if tenant.preflight.checks.is_empty() {
        return Ok(Looked::default());
    }
    let findings = look_at_header(header, envelope);
    let stream = envelope.stream.to_owned();
    let (tenant, hearers) = (Arc::clone(tenant), hearers());
    if findings.refused_for.is_empty() && tenant.preflight.looks_at_content(&stream) {
        let examine: Examine = Box::new(move |content| {
            let findings = look_at_content(content, &tenant.preflight, &stream, findings.warnings);
            conclude(&findings, &tenant, &stream, hearers)
        });
        return Ok(Looked {
            said: Said::default(),
            examine: Some(examine),
        });
    }
    Ok(Looked {
        said: conclude(&findings, &tenant, &stream, hearers)?,
        examine: None,
    })
}

/// Tells what was found in a message; gives what is said of it, or its refusal.
fn conclude(
    findings: &Findings,
    tenant: &Tenant,
    stream: &str,
    hearers: Hearers,
) -> Result<Said, Answer> {
    if findings.is_empty() {
        return Ok(Said::default());
    }
    let Hearers {
        metrics,
        events,
        whose,
        id,
    } = hearers;
    metrics.looked_over(findings);
    events.looked_over(whose, id, stream, findings);
    if let Some(text) = findings.refusal() {
        return Err(Answer::with(554, EnhancedCode(5, 7, 1), text));
    }
    let fields = match tenant.preflight.warn_header {
        true => findings.header_fields(),
        false => String::new(),
    };
    let weight = findings.weight();
    Ok(Said { fields, weight })
}
