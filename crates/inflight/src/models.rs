//! A model of the end of an engine, over what its threads share: queue, alarm and flight together.

use loom::sync::Arc;
use loom::thread;

use crate::alarm::Sleep;
use crate::flight::{End, Flight};
use crate::links::{Link, Queue};
use crate::sync::{AtomicU8, AtomicU32, Ordering};

struct Shared {
    sleep: Sleep,
    queue: Queue,
    link: Link,
    flight: Flight,
    /// Set when the engine ends.
    stage: AtomicU8,
    /// How often the operation was buried.
    buried: AtomicU32,
}

impl Shared {
    /// The driver, or whoever refuses the operation, is done with it.
    fn complete(&self) {
        if self.flight.complete() == End::Ours {
            self.bury();
        }
    }

    fn bury(&self) {
        self.flight.end();
        self.buried.fetch_add(1, Ordering::Relaxed);
    }

    /// The worker: takes what is submitted, sleeps when there is nothing, and ends when told to.
    fn work(&self) {
        loop {
            let mut taken = Vec::new();
            self.queue.take_all(|_| &self.link, &mut taken);
            let ends = self.stage.load(Ordering::SeqCst) == 1;
            if ends {
                self.queue.close(|_| &self.link, &mut taken);
            }
            taken.into_iter().for_each(|_| self.complete());
            if ends {
                return;
            }
            self.sleep.fall_asleep();
            if self.queue.is_empty() && self.stage.load(Ordering::SeqCst) == 0 {
                // A wake-up that never came would leave it here for ever, which loom finds.
                while self.sleep.is_asleep() {
                    thread::yield_now();
                }
            }
            self.sleep.wake_up();
        }
    }
}

#[test]
fn an_end_wakes_the_worker_and_every_operation_is_buried_once() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let shared = Arc::new(Shared {
            sleep: Sleep::new(),
            queue: Queue::new(),
            link: Link::new(),
            flight: Flight::new(),
            stage: AtomicU8::new(0),
            buried: AtomicU32::new(0),
        });
        let submitter = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.flight.begin(false);
                if shared.queue.push(0, &shared.link) {
                    shared.sleep.must_wake();
                } else {
                    shared.complete();
                }
                // The future is dropped.
                if shared.flight.abandon() == End::Ours {
                    shared.bury();
                }
            }
        });
        let ender = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.stage.store(1, Ordering::SeqCst);
                shared.sleep.must_wake();
            }
        });
        shared.work();
        submitter.join().unwrap();
        ender.join().unwrap();
        assert_eq!(shared.buried.load(Ordering::Relaxed), 1);
        assert!(!shared.flight.is_under_way());
    });
}
