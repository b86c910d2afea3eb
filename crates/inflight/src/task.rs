//! A future that runs on a worker.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::class::Class;
use crate::route;
use crate::shared::Shared;

/// A future that runs on a worker, which it never leaves. Dropping this cancels it at its next
/// wait; a panic in it is passed on to whoever awaits it. Awaiting a task whose engine has ended
/// panics.
#[must_use = "dropping a task cancels it; await or detach it"]
pub struct Task<T>(async_task::FallibleTask<T>);

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn<F>(shared: Arc<Shared>, class: Class, future: F) -> Task<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let inbox = route::for_task(&shared.inboxes);
        // The task keeps the engine's memory, as a waker may outlive every handle.
        let schedule = move |runnable| {
            let _alive = &shared;
            inbox.schedule(runnable, class);
        };
        let (runnable, task) =
            async_task::Builder::new().propagate_panic(true).spawn(move |()| future, schedule);
        runnable.schedule();
        Task(task.fallible())
    }

    /// Lets it run to its end unobserved.
    pub fn detach(self) {
        self.0.detach();
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let poll = Pin::new(&mut self.0).poll(context);
        poll.map(|output| output.expect("the engine ended before its task did"))
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}
