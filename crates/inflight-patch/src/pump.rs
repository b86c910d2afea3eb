//! The shape of every pass: start work on units in order, a bounded number at once, and take the
//! results in order.
//!
//! Starting a unit may wait (for memory); as units start in the order in which they are consumed,
//! the oldest always has what it needs.

use std::future::Future;

use inflight::stream::Ordered;

use crate::error::Result;

/// Runs `start` for each of `0..count`, at most `depth` of the futures it makes at once, and
/// `finish` on their results in order.
pub(crate) async fn pump<F, T>(
    count: usize,
    depth: usize,
    mut start: impl AsyncFnMut(usize) -> Result<F>,
    mut finish: impl AsyncFnMut(usize, T) -> Result<()>,
) -> Result<()>
where
    F: Future<Output = Result<T>> + Unpin,
{
    let mut at_work = Ordered::new(depth);
    let (mut started, mut finished) = (0, 0);
    loop {
        while started < count && at_work.has_room() {
            at_work.push(start(started).await?);
            started += 1;
        }
        let Some(result) = at_work.next().await else {
            return Ok(());
        };
        finish(finished, result?).await?;
        finished += 1;
    }
}
