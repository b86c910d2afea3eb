//! A span for each operation, where the feature `tracing` is on; nothing where it is not.
//!
//! It begins where the operation was submitted, inside whatever span is entered there, and ends when
//! the driver is done with it. Level: trace; target: `inflight`.

#[cfg(feature = "tracing")]
mod enabled {
    use tracing::field::{Empty, display};

    use crate::operation::Operation;

    /// The span of one operation.
    pub(crate) struct Trace(tracing::Span);

    impl Trace {
        pub(crate) fn none() -> Trace {
            Trace(tracing::Span::none())
        }

        pub(crate) fn begin(operation: &Operation) -> Trace {
            let span = tracing::trace_span!(
                target: "inflight",
                "operation",
                kind = operation.name(),
                path = Empty,
                offset = operation.offset(),
                result = Empty,
                error = Empty,
            );
            if !span.is_disabled()
                && let Some(path) = operation.path()
            {
                span.record("path", display(path.display()));
            }
            Trace(span)
        }

        pub(crate) fn end(&mut self, outcome: Result<u64, i32>) {
            match outcome {
                Ok(result) => self.0.record("result", result),
                Err(code) => {
                    let error = std::io::Error::from_raw_os_error(code);
                    self.0.record("error", display(error))
                }
            };
            *self = Trace::none();
        }
    }
}

#[cfg(feature = "tracing")]
pub(crate) use enabled::Trace;

#[cfg(not(feature = "tracing"))]
mod disabled {
    use crate::operation::Operation;

    pub(crate) struct Trace;

    impl Trace {
        pub(crate) fn none() -> Trace {
            Trace
        }

        #[inline(always)]
        pub(crate) fn begin(_: &Operation) -> Trace {
            Trace
        }

        #[inline(always)]
        pub(crate) fn end(&mut self, _: Result<u64, i32>) {}
    }
}

#[cfg(not(feature = "tracing"))]
pub(crate) use disabled::Trace;
