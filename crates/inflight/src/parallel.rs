//! Jobs side by side that together use no more memory than there is.
//!
//! Each says beforehand how much it needs, and has that when it begins. The largest that fits begins first:
//! small ones fill the gaps that it leaves, and none is left to the end that has to run alone because of
//! its size. One always runs, even one that needs more than all, which then runs alone.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::budget::{Budget, Reservation};
use crate::handle::Handle;
use crate::task::Task;

impl Handle {
    /// Runs jobs as tasks, at most `at_once` at a time and within what `budget` has left; each with the bytes
    /// that it needs, which are held until it has ended. Gives their results in the order of the jobs.
    /// Dropping the future cancels those that run.
    ///
    /// A job must not wait for more from the same budget, nor give a result that holds some of it: those
    /// beside it may hold all there is. What others give back is seen when a job ends.
    ///
    /// ```
    /// # use inflight::{Budget, Engine};
    /// # fn main() -> inflight::Result<()> {
    /// # let engine = Engine::new()?;
    /// let budget = Budget::new(64 << 20);
    /// let jobs = vec![(10 << 20, "small"), (60 << 20, "large"), (10 << 20, "small")];
    /// let lengths = engine.run_within(&budget, 4, jobs, |name| async move { name.len() });
    /// assert_eq!(engine.block_on(lengths), [5, 5, 5]);
    /// assert!(budget.peak() <= 64 << 20);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_within<J, F>(
        &self,
        budget: &Budget,
        at_once: usize,
        jobs: Vec<(u64, J)>,
        run: impl Fn(J) -> F,
    ) -> Vec<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut results: Vec<Option<F::Output>> = jobs.iter().map(|_| None).collect();
        // By need; of equal ones, the first begins first.
        let mut waiting: BTreeMap<(u64, usize), J> = BTreeMap::new();
        for (number, (need, job)) in jobs.into_iter().enumerate() {
            waiting.insert((need, usize::MAX - number), job);
        }
        let mut running: Vec<(usize, Task<F::Output>)> = Vec::new();
        loop {
            while running.len() < at_once.max(1)
                && let Some(((_, number), job, held)) =
                    largest_that_fits(&mut waiting, budget, running.is_empty())
            {
                running.push(self.begin(usize::MAX - number, held, run(job)));
            }
            if !running.is_empty() {
                let (number, result) = next_of(&mut running).await;
                results[number] = Some(result);
                continue;
            }
            // Others hold what is missing: the smallest is the first that can go on.
            let Some(((need, number), job)) = waiting.pop_first() else { break };
            let held = budget.reserve(need).await;
            running.push(self.begin(usize::MAX - number, held, run(job)));
        }
        results.into_iter().flatten().collect()
    }

    fn begin<F>(&self, number: usize, held: Reservation, job: F) -> (usize, Task<F::Output>)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.spawn(async move {
            let result = job.await;
            drop(held);
            result
        });
        (number, task)
    }
}

type Begun<J> = ((u64, usize), J, Reservation);

/// The largest job for which there is room now, with that.
fn largest_that_fits<J>(
    waiting: &mut BTreeMap<(u64, usize), J>,
    budget: &Budget,
    is_alone: bool,
) -> Option<Begun<J>> {
    let used = budget.used();
    let free = match is_alone && used == 0 {
        // Nobody holds anything: whatever it needs, it fits alone.
        true => u64::MAX,
        false => budget.limit().saturating_sub(used),
    };
    let key = *waiting.range(..=(free, usize::MAX)).next_back()?.0;
    let held = budget.try_reserve(key.0)?;
    let job = waiting.remove(&key)?;
    Some((key, job, held))
}

/// The result of the first that ends.
async fn next_of<T: Send + 'static>(running: &mut Vec<(usize, Task<T>)>) -> (usize, T) {
    poll_fn(|context| {
        for at in 0..running.len() {
            let (number, task) = &mut running[at];
            if let Poll::Ready(result) = Pin::new(task).poll(context) {
                let number = *number;
                drop(running.swap_remove(at));
                return Poll::Ready((number, result));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::driver::SimulatedDisk;
    use crate::engine::Engine;

    /// Runs jobs of these needs, each through some operations; the order in which they began.
    fn order(seed: u64, limit: u64, at_once: usize, needs: &[u64]) -> Vec<u64> {
        let engine = Engine::builder().simulated(&SimulatedDisk::new(seed));
        let budget = Budget::new(limit);
        let begun = Arc::new(Mutex::new(Vec::new()));
        let jobs =
            needs.iter().enumerate().map(|(number, need)| (*need, (number, *need))).collect();
        let results =
            engine.block_on(engine.run_within(&budget, at_once, jobs, |(number, need)| {
                let (begun, handle) = (begun.clone(), engine.handle().clone());
                async move {
                    begun.lock().expect("no panics").push(need);
                    for _ in 0..=need % 5 {
                        handle.nop().await.expect("done");
                    }
                    number
                }
            }));
        assert!(results.into_iter().eq(0..needs.len()), "results are in the order of the jobs");
        let most = needs.iter().copied().max().unwrap_or(0).max(limit);
        assert!(budget.peak() <= most && budget.used() == 0, "{budget:?}");
        let begun = begun.lock().expect("no panics");
        begun.clone()
    }

    #[test]
    fn the_largest_that_fits_begins_first() {
        assert_eq!(order(1, 100, 1, &[10, 30, 20]), [30, 20, 10]);
        // Beside 60, 50 does not fit, but 40 does.
        assert_eq!(order(1, 100, 2, &[40, 50, 60])[..2], [60, 40]);
        assert_eq!(order(1, 100, 8, &[]), [0; 0]);
    }

    #[test]
    fn what_needs_more_than_all_runs_alone() {
        assert_eq!(order(1, 100, 8, &[5, 1000, 7])[0], 1000);
        assert_eq!(order(2, 0, 8, &[5, 9]), [9, 5]);
    }

    #[test]
    fn the_bound_holds_for_any_jobs() {
        let mut chance = 1u64;
        for seed in 0..50 {
            let needs: Vec<u64> = (0..seed)
                .map(|_| {
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (chance >> 33) % 120
                })
                .collect();
            let mut begun = order(seed, 100, 1 + seed as usize % 7, &needs);
            begun.sort_unstable();
            let mut needs = needs;
            needs.sort_unstable();
            assert_eq!(begun, needs, "each began once");
        }
    }

    #[test]
    fn what_others_hold_is_waited_for() {
        let engine = Engine::builder().simulated(&SimulatedDisk::new(1));
        let budget = Budget::new(100);
        let held = budget.try_reserve(95).expect("fits");
        engine.block_on(async {
            let handle = engine.handle().clone();
            let other = engine.spawn(async move {
                for _ in 0..20 {
                    handle.nop().await.expect("done");
                }
                drop(held);
            });
            let jobs = vec![(50, 0), (60, 1)];
            let results = engine.run_within(&budget, 4, jobs, |job| async move { job }).await;
            assert_eq!(results, [0, 1]);
            other.await;
        });
        assert!(budget.peak() <= 100, "{budget:?}");
    }

    #[test]
    fn dropped_jobs_give_back_what_they_held() {
        let engine = Engine::builder().simulated(&SimulatedDisk::new(1));
        let budget = Budget::new(100);
        engine.block_on(async {
            let handle = engine.handle().clone();
            let jobs = vec![(40, ()), (60, ())];
            let mut jobs = Box::pin(engine.run_within(&budget, 4, jobs, |()| {
                let handle = handle.clone();
                async move { handle.sleep(std::time::Duration::from_secs(1000)).await }
            }));
            let first = poll_fn(|context| Poll::Ready(jobs.as_mut().poll(context).is_pending()));
            assert!(first.await && budget.used() == 100);
            drop(jobs);
            while budget.used() > 0 {
                engine.nop().await.expect("done");
            }
        });
    }
}
