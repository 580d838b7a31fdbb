//! Threads for work that takes the processor for long, behind a bounded queue.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use telemetry::IntGauge;
use tokio::sync::oneshot;

/// A fixed number of threads. They end when the pool is dropped, after the job at hand.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

/// The queue is full: nothing was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overloaded;

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    capacity: usize,
    depth: IntGauge,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    weight: usize,
    closed: bool,
}

struct Job {
    weight: usize,
    work: Box<dyn FnOnce() + Send>,
}

impl Pool {
    /// `capacity` bounds the sum of the weights of waiting jobs, which `depth` shows.
    pub(crate) fn new(threads: usize, capacity: usize, depth: IntGauge) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            capacity,
            depth,
        });
        for number in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("sign-{number}"))
                .spawn(move || shared.work())
                .expect("the system lets a service start its threads");
        }
        Self { shared }
    }

    /// Takes a job. The receiver gets its result, or an error when it panicked; a job whose receiver
    /// is dropped before its turn is not done.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        weight: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Overloaded> {
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move || {
            if !answer.is_closed() {
                // The caller may go while we work.
                drop(answer.send(work()));
            }
        });
        let mut queue = self.shared.lock();
        if queue.weight + weight > self.shared.capacity {
            return Err(Overloaded);
        }
        queue.weight += weight;
        queue.jobs.push_back(Job { weight, work });
        self.shared.show(&queue);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(answered)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, queue: &Queue) {
        self.depth
            .set(i64::try_from(queue.weight).unwrap_or(i64::MAX));
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            if catch_unwind(AssertUnwindSafe(job.work)).is_err() {
                tracing::error!("a signing job panicked");
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.weight -= job.weight;
                self.show(&queue);
                return Some(job);
            }
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(threads: usize, capacity: usize) -> Pool {
        Pool::new(
            threads,
            capacity,
            telemetry::gauge("staffetta_signer_test_pool_depth", "Test."),
        )
    }

    #[tokio::test]
    async fn gives_the_result_of_each_job() {
        let pool = pool(3, 100);
        let answers: Vec<_> = (0..100)
            .map(|number| pool.submit(1, move || number * 2).unwrap())
            .collect();
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap(), number * 2);
        }
    }

    #[tokio::test]
    async fn refuses_what_does_not_fit_in_the_queue() {
        let pool = pool(1, 10);
        let (let_go, held) = mpsc::channel::<()>();
        let (started, starts) = mpsc::channel();
        let first = pool
            .submit(10, move || {
                started.send(()).unwrap();
                held.recv().unwrap_err();
            })
            .unwrap();
        starts.recv().unwrap();
        let second = pool.submit(10, || "second").unwrap();
        assert_eq!(pool.submit(1, || ()).unwrap_err(), Overloaded);
        drop(let_go);
        first.await.unwrap();
        assert_eq!(second.await.unwrap(), "second");
        assert_eq!(pool.submit(10, || "third").unwrap().await.unwrap(), "third");
    }

    #[tokio::test]
    async fn skips_jobs_that_nobody_waits_for() {
        let pool = pool(1, 10);
        let (let_go, held) = mpsc::channel::<()>();
        let first = pool.submit(1, move || held.recv().unwrap_err()).unwrap();
        let (did_it, was_done) = mpsc::channel();
        drop(pool.submit(1, move || did_it.send(())).unwrap());
        drop(let_go);
        first.await.unwrap();
        pool.submit(1, || ()).unwrap().await.unwrap();
        assert!(was_done.try_recv().is_err());
    }

    #[tokio::test]
    async fn goes_on_after_a_job_that_panics() {
        let pool = pool(1, 10);
        let panics = pool.submit(1, || panic!("on purpose")).unwrap();
        assert!(panics.await.is_err());
        assert_eq!(pool.submit(1, || 7).unwrap().await.unwrap(), 7);
    }
}
