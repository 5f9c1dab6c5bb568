//! How much memory this process can still take.

/// What is assumed where the system does not say.
const ASSUMED: u64 = 4 << 30;

/// Bytes of memory that are free for this process: what the kernel calls available, and no more than is left of a
/// cgroup's limit. 4 GiB where nothing tells.
pub fn available_bytes() -> u64 {
    available(|path| std::fs::read_to_string(path).ok()).unwrap_or(ASSUMED)
}

fn available(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let meminfo = read("/proc/meminfo")?;
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024);
    let left = |limit: &str, used: &str| Some(number(limit)?.saturating_sub(number(used)?));
    let groups = [
        left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        left("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ];
    Some(groups.into_iter().flatten().fold(machine, u64::min))
}

#[cfg(test)]
mod tests {
    use super::{available, available_bytes};

    #[test]
    fn the_tightest_limit_counts() {
        let machine = |path: &str| {
            (path == "/proc/meminfo").then(|| "MemTotal: 99 kB\nMemAvailable:    2048 kB\n".to_owned())
        };
        assert_eq!(available(machine), Some(2 << 20));
        let group = |path: &str| match path {
            "/sys/fs/cgroup/memory.max" => Some("1000000\n".to_owned()),
            "/sys/fs/cgroup/memory.current" => Some("400000\n".to_owned()),
            _ => machine(path),
        };
        assert_eq!(available(group), Some(600_000));
        let unlimited =
            |path: &str| if path.ends_with("memory.max") { Some("max\n".into()) } else { group(path) };
        assert_eq!(available(unlimited), Some(2 << 20));
        assert_eq!(available(|_| None), None);
        assert!(available_bytes() > 0);
    }
}
