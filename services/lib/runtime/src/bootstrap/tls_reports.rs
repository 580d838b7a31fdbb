//! Who reports to domains about TLS to their mail hosts (RFC 8460).

use config::Fields;
use mail::Address;

/// The section `tlsReports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsReports {
    /// Name of the organisation that sends: at most 200 characters of one line.
    pub organization: String,
    /// Where people who have questions write to: an address, or anything else that says it.
    pub contact: String,
    /// Author and return path of reports; its domain signs them.
    pub from: Address,
    /// Name of the tenant whose mail reports are.
    pub tenant: String,
}

/// Characters of a text that goes into reports.
const LONGEST_TEXT: usize = 200;

impl TlsReports {
    pub(super) fn read(bootstrap: &Fields<'_>) -> Option<Self> {
        if !bootstrap.is_given("tlsReports") {
            return None;
        }
        let fields = bootstrap.map("tlsReports");
        let line = |name: &'static str| {
            let text = fields.required_text(name)?;
            let is_line = !text.is_empty()
                && text.chars().count() <= LONGEST_TEXT
                && !text.chars().any(char::is_control);
            if !is_line {
                let what = format!("one line of 1 to {LONGEST_TEXT} characters is expected");
                fields.problem(name, what);
            }
            is_line.then(|| text.to_owned())
        };
        let (organization, contact, tenant) =
            (line("organization"), line("contact"), line("tenant"));
        let from = fields.required_text("from").and_then(|text| {
            let address = Address::parse(text)
                .ok()
                .filter(|address| address.as_str().is_ascii() && address.domain().is_some());
            if address.is_none() {
                let what = format!("an ASCII address local@domain is expected, found {text:?}");
                fields.problem("from", what);
            }
            address
        });
        fields.close();
        Some(Self {
            organization: organization?,
            contact: contact?,
            from: from?,
            tenant: tenant?,
        })
    }
}
