//! The progress bar: on a terminal, none elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use inflight::Progress;

/// How often the bar looks at the job.
const PERIOD: Duration = Duration::from_millis(100);

/// What a job's progress counts.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Bytes,
    /// Milliseconds of what it may take.
    Time,
}

/// Shows a job's progress until it is dropped.
pub struct Bar {
    /// Dropping it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    /// A bar on standard error, if that is a terminal and `wanted`.
    pub fn start(progress: &Arc<Progress>, unit: Unit, wanted: bool) -> Bar {
        if !wanted || !std::io::stderr().is_terminal() {
            return Bar { stop: None, thread: None };
        }
        let (stop, stopped) = channel();
        let progress = progress.clone();
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || show(&progress, unit, &stopped))
            .ok();
        Bar { stop: Some(stop), thread }
    }
}

fn show(progress: &Progress, unit: Unit, stopped: &Receiver<()>) {
    let template = match unit {
        Unit::Bytes => {
            "{msg:12} {bar:30.cyan/blue} {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} {eta} left"
        }
        Unit::Time => "{msg:12} {bar:30.cyan/blue} {percent:>3}% {eta} left",
    };
    let style = ProgressStyle::with_template(template).expect("a valid template");
    let bar = ProgressBar::no_length().with_style(style);
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
        let (done, total) = progress.bytes();
        let phase = if progress.is_cancelled() { "stopping" } else { progress.phase() };
        bar.set_message(phase);
        bar.set_length(total.max(1));
        bar.set_position(done);
    }
    bar.finish_and_clear();
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // The bar is gone then; there is nothing to tell about how.
            let _ = thread.join();
        }
    }
}
