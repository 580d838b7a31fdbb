//! Which mail is meant, on the command line.

use mail::Domain;
use proto::operation::Selector;

/// All that are given hold; of one that is given several times, one.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Selection {
    /// A message, by its id
    #[arg(long = "message", value_name = "ID")]
    messages: Vec<String>,
    /// Mail to a recipient domain
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// Mail to a site, as `staffetta queue` shows it
    #[arg(long = "site", value_name = "NAME")]
    sites: Vec<String>,
    /// Mail to a provider
    #[arg(long = "provider", value_name = "NAME")]
    providers: Vec<String>,
    /// Mail of a tenant
    #[arg(long = "tenant", value_name = "NAME")]
    tenants: Vec<String>,
    /// Mail of a stream
    #[arg(long = "stream", value_name = "NAME")]
    streams: Vec<String>,
    /// Mail of a campaign
    #[arg(long = "campaign", value_name = "NAME")]
    campaigns: Vec<String>,
    /// Mail that would leave by an egress source, or may
    #[arg(long = "source", value_name = "NAME")]
    sources: Vec<String>,
}

impl Selection {
    /// Without `all`.
    pub(crate) fn selector(&self) -> Selector {
        let domain = |domain: &String| {
            let parsed = Domain::parse(domain);
            parsed.map_or_else(|_| domain.clone(), |domain| domain.as_str().to_owned())
        };
        Selector {
            messages: self.messages.clone(),
            domains: self.domains.iter().map(domain).collect(),
            sites: self.sites.clone(),
            providers: self.providers.clone(),
            tenants: self.tenants.clone(),
            streams: self.streams.clone(),
            campaigns: self.campaigns.clone(),
            sources: self.sources.clone(),
            ..Selector::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.selector() == Selector::default()
    }
}

/// What an operation needs: some selection, or `--all`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    #[command(flatten)]
    selection: Selection,
    /// All mail; needed when nothing else is selected
    #[arg(long)]
    all: bool,
}

impl Target {
    pub(crate) fn selector(&self) -> anyhow::Result<Selector> {
        let is_empty = self.selection.is_empty();
        anyhow::ensure!(
            !is_empty || self.all,
            "no mail is selected: give --domain, --tenant, … or --all"
        );
        anyhow::ensure!(
            is_empty || !self.all,
            "--all and a selection exclude each other"
        );
        Ok(Selector {
            all: self.all,
            ..self.selection.selector()
        })
    }

    /// Whether nothing is given.
    pub(crate) fn is_missing(&self) -> bool {
        self.selection.is_empty() && !self.all
    }
}

/// A selector for people: `tenant acme, domain one.example or two.example`.
pub(crate) fn shown(selector: &Selector) -> String {
    let fields = [
        ("message", &selector.messages),
        ("domain", &selector.domains),
        ("site", &selector.sites),
        ("provider", &selector.providers),
        ("tenant", &selector.tenants),
        ("stream", &selector.streams),
        ("campaign", &selector.campaigns),
        ("source", &selector.sources),
    ];
    let named: Vec<String> = fields
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!("{name} {}", values.join(" or ")))
        .collect();
    if named.is_empty() {
        return "all mail".to_owned();
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_selected_is_refused_unless_all_is_said() {
        let target = |domains: &[&str], all| Target {
            selection: Selection {
                domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
                ..Selection::default()
            },
            all,
        };
        assert!(target(&[], false).selector().is_err());
        assert!(target(&["a.example"], true).selector().is_err());
        assert!(target(&[], true).selector().unwrap().all);
        let selector = target(&["A.Example", "b.example"], false)
            .selector()
            .unwrap();
        assert_eq!(shown(&selector), "domain a.example or b.example");
    }
}
