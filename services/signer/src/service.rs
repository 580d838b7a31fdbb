//! The signer as the others call it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Snapshot;
use dkim::Batches;
use proto::signer::{KeysAnswer, KeysRequest, SignErrorKind, SignRequest, SignResult};
use proto::{Call, Sign, TellKeys};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::keyring::Keyring;
use crate::keys::KeyFiles;
use crate::metrics::Metrics;
use crate::policy;
use crate::pool::Pool;
use crate::publication::{self, Seen};

/// Requests that may wait for each thread: what it signs in about half a second.
const QUEUE_PER_THREAD: usize = 2048;

/// Answers of the DNS are taken in together that come within this time.
const GATHERED: Duration = Duration::from_millis(500);
/// The first answers of the DNS are waited for so long.
const FIRST_ASKED: Duration = Duration::from_secs(10);

/// How a [`Signer`] works.
#[derive(Clone)]
pub struct Options {
    /// Threads that sign; 0 = as many as there are cores.
    pub threads: usize,
    /// How often key files are looked at for changes.
    pub recheck: Duration,
    /// Asked for the records of keys; without it keys that wait for theirs wait for ever.
    pub resolver: Option<dns::Resolver>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            recheck: Duration::from_secs(10),
            resolver: None,
        }
    }
}

/// A request that waits for a thread.
struct Job {
    /// As of the arrival of the call.
    keyring: Arc<Keyring>,
    request: SignRequest,
    answer: oneshot::Sender<SignResult>,
}

/// Signs with the keys that the configuration names. Clones share keys and threads.
#[derive(Clone)]
pub struct Signer {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool<Job>,
    keyring: watch::Receiver<Arc<Keyring>>,
    /// Whether the first round of answers about records was taken in.
    asked: watch::Receiver<bool>,
    metrics: Metrics,
    /// Aborted when the last clone is dropped.
    _follower: JoinSet<()>,
}

impl Signer {
    /// Loads the keys of the present snapshot, then follows the configuration and the key files.
    /// A key that can't be loaded is told in the log and does not stop the others.
    pub async fn start(options: Options, mut snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        let metrics = Metrics::new();
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let snapshot = snapshots.borrow_and_update().clone();
        let (files, keyring) = blocking(KeyFiles::new(metrics.clone()), move |files| {
            files.refresh(&snapshot, true)
        })
        .await
        .expect("loading keys does not panic");
        let (publish, keyring) = watch::channel(Arc::new(keyring));
        let mut follower = JoinSet::new();
        let (has_asked, asked) = watch::channel(false);
        // A pack of answers at a time.
        let (tell, told) = mpsc::channel(1);
        if let Some(resolver) = options.resolver {
            follower.spawn(publication::ask(resolver, keyring.clone(), tell));
        }
        let told = Told { told, has_asked };
        follower.spawn(follow(files, snapshots, told, options.recheck, publish));
        let batches = Batches::detect();
        tracing::debug!(batch = batches.size(), "RSA signatures made together");
        let counted = metrics.clone();
        let pool = Pool::new(
            threads,
            threads * QUEUE_PER_THREAD,
            batches.size(),
            metrics.queued.clone(),
            move |jobs| work(jobs, batches, &counted),
        );
        let inner = Inner {
            pool,
            keyring,
            asked,
            metrics,
            _follower: follower,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Waits until the DNS was asked for the records of the first keys, or can't be asked, but at most 10 s.
    pub async fn first_asked(&self) {
        let mut asked = self.inner.asked.clone();
        let waited = tokio::time::timeout(FIRST_ASKED, asked.wait_for(|asked| *asked)).await;
        if waited.is_err() {
            tracing::warn!("the DNS is slow to answer for the records of keys");
        }
    }

    async fn answer(&self, requests: Vec<SignRequest>) -> Vec<SignResult> {
        let started = Instant::now();
        let inner = &self.inner;
        let keyring = inner.keyring.borrow().clone();
        let answers: Vec<_> = requests
            .into_iter()
            .map(|request| self.submit(keyring.clone(), request))
            .collect();
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Some(answer) => match answer.await {
                    Ok(result) => result,
                    Err(_) => self.temporary("signing failed"),
                },
                None => self.temporary("the signer is overloaded"),
            });
        }
        inner
            .metrics
            .call_seconds
            .observe(started.elapsed().as_secs_f64());
        results
    }

    /// How the configured keys stand: a part of them, in the order of domains.
    pub fn keys(&self, request: &KeysRequest) -> KeysAnswer {
        let keyring = self.inner.keyring.borrow().clone();
        keyring.answer(request)
    }

    /// `None` when the queue is full.
    fn submit(
        &self,
        keyring: Arc<Keyring>,
        request: SignRequest,
    ) -> Option<oneshot::Receiver<SignResult>> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            keyring,
            request,
            answer,
        };
        self.inner.pool.submit(job).ok()?;
        Some(answered)
    }

    fn temporary(&self, detail: &str) -> SignResult {
        policy::refusal(
            SignErrorKind::Temporary,
            detail.to_owned(),
            &self.inner.metrics,
        )
    }
}

/// Signs a group of requests, of whatever calls they are. Those that nobody waits for any more are left out.
fn work(mut jobs: Vec<Job>, batches: Batches, metrics: &Metrics) {
    jobs.retain(|job| !job.answer.is_closed());
    let now = runtime::now_ms() / 1000;
    let prepared = jobs
        .iter()
        .map(|job| policy::prepare(&job.keyring, &job.request, now, metrics))
        .collect();
    let results = policy::complete(prepared, batches, metrics);
    for (job, result) in jobs.into_iter().zip(results) {
        // The caller may go while we work.
        drop(job.answer.send(result));
    }
}

impl Sign for Signer {
    fn sign(&self, requests: Vec<SignRequest>) -> Call<'_, Vec<SignResult>> {
        Box::pin(async move { Ok(self.answer(requests).await) })
    }
}

impl TellKeys for Signer {
    fn keys(&self, request: KeysRequest) -> Call<'_, KeysAnswer> {
        Box::pin(async move { Ok(Self::keys(self, &request)) })
    }
}

/// Works on key files on a thread that may block. `None` when the runtime stops or the work panics.
async fn blocking<T: Send + 'static>(
    mut files: KeyFiles,
    work: impl FnOnce(&mut KeyFiles) -> T + Send + 'static,
) -> Option<(KeyFiles, T)> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut files);
        (files, result)
    });
    match done.await {
        Ok(done) => Some(done),
        Err(error) => {
            if error.is_panic() {
                tracing::error!(
                    "reading key files panicked: changes of keys are not followed any more"
                );
            }
            None
        }
    }
}

/// Where answers about records come from.
struct Told {
    told: mpsc::Receiver<Vec<Seen>>,
    has_asked: watch::Sender<bool>,
}

impl Told {
    /// What comes soon after the first, and whether that was all of a round: at a start answers come by the thousand, and each
    /// keyring is of all domains.
    async fn gathered(&mut self, first: Vec<Seen>) -> (Vec<Seen>, bool) {
        let until = tokio::time::Instant::now() + GATHERED;
        let (mut seen, mut more) = (Vec::new(), Some(first));
        while let Some(pack) = more.filter(|pack| !pack.is_empty()) {
            seen.extend(pack);
            let next = tokio::time::timeout_at(until, self.told.recv()).await;
            match next {
                Ok(next) => more = Some(next.unwrap_or_default()),
                Err(_) => return (seen, false),
            }
        }
        (seen, true)
    }
}

/// Publishes a new keyring when the configuration, a key file, or what the DNS shows of the keys changes.
async fn follow(
    mut files: KeyFiles,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut told: Told,
    recheck: Duration,
    publish: watch::Sender<Arc<Keyring>>,
) {
    let mut source_is_there = true;
    let mut somebody_tells = true;
    let mut next_look = tokio::time::Instant::now() + recheck;
    loop {
        let mut all = false;
        tokio::select! {
            seen = told.told.recv(), if somebody_tells => {
                somebody_tells = seen.is_some();
                let (seen, is_round_over) = told.gathered(seen.unwrap_or_default()).await;
                // Of the configuration that the keys are of: a newer one comes with its own round.
                let snapshot = publish.borrow().snapshot.clone();
                if let Some(keyring) = files.note(&snapshot, seen) {
                    publish.send_replace(Arc::new(keyring));
                }
                if is_round_over {
                    told.has_asked.send_replace(true);
                }
                continue;
            }
            changed = snapshots.changed(), if source_is_there => {
                source_is_there = changed.is_ok();
                all = source_is_there;
            }
            () = tokio::time::sleep_until(next_look) => {}
        }
        next_look = tokio::time::Instant::now() + recheck;
        let snapshot = snapshots.borrow_and_update().clone();
        let renew = move |files: &mut KeyFiles| {
            let needed = all || files.any_changed();
            needed.then(|| files.refresh(&snapshot, all))
        };
        let Some((returned, renewed)) = blocking(files, renew).await else {
            return;
        };
        files = returned;
        if let Some(keyring) = renewed {
            publish.send_replace(Arc::new(keyring));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proto::signer::sign_result::Kind;

    use super::*;
    use crate::keys::tests::snapshot;

    fn requests(number: usize, domain: &str) -> Vec<SignRequest> {
        let request = |number: usize| SignRequest {
            domain: domain.to_owned(),
            header: b"From: a@acme.example\r\n".as_slice().into(),
            body_hash: vec![number as u8; 32].into(),
            own_message: false,
            ..SignRequest::default()
        };
        (0..number).map(request).collect()
    }

    /// Puts a new key in the place of the old one, by renaming: the time alone may stay the same.
    fn key_file(folder: &Path) -> std::path::PathBuf {
        let (path, new) = (folder.join("key"), folder.join("new"));
        std::fs::write(&new, dkim::generate_ed25519()).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    fn fields(result: &SignResult) -> &[u8] {
        match result.kind.as_ref().unwrap() {
            Kind::Fields(fields) => fields,
            Kind::Error(error) => panic!("{error:?}"),
        }
    }

    fn error(result: &SignResult) -> SignErrorKind {
        match result.kind.as_ref().unwrap() {
            Kind::Fields(_) => panic!("it is signed"),
            Kind::Error(error) => error.kind(),
        }
    }

    #[tokio::test]
    async fn answers_a_large_call_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(folder.path());
        let (_source, snapshots) = watch::channel(snapshot(&[("e1", "ed25519-sha256", &path)]));
        let signer = Signer::start(
            Options {
                threads: 3,
                ..Options::default()
            },
            snapshots,
        )
        .await;
        let mut asked = requests(256, "acme.example");
        asked[100].domain = "foreign.example".to_owned();
        let results = signer.sign(asked.clone()).await.unwrap();
        assert_eq!(results.len(), 256);
        assert_eq!(error(&results[100]), SignErrorKind::NoKey);
        for (result, request) in results.iter().zip(asked).skip(101) {
            let alone = signer.sign(vec![request]).await.unwrap();
            assert_eq!(body_hash_tag(result), body_hash_tag(&alone[0]));
        }
    }

    fn body_hash_tag(result: &SignResult) -> String {
        let text = String::from_utf8_lossy(fields(result)).into_owned();
        text.split_once("bh=")
            .unwrap()
            .1
            .split_once(';')
            .unwrap()
            .0
            .to_owned()
    }

    #[tokio::test]
    async fn answers_an_empty_call() {
        let (_source, snapshots) = watch::channel(Arc::default());
        let signer = Signer::start(Options::default(), snapshots).await;
        assert_eq!(signer.sign(Vec::new()).await.unwrap(), []);
    }

    #[tokio::test]
    async fn says_temporary_when_it_is_overloaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(folder.path());
        let (_source, snapshots) = watch::channel(snapshot(&[("e1", "ed25519-sha256", &path)]));
        let signer = Signer::start(
            Options {
                threads: 1,
                ..Options::default()
            },
            snapshots,
        )
        .await;
        // Each takes far longer than it is to ask for one more.
        let long = format!(
            "From: a@acme.example\r\nSubject: {}\r\n",
            "s ".repeat(2_000)
        );
        let mut asked = requests(QUEUE_PER_THREAD * 3, "acme.example");
        asked[0].header = long.into();
        let header = asked[0].header.clone();
        for request in &mut asked {
            request.header = header.clone();
        }
        let results = signer.sign(asked).await.unwrap();
        let is_signed = |result: &&SignResult| matches!(result.kind, Some(Kind::Fields(_)));
        let refused: Vec<&SignResult> = results.iter().filter(|it| !is_signed(it)).collect();
        let most = QUEUE_PER_THREAD * 2;
        assert!((1..=most).contains(&refused.len()), "{}", refused.len());
        for result in refused {
            assert_eq!(error(result), SignErrorKind::Temporary);
        }
        let results = signer.sign(requests(1, "acme.example")).await.unwrap();
        assert!(is_signed(&&results[0]));
    }

    /// s2 takes the place of s1 as soon as the DNS shows it, s3 does not while its record is that of another key, and the
    /// records of a key that is not staged are looked at, too.
    #[tokio::test]
    async fn keys_wait_for_their_records_and_take_the_place_of_others() {
        use proto::signer::{KeyPublication, KeyUse};

        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let put = |name: &str, pem: &str| {
            std::fs::write(file("new"), pem).unwrap();
            std::fs::rename(file("new"), file(name)).unwrap();
        };
        let record = |pem: &str| dkim::Key::from_pem(pem.as_bytes()).unwrap().dns_record();
        let pems: Vec<String> = (0..4).map(|_| dkim::generate_ed25519()).collect();
        for (number, pem) in pems.iter().enumerate().take(3) {
            put(&format!("s{}", number + 1), pem);
        }
        let zones = kit::Zones::new()
            .text("s2._domainkey.acme.example", &record(&pems[1]))
            .text("s3._domainkey.acme.example", &record(&pems[3]));
        let dns = kit::Dns::start(folder.path(), &zones).await.unwrap();
        let key = |selector: &str, more: &str| {
            let path = file(selector).display().to_string();
            format!(
                "{{ selector: {selector}, algorithm: ed25519-sha256, key: \"file:{path}\"{more} }}"
            )
        };
        let keys = [
            key("s1", ""),
            key("s2", ", replaces: s1"),
            key("s3", ", replaces: s2"),
        ];
        let documents = format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: acme }}\n\
             spec: {{ defaultStream: bulk, streams: [ {{ name: bulk }} ] }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: acme.example }}\n\
             spec: {{ tenant: acme, dkim: [ {} ] }}",
            keys.join(", ")
        );
        let snapshot = Arc::new(Snapshot::from_documents(&documents).unwrap());
        let (_source, snapshots) = watch::channel(snapshot);
        let options = Options {
            threads: 1,
            recheck: Duration::from_millis(50),
            resolver: Some(dns::Resolver::new(&[dns.address()]).unwrap()),
        };
        let signer = Signer::start(options, snapshots).await;
        signer.first_asked().await;
        let uses = || -> Vec<(KeyUse, KeyPublication)> {
            let all = signer.keys(&KeysRequest::default());
            assert!(!all.more);
            let of_key = |key: &proto::signer::KeyState| (key.r#use(), key.publication());
            all.keys.iter().map(of_key).collect()
        };
        let selector = || async {
            let signed = signer.sign(requests(1, "acme.example")).await.unwrap();
            let text = String::from_utf8_lossy(fields(&signed[0])).into_owned();
            assert_eq!(text.matches("DKIM-Signature").count(), 1, "{text}");
            text.split_once("; s=").unwrap().1[..2].to_owned()
        };
        let mut renewed = signer.inner.keyring.clone();
        let (active, pending, retiring) = (KeyUse::Active, KeyUse::Pending, KeyUse::Retiring);
        let (shown, other) = (KeyPublication::Shown, KeyPublication::Other);
        let absent = KeyPublication::Absent;
        // The answers are known by now.
        let expected = [(retiring, absent), (active, shown), (pending, other)];
        assert_eq!(uses(), expected);
        assert_eq!(selector().await, "s2");
        let first = &signer.keys(&KeysRequest::default()).keys[0];
        let week = 7 * 86_400_000;
        assert!(first.keep_until_ms.abs_diff(runtime::now_ms() + week) < 600_000);
        // The file of the key that the DNS shows comes later.
        put("s3", &pems[3]);
        while uses() != [(retiring, absent), (retiring, shown), (active, shown)] {
            renewed.changed().await.unwrap();
        }
        assert_eq!(selector().await, "s3");
        // What is broken now was good once, and goes on.
        put("s3", &pems[3][..40]);
        renewed.changed().await.unwrap();
        assert_eq!(selector().await, "s3");
        let asked = KeysRequest {
            domain: "ACME.example".to_owned(),
            ..KeysRequest::default()
        };
        let told = signer.keys(&asked).keys;
        assert!(
            told[2].problem.contains("not a PEM private key"),
            "{told:?}"
        );
        assert_eq!(told[1].record, record(&pems[1]));
        assert_eq!(
            (told[0].bits, told[0].algorithm.as_str()),
            (256, "ed25519-sha256")
        );
    }

    #[tokio::test]
    async fn does_not_wait_for_answers_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(folder.path());
        // Nobody answers there.
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (_source, snapshots) = watch::channel(snapshot(&[("e1", "ed25519-sha256", &path)]));
        let options = Options {
            threads: 1,
            resolver: Some(dns::Resolver::new(&[socket.local_addr().unwrap()]).unwrap()),
            ..Options::default()
        };
        let started = Instant::now();
        let signer = Signer::start(options, snapshots.clone()).await;
        signer.first_asked().await;
        let waited = started.elapsed();
        assert!((5..13).contains(&waited.as_secs()), "{waited:?}");
        let without = Signer::start(Options::default(), snapshots).await;
        let started = Instant::now();
        without.first_asked().await;
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn follows_the_configuration_and_the_key_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(folder.path());
        let (source, snapshots) = watch::channel(Arc::default());
        let signer = Signer::start(Options::default(), snapshots).await;
        let mut renewed = signer.inner.keyring.clone();
        let sign = || async {
            signer
                .sign(requests(1, "acme.example"))
                .await
                .unwrap()
                .remove(0)
        };
        assert_eq!(error(&sign().await), SignErrorKind::Temporary);

        source.send_replace(snapshot(&[("e1", "ed25519-sha256", &path)]));
        renewed.changed().await.unwrap();
        assert!(!fields(&sign().await).is_empty());

        let before = renewed.borrow_and_update().clone();
        key_file(folder.path());
        renewed.changed().await.unwrap();
        let acme = mail::Domain::parse("acme.example").unwrap();
        let first = |keyring: &Keyring| keyring.of(&acme).unwrap().own()[0].clone();
        assert!(!Arc::ptr_eq(&first(&before), &first(&renewed.borrow())));

        // Whoever read the configuration may stop: the keys stay, and their files are still looked at.
        drop(source);
        renewed.borrow_and_update();
        key_file(folder.path());
        renewed.changed().await.unwrap();
        assert!(!fields(&sign().await).is_empty());
    }
}
