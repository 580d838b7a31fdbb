//! Whether the domains of an author and of a return path belong together.

use config::Snapshot;

/// Whether they do, in the relaxed sense of RFC 7489 section 3.1 as far as it can be told without a list of public suffixes: one is
/// the other or below it, or both are a sending domain of the tenant or below it.
pub(crate) fn is_aligned(snapshot: &Snapshot, tenant: &str, author: &str, other: &str) -> bool {
    let common = common_parent(author, other);
    if common == author || common == other {
        return true;
    }
    let parents = common.match_indices('.').map(|(dot, _)| &common[dot + 1..]);
    std::iter::once(common).chain(parents).any(|name| {
        let domain = snapshot.sending_domain(name);
        domain.is_some_and(|domain| domain.domain.as_str() == name && domain.tenant == tenant)
    })
}

/// The labels at the end that both have; may be empty.
fn common_parent<'a>(one: &'a str, other: &str) -> &'a str {
    let labels = one.rsplit('.').zip(other.rsplit('.'));
    let same = labels.take_while(|(label, other)| label == other);
    let length: usize = same.map(|(label, _)| label.len() + 1).sum();
    &one[one.len() - length.saturating_sub(1)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_belong_together_by_name_or_by_a_sending_domain() {
        let documents: String = ["acme", "other"]
            .map(|name| {
                format!(
                    "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\n\
                     spec: {{ defaultStream: m, streams: [ {{ name: m }} ] }}\n---\n"
                )
            })
            .concat();
        let domain = |name: &str, tenant: &str| {
            format!(
                "apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: {name} }}\n\
                 spec: {{ tenant: {tenant}, unsigned: true, includeSubdomains: true }}\n---\n"
            )
        };
        let domains = [
            domain("acme.example", "acme"),
            domain("news.acme.example", "acme"),
            domain("acme.org", "acme"),
            domain("a.shared.example", "acme"),
            domain("b.shared.example", "acme"),
            domain("shared.example", "other"),
        ];
        let snapshot = Snapshot::from_documents(&(documents + &domains.concat())).unwrap();
        for (author, other, expected) in [
            ("acme.example", "acme.example", true),
            ("acme.example", "bounces.acme.example", true),
            ("mail.acme.example", "acme.example", true),
            ("news.acme.example", "bounces.acme.example", true),
            ("a.b.acme.example", "c.d.acme.example", true),
            ("acme.example", "acme.org", false),
            ("acme.example", "notacme.example", false),
            ("a.shared.example", "b.shared.example", false),
            ("x.a.shared.example", "y.a.shared.example", true),
            ("one.elsewhere.example", "two.elsewhere.example", false),
        ] {
            for (one, two) in [(author, other), (other, author)] {
                assert_eq!(
                    is_aligned(&snapshot, "acme", one, two),
                    expected,
                    "{one} {two}"
                );
            }
        }
    }
}
