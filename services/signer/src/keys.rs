//! The key files that the configuration names.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use config::{DkimAlgorithm, DkimKey, Snapshot};
use dkim::{Algorithm, Key};
use mail::{Domain, Span};

use crate::keyring::{DomainKey, Keyring, Standing};
use crate::metrics::Metrics;
use crate::publication::{Name, Seen};
use crate::rotation::{Publication, Use, uses};

/// Reads key files and remembers what was good, and what the DNS says of it.
pub(crate) struct KeyFiles {
    known: HashMap<Name, KnownKey>,
    metrics: Metrics,
}

struct KnownKey {
    path: PathBuf,
    algorithm: DkimAlgorithm,
    /// Of the file when it was read; `None` when it could not even be looked at.
    stamp: Option<Stamp>,
    /// The last good key.
    key: Option<DomainKey>,
    /// Text of its DNS record.
    record: Option<Arc<str>>,
    publication: Publication,
    /// Answers in a row that take away a record which was seen.
    misses: u8,
    /// Why the file as it is now is not used.
    problem: Option<String>,
}

/// Changes when the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// No key file is larger.
const MAX_KEY_BYTES: u64 = 64 * 1024;
/// So many answers in a row take away a record that was seen: one may be of a server that is wrong.
const MISSES: u8 = 3;

impl KeyFiles {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            known: HashMap::new(),
            metrics,
        }
    }

    /// The keyring for `snapshot`. A file is read when it is new, when it has changed, or when the
    /// last try failed; `all` reads every file. Blocks: not for the threads of the runtime.
    pub(crate) fn refresh(&mut self, snapshot: &Arc<Snapshot>, all: bool) -> Keyring {
        let mut before = std::mem::take(&mut self.known);
        for sending_domain in snapshot.sending_domains() {
            let life = sending_domain.signatures_expire_after;
            for configured in &sending_domain.dkim {
                let name = (sending_domain.domain.clone(), configured.selector.clone());
                let known = self.renew(&name, configured, life, before.remove(&name), all);
                self.known.insert(name, known);
            }
        }
        self.compose(snapshot)
    }

    /// Takes in what the DNS says, and gives the keyring that follows from it; `None`: the same as before.
    pub(crate) fn note(&mut self, snapshot: &Arc<Snapshot>, seen: Vec<Seen>) -> Option<Keyring> {
        let mut changed = false;
        for seen in seen {
            let Some(known) = self.known.get_mut(&seen.name) else {
                continue;
            };
            if known.record.as_ref() != Some(&seen.record) {
                continue;
            }
            known.misses = match seen.publication {
                Publication::Shown(_) => 0,
                Publication::Absent | Publication::Other => known.misses.saturating_add(1),
                Publication::Unknown => known.misses,
            };
            let publication = match (known.publication, seen.publication) {
                // The last answer counts that says anything, and of good ones the first.
                (before, Publication::Unknown) => before,
                (before @ Publication::Shown(_), Publication::Shown(_)) => before,
                (before @ Publication::Shown(_), _) if known.misses < MISSES => before,
                (_, now) => now,
            };
            changed |= publication != known.publication;
            known.publication = publication;
        }
        changed.then(|| self.compose(snapshot))
    }

    /// The keys as they stand now.
    fn compose(&self, snapshot: &Arc<Snapshot>) -> Keyring {
        let mut states = BTreeMap::new();
        for sending_domain in snapshot.sending_domains() {
            let known = |key: &DkimKey| {
                let name = (sending_domain.domain.clone(), key.selector.clone());
                self.known.get(&name)
            };
            let facts = |key: &DkimKey| {
                known(key).map_or((false, Publication::Unknown), |known| {
                    (known.key.is_some(), known.publication)
                })
            };
            let used = uses(&sending_domain.dkim, facts);
            let standing = |(key, used): (&DkimKey, Use)| {
                let known = known(key);
                Standing {
                    selector: key.selector.clone(),
                    algorithm: expected(key.algorithm).as_str(),
                    key: known.and_then(|known| known.key.clone()),
                    used,
                    publication: facts(key).1,
                    record: known.and_then(|known| known.record.clone()),
                    problem: known.and_then(|known| known.problem.clone()),
                }
            };
            let standings: Vec<_> = sending_domain.dkim.iter().zip(used).map(standing).collect();
            states.insert(sending_domain.domain.clone(), Arc::from(standings));
        }
        let keyring = Keyring::new(snapshot, states, |domain| self.metrics.of_domain(domain));
        self.show(&keyring);
        keyring
    }

    /// Whether a file is other than it was, or should be tried again.
    pub(crate) fn any_changed(&self) -> bool {
        self.known
            .values()
            .any(|known| known.problem.is_some() || stamp(&known.path) != known.stamp)
    }

    fn renew(
        &self,
        name: &(Domain, String),
        configured: &DkimKey,
        life: Option<Span>,
        before: Option<KnownKey>,
        all: bool,
    ) -> KnownKey {
        let stamp = stamp(&configured.key);
        let mut shown = None;
        let (before_problem, last_good) = match before {
            Some(known)
                if !all
                    && known.problem.is_none()
                    && known.stamp == stamp
                    && known.path == configured.key
                    && known.algorithm == configured.algorithm =>
            {
                return known;
            }
            Some(known) => {
                shown = known
                    .record
                    .map(|record| (record, known.publication, known.misses));
                (known.problem, known.key)
            }
            None => (None, None),
        };
        let (domain, selector) = name;
        let (key, problem) = match load(domain, configured, life) {
            Ok(key) => {
                tracing::debug!(%domain, %selector, "DKIM key loaded");
                (Some(Arc::new(key)), None)
            }
            Err(problem) => {
                self.metrics.key_failures.inc();
                // The same problem is found again at every look: it is told once.
                if before_problem.as_ref() != Some(&problem) {
                    let kept = last_good.is_some();
                    tracing::error!(%domain, %selector, kept_last_good = kept, problem, "DKIM key can't be used");
                }
                (last_good, Some(problem))
            }
        };
        let record: Option<Arc<str>> = key.as_ref().map(|key| key.key().dns_record().into());
        // What the DNS said is still said of the same key.
        let (publication, misses) = match shown {
            Some((before, publication, misses)) if Some(&before) == record.as_ref() => {
                (publication, misses)
            }
            _ => (Publication::Unknown, 0),
        };
        KnownKey {
            path: configured.key.clone(),
            algorithm: configured.algorithm,
            stamp,
            key,
            record,
            publication,
            misses,
            problem,
        }
    }

    fn show(&self, keyring: &Keyring) {
        let count = |state: &str, belongs: fn(&KnownKey) -> bool| {
            let number = self.known.values().filter(|known| belongs(known)).count();
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            self.metrics.keys.with_label_values(&[state]).set(number);
        };
        count("loaded", |known| known.problem.is_none());
        count("stale", |known| {
            known.problem.is_some() && known.key.is_some()
        });
        count("missing", |known| known.key.is_none());
        let gauge =
            |gauge: &telemetry::IntGaugeVec, label: &str, belongs: fn(&Standing) -> bool| {
                let number = keyring
                    .standings()
                    .filter(|(_, standing)| belongs(standing));
                let number = i64::try_from(number.count()).unwrap_or(i64::MAX);
                gauge.with_label_values(&[label]).set(number);
            };
        let used = &self.metrics.used;
        gauge(used, "active", |key| key.used == Use::Active);
        gauge(used, "pending", |key| key.used == Use::Pending);
        gauge(used, "retiring", |key| matches!(key.used, Use::Retiring(_)));
        let published = &self.metrics.published;
        // Of those that sign.
        gauge(published, "shown", |key| {
            key.used == Use::Active && matches!(key.publication, Publication::Shown(_))
        });
        gauge(published, "absent", |key| {
            key.used == Use::Active && key.publication == Publication::Absent
        });
        gauge(published, "other", |key| {
            key.used == Use::Active && key.publication == Publication::Other
        });
        gauge(published, "unknown", |key| {
            key.used == Use::Active && key.publication == Publication::Unknown
        });
    }
}

fn expected(algorithm: DkimAlgorithm) -> Algorithm {
    match algorithm {
        DkimAlgorithm::RsaSha256 => Algorithm::RsaSha256,
        DkimAlgorithm::Ed25519Sha256 => Algorithm::Ed25519Sha256,
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: metadata.ino(),
    })
}

fn load(domain: &Domain, configured: &DkimKey, life: Option<Span>) -> Result<dkim::Signer, String> {
    let path = configured.key.display();
    let length = std::fs::metadata(&configured.key)
        .map_err(|error| format!("{path}: {error}"))?
        .len();
    if length > MAX_KEY_BYTES {
        return Err(format!("{path}: {length} bytes are too many for a key"));
    }
    let pem = std::fs::read(&configured.key).map_err(|error| format!("{path}: {error}"))?;
    let key = Key::from_pem(&pem).map_err(|error| format!("{path}: {error}"))?;
    let expected = expected(configured.algorithm);
    if key.algorithm() != expected {
        let (expected, found) = (expected.as_str(), key.algorithm().as_str());
        return Err(format!(
            "{path}: the configuration says {expected}, the key is for {found}"
        ));
    }
    let signer = dkim::Signer::new(domain.as_str(), &configured.selector, key)
        .map_err(|error| error.to_string())?;
    Ok(match life {
        Some(life) => signer.expiring_after(life.duration().as_secs()),
        None => signer,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    const SHORT_RSA: &[u8] = include_bytes!("../../lib/dkim/testdata/rsa1024-pkcs8.pem");

    /// One tenant and a domain with these keys, as (selector, algorithm, file).
    pub(crate) fn snapshot(keys: &[(&str, &str, &Path)]) -> Arc<Snapshot> {
        let keys: String = keys
            .iter()
            .map(|(selector, algorithm, path)| {
                format!(
                    "    - {{ selector: {selector}, algorithm: {algorithm}, key: \"file:{}\" }}\n",
                    path.display()
                )
            })
            .collect();
        let documents = format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: acme }}\n\
             spec: {{ defaultStream: bulk, streams: [ {{ name: bulk, inDoubt: retry }} ] }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: unsigned.example }}\n\
             spec: {{ tenant: acme, unsigned: true }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: acme.example }}\n\
             spec:\n  tenant: acme\n  includeSubdomains: true\n  dkim:\n{keys}"
        );
        Arc::new(Snapshot::from_documents(&documents).expect("the documents of the test are valid"))
    }

    fn files() -> KeyFiles {
        KeyFiles::new(Metrics::new())
    }

    fn acme(keyring: &Keyring) -> Vec<&DomainKey> {
        let domain = Domain::parse("acme.example").unwrap();
        keyring.of(&domain).unwrap().own().iter().collect()
    }

    #[test]
    fn puts_the_rsa_key_first() {
        let folder = tempfile::tempdir().unwrap();
        let (rsa, ed25519) = (folder.path().join("r"), folder.path().join("e"));
        fs::write(&rsa, dkim::generate_rsa2048()).unwrap();
        fs::write(&ed25519, dkim::generate_ed25519()).unwrap();
        let snapshot = snapshot(&[
            ("e1", "ed25519-sha256", &ed25519),
            ("s1", "rsa-sha256", &rsa),
        ]);
        let keyring = files().refresh(&snapshot, true);
        let selectors: Vec<_> = acme(&keyring).iter().map(|key| key.selector()).collect();
        assert_eq!(selectors, ["s1", "e1"]);
    }

    #[test]
    fn keeps_the_last_good_key_when_the_file_breaks_and_takes_the_next_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e");
        fs::write(&path, dkim::generate_ed25519()).unwrap();
        let snapshot = snapshot(&[("e1", "ed25519-sha256", &path)]);
        let mut files = files();
        let first = files.refresh(&snapshot, true);
        assert!(!files.any_changed());
        let half = dkim::generate_ed25519();
        let half = &half[..half.len() / 2];
        for broken in ["", "junk", half, &dkim::generate_rsa2048()] {
            fs::write(&path, broken).unwrap();
            assert!(files.any_changed());
            let kept = files.refresh(&snapshot, false);
            assert!(Arc::ptr_eq(acme(&kept)[0], acme(&first)[0]), "{broken:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(
            acme(&files.refresh(&snapshot, true))[0],
            acme(&first)[0]
        ));
        fs::write(&path, dkim::generate_ed25519()).unwrap();
        assert!(files.any_changed());
        let renewed = files.refresh(&snapshot, false);
        assert!(!Arc::ptr_eq(acme(&renewed)[0], acme(&first)[0]));
        assert!(!files.any_changed());
    }

    #[test]
    fn one_wrong_answer_takes_no_key_away() {
        use Publication::{Absent, Other, Shown, Unknown};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e");
        fs::write(&path, dkim::generate_ed25519()).unwrap();
        let snapshot = snapshot(&[("e1", "ed25519-sha256", &path)]);
        let mut files = files();
        let keyring = files.refresh(&snapshot, true);
        let record = keyring.standings().next().unwrap().1.record.clone();
        let name = (Domain::parse("acme.example").unwrap(), "e1".to_owned());
        for (number, (answer, expected)) in [
            (Absent, Absent),
            (Shown(1), Shown(1)),
            (Absent, Shown(1)),
            (Other, Shown(1)),
            // It begins anew.
            (Shown(2), Shown(1)),
            (Absent, Shown(1)),
            (Unknown, Shown(1)),
            (Absent, Shown(1)),
            (Other, Other),
            (Absent, Absent),
            (Unknown, Absent),
            (Shown(3), Shown(3)),
            (Absent, Shown(3)),
        ]
        .into_iter()
        .enumerate()
        {
            let seen = Seen {
                name: name.clone(),
                record: record.clone().unwrap(),
                publication: answer,
            };
            files.note(&snapshot, vec![seen]);
            // A file that is read again changes nothing about it.
            files.refresh(&snapshot, true);
            assert_eq!(files.known[&name].publication, expected, "{number}");
        }
    }

    /// What the kubelet does with a mounted Secret: files are links through the link `..data`, which is switched to
    /// another folder in one step.
    fn mount_secret(mount: &Path, version: &str) -> PathBuf {
        let folder = mount.join(version);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("s1.pem"), dkim::generate_ed25519()).unwrap();
        let switch = mount.join("..data_tmp");
        std::os::unix::fs::symlink(version, &switch).unwrap();
        fs::rename(&switch, mount.join("..data")).unwrap();
        let path = mount.join("s1.pem");
        if !path.exists() {
            std::os::unix::fs::symlink("..data/s1.pem", &path).unwrap();
        }
        path
    }

    #[test]
    fn takes_the_new_key_of_a_mounted_secret_when_its_link_is_switched() {
        let mount = tempfile::tempdir().unwrap();
        let path = mount_secret(mount.path(), "..2026_11_22_10_00_00.1");
        let snapshot = snapshot(&[("s1", "ed25519-sha256", &path)]);
        let mut files = files();
        let first = files.refresh(&snapshot, true);
        assert!(!files.any_changed());
        mount_secret(mount.path(), "..2026_11_22_11_00_00.2");
        fs::remove_dir_all(mount.path().join("..2026_11_22_10_00_00.1")).unwrap();
        assert!(files.any_changed());
        let second = files.refresh(&snapshot, false);
        assert!(!Arc::ptr_eq(acme(&second)[0], acme(&first)[0]));
        assert!(!files.any_changed());
    }

    #[test]
    fn does_not_read_unchanged_files_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e");
        fs::write(&path, dkim::generate_ed25519()).unwrap();
        let snapshot = snapshot(&[("e1", "ed25519-sha256", &path)]);
        let mut files = files();
        let first = files.refresh(&snapshot, true);
        assert!(Arc::ptr_eq(
            acme(&files.refresh(&snapshot, false))[0],
            acme(&first)[0]
        ));
        assert!(!Arc::ptr_eq(
            acme(&files.refresh(&snapshot, true))[0],
            acme(&first)[0]
        ));
    }

    #[test]
    fn says_why_a_key_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let problem = |content: Option<&[u8]>| {
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => drop(fs::remove_file(&path)),
            }
            let configured = DkimKey {
                selector: "s1".to_owned(),
                algorithm: DkimAlgorithm::RsaSha256,
                key: path.clone(),
                when_published: false,
                replaces: None,
            };
            let domain = Domain::parse("acme.example").unwrap();
            load(&domain, &configured, None).unwrap_err()
        };
        assert!(problem(None).contains("No such file"));
        assert!(problem(Some(b"junk")).contains("PEM"));
        assert!(problem(Some(SHORT_RSA)).contains("2048"));
        assert!(problem(Some(dkim::generate_ed25519().as_bytes())).contains("says rsa-sha256"));
        assert!(problem(Some(&[b' '; 70_000])).contains("too many"));
    }
}
