//! Reads of 4 KiB at random places of one file, so many at once.

use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use inflight::{AlignedOffset, Engine, OpenOptions};

use crate::{Places, stop_after};

const BLOCK: usize = 4096;

/// A page for direct I/O, in the form in which each engine wants its buffers.
pub struct Page {
    memory: Box<Aligned>,
    filled: usize,
}

#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

impl Page {
    fn new() -> Page {
        Page { memory: Box::new(Aligned([0; BLOCK])), filled: 0 }
    }
}

impl compio::buf::IoBuf for Page {
    fn as_init(&self) -> &[u8] {
        &self.memory.0[..self.filled]
    }
}

impl compio::buf::SetLen for Page {
    unsafe fn set_len(&mut self, length: usize) {
        self.filled = length;
    }
}

impl compio::buf::IoBufMut for Page {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: bytes may be looked at as bytes that may not be there.
        unsafe { std::slice::from_raw_parts_mut(self.memory.0.as_mut_ptr().cast(), BLOCK) }
    }
}

// SAFETY: the memory stays where it is when the page moves.
unsafe impl monoio::buf::IoBufMut for Page {
    fn write_ptr(&mut self) -> *mut u8 {
        self.memory.0.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        BLOCK
    }

    unsafe fn set_init(&mut self, filled: usize) {
        self.filled = filled;
    }
}

pub fn run(engine: &str, depth: usize, seconds: f64, path: &str, mode: &str) -> u64 {
    let direct = match mode {
        "direct" => true,
        "hot" => false,
        other => panic!("{other:?} is neither direct nor hot"),
    };
    let blocks = std::fs::metadata(path).expect("the file").len() / BLOCK as u64;
    let job = Job { depth, path: path.into(), direct, blocks, stop: stop_after(seconds) };
    match engine {
        "inflight" => inflight(&job, 0),
        "registered" => inflight(&job, 4 << 20),
        "compio" => compio(&job),
        "monoio" => monoio(&job),
        "glommio" => glommio(job),
        "tokio" => tokio(&job),
        "threads" => threads(&job),
        other => panic!("no engine {other:?} for this"),
    }
}

#[derive(Clone)]
struct Job {
    depth: usize,
    path: String,
    direct: bool,
    blocks: u64,
    stop: Arc<AtomicBool>,
}

impl Job {
    fn open(&self) -> std::fs::File {
        let flags = if self.direct { libc::O_DIRECT } else { 0 };
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        file.expect("the file")
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }
}

fn inflight(job: &Job, registered: usize) -> u64 {
    let builder = Engine::builder().workers(1).registered_bytes(registered);
    let engine = builder.build().expect("an engine");
    engine.block_on(async {
        let path = std::path::Path::new(&job.path);
        let mut tasks = Vec::new();
        let direct = match job.direct {
            true => Some(engine.open_direct(path, OpenOptions::reading()).await.expect("opened")),
            false => None,
        };
        let plain = engine.open(path, OpenOptions::reading()).await.expect("opened");
        for number in 0..job.depth {
            let (job, direct, plain) = (job.clone(), direct.clone(), plain.clone());
            let mut buffer = engine.buffer(BLOCK).await;
            tasks.push(engine.spawn(async move {
                let (mut places, mut count) = (Places::new(number as u64), 0);
                while job.goes_on() {
                    let place = places.next(job.blocks);
                    buffer = match &direct {
                        Some(file) => {
                            let offset = AlignedOffset::ZERO.plus_blocks(place);
                            file.read(buffer, offset).await.expect("read")
                        }
                        None => {
                            buffer.clear();
                            let offset = place * BLOCK as u64;
                            plain.read(buffer, BLOCK, offset).await.expect("read")
                        }
                    };
                    assert_eq!(buffer.len(), BLOCK);
                    count += 1;
                }
                count
            }));
        }
        let mut count = 0;
        for task in tasks {
            count += task.await;
        }
        count
    })
}

fn compio(job: &Job) -> u64 {
    use compio::io::AsyncReadAt;
    let runtime = compio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut tasks = Vec::new();
        let flags = if job.direct { libc::O_DIRECT } else { 0 };
        let mut options = compio::fs::OpenOptions::new();
        let file = options.read(true).custom_flags(flags).open(&job.path).await.expect("opened");
        for number in 0..job.depth {
            let (job, file) = (job.clone(), file.clone());
            tasks.push(compio::runtime::spawn(async move {
                let (mut places, mut count) = (Places::new(number as u64), 0);
                let mut page = Page::new();
                while job.goes_on() {
                    let place = places.next(job.blocks);
                    let result = file.read_at(page, place * BLOCK as u64).await;
                    assert_eq!(result.0.expect("read"), BLOCK);
                    page = result.1;
                    count += 1;
                }
                count
            }));
        }
        let mut count = 0;
        for task in tasks {
            count += task.await.expect("it ended");
        }
        count
    })
}

fn monoio(job: &Job) -> u64 {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(1024);
    let mut runtime = builder.build().expect("a runtime");
    runtime.block_on(async {
        let mut tasks = Vec::new();
        let file = std::rc::Rc::new(monoio::fs::File::from_std(job.open()).expect("opened"));
        for number in 0..job.depth {
            let (job, file) = (job.clone(), file.clone());
            tasks.push(monoio::spawn(async move {
                let (mut places, mut count) = (Places::new(number as u64), 0);
                let mut page = Page::new();
                while job.goes_on() {
                    let place = places.next(job.blocks);
                    let result = file.read_at(page, place * BLOCK as u64).await;
                    assert_eq!(result.0.expect("read"), BLOCK);
                    page = result.1;
                    count += 1;
                }
                count
            }));
        }
        let mut count = 0;
        for task in tasks {
            count += task.await;
        }
        count
    })
}

fn glommio(job: Job) -> u64 {
    use glommio::LocalExecutorBuilder;
    use glommio::io::{BufferedFile, DmaFile};
    let executor = LocalExecutorBuilder::default().io_memory(16 << 20).spawn(|| async move {
        let mut tasks = Vec::new();
        let direct = match job.direct {
            true => Some(std::rc::Rc::new(DmaFile::open(&job.path).await.expect("opened"))),
            false => None,
        };
        let plain = std::rc::Rc::new(BufferedFile::open(&job.path).await.expect("opened"));
        for number in 0..job.depth {
            let (job, direct, plain) = (job.clone(), direct.clone(), plain.clone());
            tasks.push(glommio::spawn_local(async move {
                let (mut places, mut count) = (Places::new(number as u64), 0);
                while job.goes_on() {
                    let offset = places.next(job.blocks) * BLOCK as u64;
                    let read = match &direct {
                        Some(file) => {
                            file.read_at_aligned(offset, BLOCK).await.expect("read").len()
                        }
                        None => plain.read_at(offset, BLOCK).await.expect("read").len(),
                    };
                    assert_eq!(read, BLOCK);
                    count += 1;
                }
                count
            }));
        }
        let mut count = 0;
        for task in tasks {
            count += task.await;
        }
        count
    });
    executor.expect("an executor").join().expect("it ended")
}

/// What programs on tokio do: a blocking call on its pool of threads.
fn tokio(job: &Job) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let file = Arc::new(job.open());
        let mut tasks = Vec::new();
        for number in 0..job.depth {
            let (job, file) = (job.clone(), file.clone());
            tasks.push(tokio::spawn(async move {
                let (mut places, mut count) = (Places::new(number as u64), 0);
                let mut page = Page::new();
                while job.goes_on() {
                    let (file, place) = (file.clone(), places.next(job.blocks));
                    page = tokio::task::spawn_blocking(move || {
                        file.read_exact_at(&mut page.memory.0, place * BLOCK as u64).expect("read");
                        page
                    })
                    .await
                    .expect("it ended");
                    count += 1;
                }
                count
            }));
        }
        let mut count = 0;
        for task in tasks {
            count += task.await.expect("it ended");
        }
        count
    })
}

/// One thread for each read under way.
fn threads(job: &Job) -> u64 {
    let (file, count) = (job.open(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..job.depth {
            let (file, count) = (&file, &count);
            scope.spawn(move || {
                let (mut places, mut own) = (Places::new(number as u64), 0);
                let mut page = Page::new();
                while job.goes_on() {
                    let offset = places.next(job.blocks) * BLOCK as u64;
                    file.read_exact_at(&mut page.memory.0, offset).expect("read");
                    own += 1;
                }
                count.fetch_add(own, Relaxed);
            });
        }
    });
    count.into_inner()
}
