//! Where the system forbids io_uring, the engine falls back to threads without a word.
//!
//! A test binary of its own: the filter stays on the process.

use std::collections::BTreeMap;

use inflight::{DriverChoice, Engine};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// `io_uring_setup`, the same number on every architecture.
const IO_URING_SETUP: i64 = 425;

#[test]
fn denied_io_uring_means_threads() {
    // The filter is set in a thread of its own and inherited by those it starts.
    let denied = std::thread::spawn(|| {
        let filter = SeccompFilter::new(
            BTreeMap::from([(IO_URING_SETUP, vec![])]),
            SeccompAction::Allow,
            SeccompAction::Errno(1), // EPERM, as containers answer.
            TargetArch::try_from(std::env::consts::ARCH).expect("an architecture it knows"),
        )
        .expect("a valid filter");
        let program: BpfProgram = filter.try_into().expect("a valid program");
        seccompiler::apply_filter(&program).expect("allowed for oneself");

        let engine = Engine::new().expect("an engine all the same");
        let (driver, reason) = (engine.driver(), engine.driver_reason());
        assert_eq!(driver, DriverChoice::Threads);
        if std::env::var_os(inflight::DRIVER_VARIABLE).is_none() {
            assert!(reason.contains("io_uring cannot be used here"), "{reason}");
        }
        let metadata = engine.block_on(engine.metadata("/", true)).expect("it works");
        assert_eq!(metadata.kind, inflight::FileKind::Directory);

        let forced = Engine::builder().driver(DriverChoice::Uring).build();
        let error = forced.expect_err("asked for by name, it is an error");
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
    });
    denied.join().expect("the test passed");
}
