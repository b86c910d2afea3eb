//! The shape of every pass: start work on units in order, a bounded number at once, and take the
//! results in order.
//!
//! Starting a unit may wait (for memory); as units start in the order in which they are consumed,
//! the oldest always has what it needs.

use std::future::Future;
use std::ops::Range;

use inflight::Buffer;
use inflight::stream::Ordered;

use crate::error::Result;
use crate::image::Image;
use crate::job::Job;

/// Runs `start` for each of `0..count`, at most `depth` of the futures it makes at once, and
/// `finish` on their results in order. After an error nothing more is started, and everything that
/// was has ended when this returns: whoever cleans up is alone.
pub(crate) async fn pump<F, T>(
    count: usize,
    depth: usize,
    start: impl AsyncFnMut(usize) -> Result<F>,
    finish: impl AsyncFnMut(usize, T) -> Result<()>,
) -> Result<()>
where
    F: Future<Output = Result<T>> + Unpin,
{
    let mut at_work = Ordered::new(depth);
    let result = run(count, &mut at_work, start, finish).await;
    while at_work.next().await.is_some() {}
    result
}

async fn run<F, T>(
    count: usize,
    at_work: &mut Ordered<F>,
    mut start: impl AsyncFnMut(usize) -> Result<F>,
    mut finish: impl AsyncFnMut(usize, T) -> Result<()>,
) -> Result<()>
where
    F: Future<Output = Result<T>> + Unpin,
{
    let (mut started, mut finished) = (0, 0);
    loop {
        while started < count && at_work.has_room() {
            at_work.push(start(started).await?);
            started += 1;
        }
        let Some(result) = at_work.next().await else { return Ok(()) };
        finish(finished, result?).await?;
        finished += 1;
    }
}

/// Reads an image once, unit by unit: `work` gets each unit's place and bytes on a thread of the
/// crew, `finish` its results in order.
pub(crate) async fn pump_image<T: Send + 'static>(
    job: &Job,
    image: &Image,
    depth: usize,
    work: impl FnOnce(Range<u64>, Buffer) -> Result<T> + Clone + Send + 'static,
    finish: impl AsyncFnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let units = image.layout.units();
    let start = async |unit: usize| {
        job.progress.check()?;
        let range: Range<u64> = units[unit].clone();
        let buffer = job.handle.buffer((range.end - range.start) as usize).await;
        let (image, hand, work) = (image.clone(), job.crew.hand(), work.clone());
        Ok(job.handle.spawn(async move {
            let buffer = image.read(range.clone(), buffer).await?;
            hand.run(move || work(range, buffer)).await
        }))
    };
    pump(units.len(), depth, start, finish).await
}
