//! Transforms: what no matcher of bytes can see, predicted.

pub(crate) mod elf;
pub(crate) mod references;
