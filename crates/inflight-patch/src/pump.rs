//! The shape of every pass: start work on units in order, a bounded number at once, and take the
//! results in order.
//!
//! Starting a unit may wait (for memory); as units start in the order in which they are consumed,
//! the oldest always has what it needs.

use std::future::Future;
use std::ops::Range;

use inflight::stream::Ordered;
use inflight::{Arena, Buffer};

use crate::error::Result;
use crate::image::Image;
use crate::job::Job;
use crate::layout::UNIT_BYTES;

/// Runs `start` for each item, at most `depth` of the futures it makes at once, and
/// `finish` on their results in order. After an error nothing more is started, and everything that
/// was has ended when this returns: whoever cleans up is alone.
pub(crate) async fn pump<I, F, T>(
    items: impl IntoIterator<Item = I>,
    depth: usize,
    start: impl AsyncFnMut(I) -> Result<F>,
    finish: impl AsyncFnMut(T) -> Result<()>,
) -> Result<()>
where
    F: Future<Output = Result<T>> + Unpin,
{
    let mut at_work = Ordered::new(depth);
    let result = run(items.into_iter(), &mut at_work, start, finish).await;
    while at_work.next().await.is_some() {}
    result
}

async fn run<I, F, T>(
    mut items: impl Iterator<Item = I>,
    at_work: &mut Ordered<F>,
    mut start: impl AsyncFnMut(I) -> Result<F>,
    mut finish: impl AsyncFnMut(T) -> Result<()>,
) -> Result<()>
where
    F: Future<Output = Result<T>> + Unpin,
{
    loop {
        while at_work.has_room()
            && let Some(item) = items.next()
        {
            at_work.push(start(item).await?);
        }
        let Some(result) = at_work.next().await else { return Ok(()) };
        finish(result?).await?;
    }
}

/// How many units one request may read, if so many are under way.
pub(crate) fn units_of_request(job: &Job, depth: usize) -> usize {
    (job.handle.request_bytes_max() / UNIT_BYTES as usize).clamp(1, depth.div_ceil(2))
}

/// Reads an image once: `work` gets each unit's place and bytes on a thread of the crew, `finish`
/// its results in order. At most `depth` units are under way; as many of one file as that and the
/// engine's bound on requests allow are read by one. Buffers are parts of `arena` if there is one.
pub(crate) async fn pump_image<T: Send + 'static>(
    job: &Job,
    image: &Image,
    depth: usize,
    mut arena: Option<&mut Arena>,
    work: impl FnOnce(Range<u64>, Buffer) -> Result<T> + Clone + Send + 'static,
    mut finish: impl AsyncFnMut(T) -> Result<()>,
) -> Result<()> {
    let most = units_of_request(job, depth);
    let start = async |units: Vec<Range<u64>>| {
        job.check()?;
        let mut buffers = Vec::with_capacity(units.len());
        for unit in &units {
            let length = (unit.end - unit.start) as usize;
            buffers.push(match &mut arena {
                Some(arena) => arena.buffer(length),
                None => job.handle.buffer(length).await,
            });
        }
        let (image, hand, work) = (image.clone(), job.crew.hand(), work.clone());
        Ok(job.handle.spawn(async move {
            let buffers = image.read_units(&units, buffers).await?;
            let on_hand = |(unit, buffer)| {
                let work = work.clone();
                hand.run(move || work(unit, buffer))
            };
            let at_work: Vec<_> = units.into_iter().zip(buffers).map(on_hand).collect();
            // All of them end before an error is told.
            let mut done = Vec::with_capacity(at_work.len());
            for work in at_work {
                done.push(work.await);
            }
            done.into_iter().collect::<Result<Vec<T>>>()
        }))
    };
    let finish = async |done: Vec<T>| {
        for result in done {
            finish(result).await?;
        }
        Ok(())
    };
    pump(image.layout.requests(most), depth / most, start, finish).await
}
