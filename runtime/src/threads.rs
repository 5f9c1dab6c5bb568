//! How many threads to run: the physical cores this process may use.

use std::collections::BTreeSet;

/// Physical cores that this process may use; at least 1.
///
/// On Linux: the CPUs of the affinity mask, two hyper-threads of a core counted once, and no more than a cgroup's
/// quota allows. Elsewhere what the system offers.
pub fn physical_cores() -> usize {
    let offered = std::thread::available_parallelism().map_or(1, usize::from);
    cores_by_topology(|path| std::fs::read_to_string(path).ok())
        .map_or(offered, |cores| cores.clamp(1, offered))
}

/// Counts cores from Linux's own files, read through `read`.
fn cores_by_topology(read: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let status = read("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = BTreeSet::new();
    for cpu in cpu_list(allowed)? {
        let siblings = read(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
        // The lowest sibling names the core; a CPU without topology is a core of its own.
        let core = siblings.and_then(|list| cpu_list(&list)?.into_iter().min()).unwrap_or(cpu);
        cores.insert(core);
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// `0-3,8` as numbers.
fn cpu_list(list: &str) -> Option<Vec<u32>> {
    /// More CPUs than any kernel is built for.
    const LIMIT: u32 = 1 << 16;
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= LIMIT {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::{cores_by_topology, cpu_list, physical_cores};

    #[test]
    fn lists() {
        assert_eq!(cpu_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list(" 5"), Some(vec![5]));
        assert_eq!(cpu_list("0-4294967295"), None);
        assert_eq!(cpu_list(""), None);
    }

    #[test]
    fn hyper_threads_count_once() {
        let files = |path: &str| match path {
            "/proc/self/status" => Some("Name:\tquant\nCpus_allowed_list:\t0-2,4\n".to_owned()),
            "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list" => Some("0,4\n".to_owned()),
            "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list" => Some("1,5\n".to_owned()),
            "/sys/devices/system/cpu/cpu4/topology/thread_siblings_list" => Some("0,4\n".to_owned()),
            _ => None,
        };
        assert_eq!(cores_by_topology(files), Some(3));
        assert_eq!(cores_by_topology(|_| None), None);
        assert!(physical_cores() >= 1);
    }
}
