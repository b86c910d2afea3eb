//! Which memory is near to which processors, as sysfs tells (`Documentation/ABI/stable/sysfs-devices-node`
//! in the kernel's sources).

use std::path::Path;
use std::sync::Arc;

/// Where the kernel tells it.
const SYSFS: &str = "/sys/devices/system/node";
/// More are not told apart.
const NODES_MAX: usize = 64;

/// The nodes of a machine: groups of processors with memory of their own.
#[derive(Debug, Clone)]
pub(crate) struct Nodes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Numbers and processors of the nodes; empty for a machine of one.
    nodes: Vec<(u32, Vec<usize>)>,
    /// The place in `nodes` of each processor's.
    of_processor: Vec<usize>,
}

impl Nodes {
    /// All memory is equally near, or nobody wants to know.
    pub(crate) fn one() -> Nodes {
        Nodes(Arc::default())
    }

    pub(crate) fn of_system() -> Nodes {
        Nodes::read(Path::new(SYSFS))
    }

    #[allow(clippy::disallowed_methods, reason = "before there is an engine")]
    fn read(root: &Path) -> Nodes {
        let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let mut nodes = Vec::new();
        for number in list(&text(&root.join("online"))).into_iter().take(NODES_MAX) {
            let processors = list(&text(&root.join(format!("node{number}/cpulist"))));
            // Some have memory only.
            if !processors.is_empty() {
                nodes.push((number as u32, processors));
            }
        }
        if nodes.len() < 2 {
            return Nodes::one();
        }
        let last = nodes.iter().flat_map(|(_, processors)| processors).max().copied().unwrap_or(0);
        let mut of_processor = vec![0; last + 1];
        for (place, (_, processors)) in nodes.iter().enumerate() {
            processors.iter().for_each(|processor| of_processor[*processor] = place);
        }
        Nodes(Arc::new(Inner { nodes, of_processor }))
    }

    /// How many there are, at least one.
    pub(crate) fn count(&self) -> usize {
        self.0.nodes.len().max(1)
    }

    /// The one whose processor runs the calling thread, as its place among them.
    pub(crate) fn here(&self) -> usize {
        if self.0.nodes.is_empty() {
            return 0;
        }
        #[cfg(target_os = "linux")]
        let processor = rustix::thread::sched_getcpu();
        #[cfg(not(target_os = "linux"))]
        let processor = 0;
        self.0.of_processor.get(processor).copied().unwrap_or(0)
    }

    /// The system's number of the node at a place; `None` where there is but one.
    pub(crate) fn number(&self, place: usize) -> Option<u32> {
        self.0.nodes.get(place).map(|(number, _)| *number)
    }

    /// Keeps the calling thread on the processors of one node, chosen for a worker by its number.
    pub(crate) fn settle(&self, worker: usize) {
        #[cfg(target_os = "linux")]
        if let Some((_, processors)) = self.0.nodes.get(worker % self.count()) {
            let mut set = rustix::thread::CpuSet::new();
            let known = |processor: &&usize| **processor < rustix::thread::CpuSet::MAX_CPU;
            processors.iter().filter(known).for_each(|processor| set.set(*processor));
            // Where that is not allowed it runs wherever it may.
            let _ = rustix::thread::sched_setaffinity(None, &set);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = worker;
    }
}

/// The numbers of a list such as `0-3,8`. What is no number counts for none.
fn list(text: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>())
            && last < 1 << 16
        {
            numbers.extend(first..=last);
        }
    }
    numbers
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "makes what sysfs would show")]
pub(crate) mod tests {
    use super::*;

    /// The nodes that sysfs would show so.
    pub(crate) fn nodes(online: &str, processors: &[&str]) -> Nodes {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(root.path().join("online"), online).expect("written");
        for (number, processors) in processors.iter().enumerate() {
            let node = root.path().join(format!("node{number}"));
            std::fs::create_dir(&node).expect("made");
            std::fs::write(node.join("cpulist"), processors).expect("written");
        }
        Nodes::read(root.path())
    }

    /// Two processors that this thread may run on, if there are so many.
    #[cfg(target_os = "linux")]
    pub(crate) fn two_processors() -> Option<[usize; 2]> {
        use rustix::thread::{CpuSet, sched_getaffinity};
        let allowed = sched_getaffinity(None).ok()?;
        let mut processors = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
        Some([processors.next()?, processors.next()?])
    }

    #[test]
    fn lists_are_read_and_nonsense_is_not() {
        assert_eq!(list("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(list("\n"), [0usize; 0]);
        assert_eq!(list("x,3-,-4,9999999999-9999999999,6"), [6]);
    }

    #[test]
    fn nothing_changes_where_there_is_one_node() {
        for one in
            [nodes("0\n", &["0-1\n"]), nodes("0-1", &["0-3", ""]), nodes("", &[]), Nodes::one()]
        {
            assert_eq!((one.count(), one.here(), one.number(0)), (1, 0, None));
        }
        assert_eq!(Nodes::read(Path::new("/nowhere")).count(), 1);
    }

    #[test]
    fn processors_belong_to_their_nodes() {
        let two = nodes("0,2", &["0,2", "", "1,3"]);
        assert_eq!((two.count(), two.number(0), two.number(1)), (2, Some(0), Some(2)));
        assert_eq!(two.0.of_processor, [0, 1, 0, 1]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_worker_stays_on_its_node() {
        // Where there is no second processor there is nothing to stay on.
        let Some(processors) = two_processors() else { return };
        let [one, other] = processors.map(|processor| processor.to_string());
        let two = nodes("0-1", &[&one, &other]);
        for worker in 0..4 {
            let two = two.clone();
            let settled = std::thread::spawn(move || {
                two.settle(worker);
                (0..100).all(|_| two.here() == worker % 2)
            });
            assert!(settled.join().expect("no panic"));
        }
    }
}
