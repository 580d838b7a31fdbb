//! Threads for work that takes the processor for long, behind a bounded queue.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use telemetry::IntGauge;

/// A fixed number of threads. They end when the pool is dropped, after the jobs at hand.
pub(crate) struct Pool<T> {
    shared: Arc<Shared<T>>,
}

/// The queue is full: nothing was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overloaded;

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    wake: Condvar,
    capacity: usize,
    /// Most jobs that a thread takes at once.
    group: usize,
    depth: IntGauge,
}

struct Queue<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

impl<T: Send + 'static> Pool<T> {
    /// A thread takes up to `group` of the waiting jobs and does `work` with them; a panic in it costs the group, not the
    /// thread. `capacity` bounds the number of waiting jobs, which `depth` shows.
    pub(crate) fn new(
        threads: usize,
        capacity: usize,
        group: usize,
        depth: IntGauge,
        work: impl Fn(Vec<T>) + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                closed: false,
            }),
            wake: Condvar::new(),
            capacity,
            group,
            depth,
        });
        let work = Arc::new(work);
        for number in 0..threads {
            let (shared, work) = (shared.clone(), work.clone());
            std::thread::Builder::new()
                .name(format!("sign-{number}"))
                .spawn(move || shared.work(&*work))
                .expect("the system lets a service start its threads");
        }
        Self { shared }
    }

    /// Takes a job, unless the queue is full.
    pub(crate) fn submit(&self, job: T) -> Result<(), Overloaded> {
        let shared = &self.shared;
        let mut queue = shared.lock();
        if queue.jobs.len() >= shared.capacity {
            return Err(Overloaded);
        }
        queue.jobs.push_back(job);
        shared.show(&queue);
        // A thread that was woken for the first takes all until there are more than one takes.
        let waiting = queue.jobs.len();
        let wake = waiting == 1 || waiting >= shared.group;
        drop(queue);
        if wake {
            shared.wake.notify_one();
        }
        Ok(())
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, queue: &Queue<T>) {
        self.depth
            .set(i64::try_from(queue.jobs.len()).unwrap_or(i64::MAX));
    }

    fn work(&self, work: impl Fn(Vec<T>)) {
        while let Some(jobs) = self.next() {
            if catch_unwind(AssertUnwindSafe(|| work(jobs))).is_err() {
                tracing::error!("a signing job panicked");
            }
        }
    }

    fn next(&self) -> Option<Vec<T>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if !queue.jobs.is_empty() {
                let size = queue.jobs.len().min(self.group);
                let jobs = queue.jobs.drain(..size).collect();
                self.show(&queue);
                return Some(jobs);
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

    type Job = Box<dyn FnOnce() + Send>;

    /// Tells the sizes of the groups.
    fn pool(threads: usize, capacity: usize, group: usize) -> (Pool<Job>, mpsc::Receiver<usize>) {
        let (tell, sizes) = mpsc::channel();
        let depth = telemetry::gauge("staffetta_signer_test_pool_depth", "Test.");
        let pool = Pool::new(threads, capacity, group, depth, move |jobs: Vec<Job>| {
            tell.send(jobs.len()).ok();
            jobs.into_iter().for_each(|job| job());
        });
        (pool, sizes)
    }

    /// Holds a thread until what it returns is dropped.
    fn hold(pool: &Pool<Job>) -> mpsc::Sender<()> {
        let (let_go, held) = mpsc::channel::<()>();
        let (started, starts) = mpsc::channel();
        let job = move || {
            started.send(()).unwrap();
            held.recv().unwrap_err();
        };
        pool.submit(Box::new(job)).unwrap();
        starts.recv().unwrap();
        let_go
    }

    #[test]
    fn does_each_job_once() {
        let (pool, _) = pool(3, 1000, 8);
        let (done, numbers) = mpsc::channel();
        for number in 0..1000 {
            let done = done.clone();
            pool.submit(Box::new(move || done.send(number).unwrap()))
                .unwrap();
        }
        drop(done);
        let mut numbers: Vec<i32> = numbers.iter().collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn refuses_what_does_not_fit_in_the_queue() {
        let (pool, _) = pool(1, 2, 8);
        let let_go = hold(&pool);
        let (done, did) = mpsc::channel();
        for _ in 0..2 {
            let done = done.clone();
            pool.submit(Box::new(move || done.send(()).unwrap()))
                .unwrap();
        }
        assert_eq!(pool.submit(Box::new(|| ())), Err(Overloaded));
        drop(let_go);
        did.recv().unwrap();
        did.recv().unwrap();
        pool.submit(Box::new(move || done.send(()).unwrap()))
            .unwrap();
        did.recv().unwrap();
    }

    #[test]
    fn takes_full_groups_of_what_waits_and_the_rest_without_company() {
        let (pool, sizes) = pool(1, 100, 8);
        let let_go = hold(&pool);
        assert_eq!(sizes.recv().unwrap(), 1);
        for _ in 0..19 {
            pool.submit(Box::new(|| ())).unwrap();
        }
        drop(let_go);
        let sizes = [(); 3].map(|()| sizes.recv().unwrap());
        assert_eq!(sizes, [8, 8, 3]);
    }

    #[test]
    fn takes_a_job_at_once_when_few_have_come() {
        let (pool, sizes) = pool(1, 100, 8);
        for _ in 0..7 {
            let (done, did) = mpsc::channel();
            pool.submit(Box::new(move || done.send(()).unwrap()))
                .unwrap();
            did.recv().unwrap();
            assert_eq!(sizes.recv().unwrap(), 1);
        }
    }

    #[test]
    fn goes_on_after_a_job_that_panics() {
        let (pool, _) = pool(1, 10, 1);
        let (done, did) = mpsc::channel();
        pool.submit(Box::new(|| panic!("on purpose"))).unwrap();
        pool.submit(Box::new(move || done.send(()).unwrap()))
            .unwrap();
        did.recv().unwrap();
    }
}
