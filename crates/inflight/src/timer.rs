//! Waiting for a time.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::error::Result;
use crate::handle::Handle;
use crate::operation::Operation;
use crate::pending::Pending;

/// The time was over before the future was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed(Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it took longer than {:?}", self.0)
    }
}

impl std::error::Error for Elapsed {}

impl Handle {
    /// Ends after some time.
    pub fn sleep(&self, duration: Duration) -> Pending<()> {
        self.run(Operation::Sleep { duration })
    }

    /// A future's output, if it comes in time; else the future is dropped, which is safe for all
    /// that this engine does.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let (mut future, mut sleep) = (pin!(future), pin!(self.sleep(duration)));
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            sleep.as_mut().poll(context).map(|_| Err(Elapsed(duration)))
        })
        .await
    }
}
