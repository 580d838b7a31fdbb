//! Rules for replies.

use config::{AutomationAction, Scope, Snapshot};
use mail::Span;

use crate::document;

fn read(rule: &str) -> Result<Snapshot, Vec<String>> {
    let spec = format!("{{ rules: [ {rule} ] }}");
    Snapshot::from_documents(&document("Automation", "mine", &spec)).map_err(|problems| {
        let text = |problem: &config::Problem| {
            let at = problem.at.split_once("spec.rules[0]");
            format!("{}: {}", at.map_or("", |(_, rest)| rest), problem.what)
        };
        problems.iter().map(text).collect()
    })
}

#[test]
fn a_rule_has_the_values_that_were_written_and_reads_back() {
    let rule = "{ match: { provider: google }, reply: { codes: [421, 450], enhanced: [ 4.7.28 ], text: 'unusual\\s+rate' }, threshold: 2/h, action: slow, to: 40, recover: 5m, least: 10/m, scope: pool }";
    let snapshot = read(rule).unwrap();
    let own = |snapshot: &Snapshot| {
        let sets = snapshot.automation();
        sets.iter().find(|set| set.name == "mine").unwrap().rules[0].clone()
    };
    let rule = own(&snapshot);
    assert_eq!(rule.scope, Scope::Pool);
    assert_eq!(
        rule.action,
        AutomationAction::Slow {
            to_percent: 40,
            recover: Span::from_secs(300),
            least: "10/m".parse().unwrap()
        }
    );
    assert!(rule.reply.fits(421, "4.7.28", "an UNUSUAL  rate of mail"));
    assert!(!rule.reply.fits(550, "4.7.28", "an unusual rate of mail"));
    assert!(!rule.reply.fits(421, "4.7.0", "an unusual rate of mail"));
    assert!(!rule.reply.fits(421, "4.7.28", "a rate of mail"));
    let again = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(own(&again), rule);
    assert_eq!(again.hash(), snapshot.hash());
}

#[test]
fn bad_rules_are_reported() {
    let table: &[(&str, &[&str])] = &[
        (
            "{ reply: {}, action: suspend, for: 1h }",
            &[".reply: codes, enhanced or text are expected"],
        ),
        (
            "{ reply: { codes: [250], enhanced: [ 4.7 ], text: '(' }, action: suspend }",
            &[
                ".for: is missing",
                ".reply.codes[0]: a whole number from 400 to 599 is expected, found the number 250",
                ".reply.enhanced[0]: a text is expected, found the number 4.7",
                ".reply.text: a regular expression is expected (error: unclosed group), found \"(\"",
            ],
        ),
        (
            "{ reply: { codes: [421] }, action: limit, for: 1h, scope: tenant }",
            &[
                ".action: rate, connections or messagesPerConnection are expected with limit",
                ".scope: tenants can be suspended or go into quarantine only: lane or pool is expected",
            ],
        ),
        (
            "{ reply: { codes: [421] }, action: slow, for: 1h, threshold: 1001/h, match: { provider: nobody, colour: red } }",
            &[
                ".threshold: at most 1000 are counted",
                ".match.colour: unknown field; known: source, domain, site, provider, stream, pool",
                ".for: unknown field; known: reply, threshold, action, match, recover, to, least, scope",
                ".match.provider: no Provider named \"nobody\"; known: apple, barracuda, comcast, fastmail, free-fr and 23 more",
            ],
        ),
        (
            "{ reply: { codes: [554] }, action: quarantine, for: 31d, scope: pool }",
            &[
                ".for: 1s to 30d is expected, found 31d",
                ".scope: a tenant goes into quarantine: tenant is expected",
            ],
        ),
        (
            // Patterns are bounded in what they may cost.
            "{ reply: { text: '(a{1,500}){1,500}' }, action: suspend, for: 1h }",
            &[
                ".reply.text: a regular expression is expected (Compiled regex exceeds size limit of 262144 bytes.), found \"(a{1,500}){1,500}\"",
            ],
        ),
    ];
    for (rule, expected) in table {
        let mut problems = read(rule).expect_err(rule);
        problems.sort_unstable();
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(problems, expected, "{rule}");
    }
}

#[test]
fn a_rule_may_send_tenants_into_quarantine_for_a_time_or_until_somebody_ends_it() {
    for (more, span) in [("", None), (", for: 7d", Some(Span::from_secs(7 * 86_400)))] {
        let rule =
            format!("{{ reply: {{ codes: [554] }}, threshold: 5/h, action: quarantine{more} }}");
        let snapshot = read(&rule).unwrap();
        let again = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
        let sets = again.automation();
        let rule = &sets.iter().find(|set| set.name == "mine").unwrap().rules[0];
        assert_eq!(rule.action, AutomationAction::Quarantine { span });
        assert_eq!(rule.scope, Scope::Tenant);
    }
}
