//! Envelopes as text.

use proto::envelope::{Body, DsnReturn, Envelope};
use proto::spool::IndexEntry;

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
    if envelope.sandbox {
        lines.push("sandbox".to_owned());
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
    if envelope.forwarded.is_some() {
        lines.push("forwarded".to_owned());
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
        let whose = if envelope.expires_by_stream {
            "expires by its stream"
        } else {
            "expires"
        };
        lines.push(whose.to_owned());
    }
    for recipient in &envelope.recipients {
        let orcpt = if recipient.orcpt.is_empty() {
            String::new()
        } else {
            format!(" orcpt={}", recipient.orcpt)
        };
        let simulated = recipient.simulated.as_ref().map(|answers| {
            let (code, enhanced) = (answers.code, &answers.enhanced);
            let (deferrals, after_ms) = (answers.deferrals, answers.after_ms);
            format!(" simulated={code}-{enhanced} deferrals={deferrals} after={after_ms}")
        });
        lines.push(format!(
            "recipient {} notify={}{orcpt}{}",
            recipient.address,
            recipient.notify,
            simulated.unwrap_or_default()
        ));
    }
    lines
}

/// Header fields that go before the message of its first recipient.
pub fn fields_before(entry: &IndexEntry) -> Vec<String> {
    let recipients = entry.envelope.iter().flat_map(|of| &of.recipients);
    let number = recipients.map(|recipient| recipient.header_variant).next();
    let variant = number
        .and_then(|number| (number as usize).checked_sub(1))
        .and_then(|index| entry.header_variants.get(index));
    let text = String::from_utf8_lossy(variant.map_or(&[][..], |variant| variant));
    text.lines().map(|line| format!("before {line}")).collect()
}
