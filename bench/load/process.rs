//! What a process uses, as the kernel tells it in `/proc`.

use std::fs;
use std::io;

/// The kernel's `USER_HZ`, in which it tells CPU times.
const TICKS_PER_SECOND: u64 = 100;
/// Fields of `/proc/PID/stat` behind the name of the program.
const STAT_USER: usize = 11;
const STAT_SYSTEM: usize = 12;

/// CPU times of the two ends of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Of the server, all its threads; nothing if nobody said which process it is.
    pub server_ms: Option<u64>,
    /// Of this process.
    pub client_ms: u64,
}

impl Cpu {
    /// What was used up to now.
    ///
    /// # Errors
    /// There is no such process.
    pub fn now(server: Option<u32>) -> io::Result<Cpu> {
        Ok(Cpu {
            server_ms: server.map(cpu_ms).transpose()?,
            client_ms: cpu_ms(std::process::id())?,
        })
    }

    /// What was used since `before`.
    pub fn since(self, before: Cpu) -> Cpu {
        let both = self.server_ms.zip(before.server_ms);
        Cpu {
            server_ms: both.map(|(now, before)| now.saturating_sub(before)),
            client_ms: self.client_ms.saturating_sub(before.client_ms),
        }
    }
}

fn cpu_ms(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat_cpu_ms(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: {text:?}")))
}

fn stat_cpu_ms(text: &str) -> Option<u64> {
    // The name may hold spaces and brackets.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let user: u64 = fields.nth(STAT_USER)?.parse().ok()?;
    let system: u64 = fields.nth(STAT_SYSTEM - STAT_USER - 1)?.parse().ok()?;
    Some((user + system) * 1000 / TICKS_PER_SECOND)
}

/// Memory of a process that is really there.
///
/// # Errors
/// There is no such process.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status_resident_bytes(&text)
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no VmRSS")))
}

fn status_resident_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_and_memory_are_read_from_what_the_kernel_writes() {
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194560 9 8 7 6 123 45 3 4 20 0 2 0 99 1 2 3";
        assert_eq!(stat_cpu_ms(stat), Some(1_680));
        let status = "Name:\tx\nVmHWM:\t  9000 kB\nVmRSS:\t    4096 kB\nThreads:\t2\n";
        assert_eq!(status_resident_bytes(status), Some(4 << 20));
        assert!(stat_cpu_ms("77 (a) S 1").is_none() && status_resident_bytes("").is_none());
    }

    #[test]
    fn this_process_is_there() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 100_000);
        let before = Cpu::now(Some(pid)).unwrap();
        let used = Cpu::now(Some(pid)).unwrap().since(before);
        assert!(used.server_ms.unwrap() < 60_000 && used.client_ms < 60_000);
    }
}
