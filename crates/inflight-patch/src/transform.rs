//! Transforms: what no matcher of bytes can see, predicted.

pub(crate) mod container;
pub(crate) mod references;
