//! The tasks that do what is in a queue.

use std::sync::Arc;

use super::directory::done;
use super::queue::Queue;
use super::work::Work;
use super::{batch, compare, file, listing};

/// Works until there is nothing to do any more.
pub(super) async fn run(queue: &Arc<Queue>) {
    let mut tasks = Vec::new();
    for _ in 0..queue.settings.tasks + queue.settings.streams {
        let (handle, queue) = (queue.state.handle.clone(), queue.clone());
        let work = async move {
            while let Some(work) = queue.next().await {
                let is_large = matches!(work, Work::Large(..));
                // What was to be done is forgotten once it is to stop: nothing of it is finished then.
                if !queue.state.is_stopped() {
                    perform(&queue, work).await;
                }
                queue.end(is_large);
            }
        };
        tasks.push(handle.spawn(work));
    }
    for task in tasks {
        task.await;
    }
}

async fn perform(queue: &Queue, work: Work) {
    match work {
        Work::Enter(dir) => listing::enter(queue, dir).await,
        Work::List(begun) => listing::list(queue, begun).await,
        Work::Batch(dir, pair, items) => {
            let count = items.len();
            batch::copy(queue, &dir, &pair, items).await;
            done(&queue.state, dir, count).await;
        }
        Work::One(dir, pair, item) => {
            file::copy_one(queue, &dir, &pair, item).await;
            done(&queue.state, dir, 1).await;
        }
        Work::Single(dir, item) | Work::Large(dir, item) => {
            match dir.pair(&queue.state).await {
                Ok(pair) => file::copy_one(queue, &dir, &pair, item).await,
                Err(error) => queue.state.trouble(error),
            }
            done(&queue.state, dir, 1).await;
        }
        Work::Compare(comparison) => compare::compare(queue, comparison).await,
    }
}
