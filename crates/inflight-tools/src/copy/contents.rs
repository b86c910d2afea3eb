//! Whether two files have the same bytes.

use inflight::Buffer;
use inflight::stream::{AnyFile, Reader};

use super::state::State;
use crate::error::Result;

/// Reads under way of each file.
const DEPTH: usize = 4;

/// Whether two files have the same bytes. `advance` hears of those compared.
///
/// It holds memory of one file while it waits for some of the other: so only as many at a time do that as
/// there is memory for.
pub(super) async fn same_contents(
    state: &State,
    a: AnyFile,
    b: AnyFile,
    mut advance: impl FnMut(u64),
) -> Result<bool> {
    let _turn = state.comparisons.reserve(1).await;
    let request = state.comparison_bytes();
    let mut a = Reader::whole(a).await?.requests(request, DEPTH);
    let mut b = Reader::whole(b).await?.requests(request, DEPTH);
    let (mut of_a, mut of_b): (Option<Rest>, Option<Rest>) = (None, None);
    loop {
        if of_a.is_none() {
            of_a = a.next().await?.map(Rest::of);
        }
        if of_b.is_none() {
            of_b = b.next().await?.map(Rest::of);
        }
        let (Some(left), Some(right)) = (&mut of_a, &mut of_b) else {
            return Ok(of_a.is_none() && of_b.is_none());
        };
        let length = left.bytes().len().min(right.bytes().len());
        if left.bytes()[..length] != right.bytes()[..length] {
            return Ok(false);
        }
        advance(length as u64);
        of_a = of_a.and_then(|rest| rest.behind(length));
        of_b = of_b.and_then(|rest| rest.behind(length));
    }
}

/// What is left of a buffer.
struct Rest {
    buffer: Buffer,
    from: usize,
}

impl Rest {
    fn of((_, buffer): (u64, Buffer)) -> Rest {
        Rest { buffer, from: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..]
    }

    fn behind(self, length: usize) -> Option<Rest> {
        let from = self.from + length;
        (from < self.buffer.len()).then_some(Rest { from, ..self })
    }
}
