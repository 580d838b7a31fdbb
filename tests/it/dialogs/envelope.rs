//! Envelopes as text.

use proto::envelope::{Body, DsnReturn, Envelope};

/// The envelope as dialogues expect it.
pub fn lines(envelope: &Envelope) -> Vec<String> {
    let mut lines = vec![
        format!("tenant {}", envelope.tenant),
        format!("stream {}", envelope.stream),
        format!("credential {}", envelope.credential),
        format!("authenticated_as {}", envelope.authenticated_as),
        format!("return_path {}", envelope.return_path)
            .trim_end()
            .to_owned(),
        format!("from_domain {}", envelope.from_domain),
        format!("recipients {}", envelope.recipients.len()),
        format!("envid {}", envelope.envid),
        match envelope.ret() {
            DsnReturn::Unspecified => "ret".to_owned(),
            DsnReturn::Full => "ret FULL".to_owned(),
            DsnReturn::Headers => "ret HDRS".to_owned(),
        },
        match envelope.body() {
            Body::SevenBit => "body 7BIT".to_owned(),
            Body::EightBit => "body 8BITMIME".to_owned(),
        },
    ];
    if !envelope.campaign.is_empty() {
        lines.push(format!("campaign {}", envelope.campaign));
    }
    if envelope.hold {
        lines.push("held".to_owned());
    }
    if envelope.not_before_ms > 0 {
        lines.push("later".to_owned());
    }
    if envelope.priority != 0 {
        lines.push(format!("priority {}", envelope.priority));
    }
    if envelope.deliver_by_ms > 0 {
        lines.push("deliver by".to_owned());
    }
    if envelope.require_tls {
        lines.push("requiretls".to_owned());
    }
    if envelope.tls_optional {
        lines.push("tls optional".to_owned());
    }
    if envelope.smtputf8 {
        lines.push("smtputf8".to_owned());
    }
    if envelope.expires_at_ms > 0 {
        lines.push("expires".to_owned());
    }
    for recipient in &envelope.recipients {
        let orcpt = if recipient.orcpt.is_empty() {
            String::new()
        } else {
            format!(" orcpt={}", recipient.orcpt)
        };
        lines.push(format!(
            "recipient {} notify={}{orcpt}",
            recipient.address, recipient.notify
        ));
    }
    lines
}
