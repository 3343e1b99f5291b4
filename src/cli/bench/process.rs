//! Resource usage of processes, from `/proc`. Without `/proc` nothing is known.

use std::fs;

/// Resources that a process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time, in microseconds: user and system, all threads.
    pub cpu_us: f64,
    /// Current resident memory in bytes.
    pub resident: u64,
    /// Bytes written to the disk; 0 if that is not accessible.
    pub written: u64,
}

/// Open files of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Number of descriptors.
    pub descriptors: u64,
    /// Total size in bytes of open database files: regular files that end in `.redb`, `.db` or
    /// `.mdb`.
    pub database: u64,
}

impl Open {
    /// Returns the open files of the process with this id. `None` if it is gone or not accessible.
    pub fn of(pid: u32) -> Option<Open> {
        let mut open = Open::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
            open.descriptors += 1;
            let is_database = fs::read_link(entry.path()).is_ok_and(|file| {
                file.extension()
                    .is_some_and(|end| end == "redb" || end == "db" || end == "mdb")
            });
            // The link leads to the open file itself, even if it was renamed or deleted. A file may
            // be open more than once.
            if is_database && let Ok(file) = fs::metadata(entry.path()) {
                open.database = open.database.max(file.len());
            }
        }
        Some(open)
    }
}

impl Usage {
    /// Returns the usage of the process with this id. `None` if it is gone or not accessible.
    pub fn of(pid: u32) -> Option<Usage> {
        read(&pid.to_string())
    }

    /// Returns the usage of this process.
    pub fn own() -> Option<Usage> {
        read("self")
    }
}

/// Returns whether a process has a socket that listens at a TCP port. `None` if that is not
/// accessible. A process that is gone does not listen.
pub fn listens(pid: u32, port: u16) -> Option<bool> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        let is_gone = fs::exists("/proc/self").ok()? && !fs::exists(format!("/proc/{pid}")).ok()?;
        return is_gone.then_some(false);
    };
    let mut sockets = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let inodes = listening(&table, port);
        sockets.extend(inodes.iter().map(|inode| format!("socket:[{inode}]")));
    }
    let links = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut names = links.filter_map(|link| link.into_os_string().into_string().ok());
    Some(names.any(|name| sockets.contains(&name)))
}

/// Returns the inodes of the sockets that listen at a port, from a table as in `/proc/net/tcp`.
fn listening(table: &str, port: u16) -> Vec<&str> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let lines = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let inode = fields.nth(5)?;
        (state == LISTEN && local.ends_with(&port)).then_some(inode)
    });
    lines.collect()
}

/// Raises the limit of open files to the maximum that the operating system allows.
pub fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // Without it fewer connections are possible, and opening one fails then.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Gives this thread the lowest priority, where the operating system has priorities for threads and
/// not only for processes.
pub fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        // Without it the thread only uses more processor time than it should.
        let _ = rustix::process::nice(19);
    }
}

fn read(pid: &str) -> Option<Usage> {
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    Some(Usage {
        cpu_us: cpu_us(&file("stat")?, ticks_per_second())?,
        resident: number_after(&file("status")?, "VmRSS:").unwrap_or(0) * 1024,
        written: file("io")
            .and_then(|io| number_after(&io, "write_bytes:"))
            .unwrap_or(0),
    })
}

/// Returns user and system time of `/proc/PID/stat`, fields 14 and 15. Field 2 is a name that may
/// contain blanks and brackets.
fn cpu_us(stat: &str, ticks_per_second: u64) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(ticks as f64 * 1e6 / ticks_per_second as f64)
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(unix)]
fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(not(unix))]
fn ticks_per_second() -> u64 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "12 (a ) (b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0";
        assert_eq!(cpu_us(stat, 100), Some(2_000_000.0));
        assert_eq!(cpu_us("12 (a) S 1", 100), None);
        assert_eq!(cpu_us("", 100), None);
    }

    #[test]
    fn numbers_are_found_by_name() {
        let text =
            "VmHWM:\t  12 kB\nVmRSS:\t  1044 kB\nwrite_bytes: 77\ncancelled_write_bytes: 5\n";
        assert_eq!(number_after(text, "VmRSS:"), Some(1044));
        assert_eq!(number_after(text, "write_bytes:"), Some(77));
        assert_eq!(number_after(text, "absent:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_used_memory() {
        let usage = Usage::own().expect("there is /proc");
        assert!(usage.resident > 100_000);
        assert_eq!(Usage::of(u32::MAX), None);
        let open = Open::of(std::process::id()).expect("there is /proc");
        assert!(open.descriptors >= 3);
        assert_eq!(Open::of(u32::MAX), None);
    }

    #[test]
    fn a_process_listens_where_it_does() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
            1: 0100007F:075B 0100007F:1234 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 1883), ["4711"]);
        assert_eq!(listening(table, 1884), [""; 0]);
        if !std::path::Path::new("/proc/self/fd").exists() {
            return;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        assert_eq!(listens(std::process::id(), port), Some(true));
        drop(listener);
        assert_eq!(listens(std::process::id(), port), Some(false));
        assert_eq!(listens(u32::MAX, port), Some(false));
    }
}
