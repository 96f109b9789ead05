//! What the operating system knows about processes: CPU time, memory, children. Read from
//! `/proc`; where there is none, nothing is known and nothing is reported.

use std::fs;
use std::time::Duration;

/// `USER_HZ`: 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// The child of `parent` whose command line names `name`.
pub(crate) fn child_named(parent: u32, name: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    let mut ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find(|&id| {
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let program = command.split(|&byte| byte == 0).next().unwrap_or_default();
        stat(id, 1) == Some(u64::from(parent)) && String::from_utf8_lossy(program).ends_with(name)
    })
}

/// A number of `/proc/ID/stat`, counted from 0 after the program's name.
fn stat(id: u32, index: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, numbers) = text.rsplit_once(") ")?;
    numbers.split(' ').nth(index)?.parse().ok()
}

/// CPU time that the threads of a process have used, in user mode and in the kernel.
pub(crate) fn cpu_time(id: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{id}/task")).ok()?;
    let of = |path: std::path::PathBuf| -> Option<u64> {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    Some(Duration::from_nanos(threads.flatten().filter_map(|thread| of(thread.path())).sum()))
}

/// CPU time that the whole machine has used, on all cores.
pub(crate) fn machine_cpu_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let numbers = text.lines().next()?.split_ascii_whitespace().skip(1);
    // user nice system idle iowait irq softirq
    let busy = numbers.take(7).enumerate().filter(|(at, _)| *at != 3 && *at != 4);
    let ticks: u64 = busy.filter_map(|(_, text)| text.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Largest resident size that a process ever had, in bytes.
pub(crate) fn peak_memory(id: u32) -> Option<u64> {
    status_bytes(id, "VmHWM:")
}

/// Resident size of a process, in bytes.
pub(crate) fn resident_memory(id: u32) -> Option<u64> {
    status_bytes(id, "VmRSS:")
}

/// Files, sockets among them, that a process has open.
pub(crate) fn open_files(id: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{id}/fd")).ok()?.count())
}

fn status_bytes(id: u32, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
