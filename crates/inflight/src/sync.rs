//! Atomics, cells and fences: the standard ones, or loom's where its models run
//! (`RUSTFLAGS="--cfg loom"`). Only what is modelled uses them: [`crate::flight`],
//! [`crate::links`] and [`crate::alarm`].

#[cfg(not(loom))]
mod standard {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};

    /// `std`'s cell with loom's way in.
    #[derive(Default)]
    pub(crate) struct Cell<T>(std::cell::UnsafeCell<T>);

    impl<T> Cell<T> {
        pub(crate) fn new(value: T) -> Cell<T> {
            Cell(std::cell::UnsafeCell::new(value))
        }

        /// Hands out the pointer. Following it needs the caller's proof that nobody else does.
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(not(loom))]
pub(crate) use standard::*;

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell as Cell,
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence},
};
