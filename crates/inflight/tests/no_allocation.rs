//! Counts heap allocations: none per operation in the steady state, on either driver.
//!
//! One test in a file of its own, as the counter sees all threads of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inflight::{BufferList, DriverChoice, Engine, OpenOptions, Operation};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes everything on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn no_operation_allocates_in_the_steady_state() {
    for driver in [DriverChoice::Uring, DriverChoice::Threads] {
        let built = Engine::builder().driver(driver).workers(1).threads_max(1).build();
        let engine = match built {
            Ok(engine) => engine,
            // Where the system forbids io_uring there is only one driver to count on.
            Err(_) if driver == DriverChoice::Uring => continue,
            Err(error) => panic!("{error}"),
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        engine.block_on(async {
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.path().join("file"), options).await.expect("made");
            let mut buffer = engine.buffer(4096).await;
            buffer.extend_zeros(4096);
            let mut list = BufferList::new();
            list.push(engine.buffer(4096).await);
            list.push(engine.buffer(4096).await);
            let mut counted = 0;
            for round in 0..600u64 {
                if round == 100 {
                    // Threads, queues and wakers have been made by now.
                    counted = ALLOCATIONS.load(Relaxed);
                }
                (buffer, _) = file.write(buffer, 0, 4096, round * 64).await.expect("written");
                buffer.clear();
                buffer = file.read(buffer, 4096, round * 64).await.expect("read");
                list.buffers_mut().iter_mut().for_each(inflight::Buffer::clear);
                (list, _) = file.read_vectored(list, 0).await.expect("read");
                (list, _) = file.write_vectored(list, 0).await.expect("written");
                engine.submit(Operation::Nop).await.expect("nothing to fail");
                file.truncate(1 << 20).await.expect("truncated");
                file.metadata().await.expect("looked at");
            }
            let allocations = ALLOCATIONS.load(Relaxed) - counted;
            assert_eq!(allocations, 0, "in 500 rounds of 7 operations on {driver:?}");
        });
    }
}
