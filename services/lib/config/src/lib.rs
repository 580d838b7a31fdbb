//! The configuration as resource documents (`apiVersion: staffetta.dev/v1alpha1`): what they may
//! say, and the one validated [`Snapshot`] of them that all services follow.
//!
//! Providers and their shaping are shipped with it (`shipped/`) and hold unless a document replaces them.
//!
//! Pure: text in, values or problems out. Files that documents refer to are read by the service
//! that needs them. [`Fields`] reads typed fields out of any YAML map; `staffetta.yaml` is read
//! with it too.

mod canonical;
mod homes;
mod index;
mod problem;
mod read;
mod references;
mod resources;
mod shaping_rules;
mod shipped;
mod snapshot;
mod suffixes;

pub use problem::{Problem, Problems};
pub use read::{Fields, Node, NodeValue};
pub use resources::OwnReturnPath;
pub use resources::{
    API_VERSION, Action as AutomationAction, AskedWait, AutomationRule, AutomationSet, Credential,
    DkimAlgorithm, DkimKey, DomainMatch, EgressPool, EgressSource, InDoubt, Kind, Login, OpenHours,
    PasswordHash, Priority, Probation, Provider, ReplyMatch, RetryClass, RetryPolicy,
    RetrySchedule, RetryWaits, Route, RouteMatch, Scope, SendingDomain, Shaping, ShapingMatch,
    ShapingQuery, ShapingRule, ShapingScope, ShapingSet, SharedShaping, Sticky, Stream, Tenant,
    TextPattern, Timing, TlsPolicy, Window, WithoutKey,
};
// By what way mail leaves.
pub use resources::{
    AddressFamily, AuthMechanism, AuthOver, ClientCertificate, EgressProxy, ProxyProtocol,
    SmartHost, SmartHostAuth, SmartHostTls,
};
// What may be submitted, and by whom.
pub use resources::{
    Allowance, Check, CheckAction, CheckRule, ForeignSenders, Headers, HoldEnd, LongLines,
    LongReturnPath, Mode, OverQuota, Preflight, Quota, QuotaError, Repair, ReturnPath, ScramKeys,
    ScramKeysError, SignalRule, Signals, SizeLimit, TokenAlgorithm, TokenIssuer, TokenKeys,
    TokenSubject, UriTemplate, UriValues, Watch, WordList, WordText,
};
// Who looks at it before it is accepted.
pub use resources::{
    Engine, Scanner, ScannerAddress, ScannerAddressError, Spam, WhenDown, WhenTooLarge,
};
pub use shaping_rules::{ExplainedField, RuleName, ShapingExplanation};
pub use snapshot::{Action, Change, Snapshot};
