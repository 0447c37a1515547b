//! What the operating system tells about this process: memory and processor time, for INFO and
//! MEMORY. Where it tells nothing (no /proc), the figures are 0.

/// What the process uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Bytes of memory now.
    pub(super) resident_bytes: u64,
    /// Most bytes of memory so far.
    pub(super) resident_peak_bytes: u64,
    /// Seconds of processor time in the process.
    pub(super) user_s: f64,
    /// Seconds of processor time in the kernel.
    pub(super) system_s: f64,
    /// Bytes of memory of the machine.
    pub(super) machine_bytes: u64,
}

/// Ticks per second of the times in /proc: fixed in Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;

impl Usage {
    /// Reads it now: a few small files of the kernel.
    pub(super) fn now() -> Usage {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is a name in parentheses that may hold blanks.
        let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
        let ticks = |place: usize| {
            let field = fields.split_whitespace().nth(place);
            field.and_then(|text| text.parse().ok()).unwrap_or(0.0) / TICKS_PER_SECOND
        };
        Usage {
            resident_bytes: kilobytes(&status, "VmRSS:"),
            resident_peak_bytes: kilobytes(&status, "VmHWM:"),
            user_s: ticks(11),
            system_s: ticks(12),
            machine_bytes: kilobytes(&machine, "MemTotal:"),
        }
    }
}

/// Bytes of memory that the process takes now.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, "VmRSS:")
}

/// The bytes on the line that begins so.
fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_this_process_uses() {
        let usage = Usage::now();
        if std::path::Path::new("/proc/self/stat").exists() {
            assert!(usage.resident_bytes > 0 && usage.machine_bytes > usage.resident_bytes);
            assert!(usage.resident_peak_bytes >= usage.resident_bytes / 2);
        }
    }
}
