//! The only place that reads clocks.
//!
//! Always true: the time that a `Clock` tells never goes back, not when the wall clock is set back,
//! not over a restart (it starts at the time of the last record), and not between the shards, whose
//! clocks share one high-water mark. It never stands still either: behind a wall clock that was
//! set back it runs at half speed, measured by the boot-time clock, until the wall has caught up.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a millisecond.
const MILLISECOND_NS: u64 = 1_000_000;

/// Where the raw readings come from: the machine, or a test that moves them by hand.
pub trait TimeSource: Send + Sync {
    /// Wall clock: nanoseconds since the Unix epoch. May jump in either direction.
    fn wall_ns(&self) -> u64;
    /// Nanoseconds since boot, time asleep included. Never goes back.
    fn boot_ns(&self) -> u64;
    /// Nanoseconds of a monotonic clock for durations. Never goes back; cheap.
    fn monotonic_ns(&self) -> u64;
    /// Nanoseconds of CPU that the calling thread has used.
    fn cpu_ns(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTime;

impl TimeSource for SystemTime {
    fn wall_ns(&self) -> u64 {
        reading_ns(ClockId::Realtime)
    }

    fn boot_ns(&self) -> u64 {
        #[cfg(target_os = "linux")]
        return reading_ns(ClockId::Boottime);
        #[cfg(not(target_os = "linux"))]
        return reading_ns(ClockId::Monotonic);
    }

    fn monotonic_ns(&self) -> u64 {
        reading_ns(ClockId::Monotonic)
    }

    fn cpu_ns(&self) -> u64 {
        reading_ns(ClockId::ThreadCPUTime)
    }
}

/// A clock's reading in nanoseconds; a wall clock set before 1970 reads as 0.
fn reading_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// The server's time: absolute milliseconds since the Unix epoch that never go back.
///
/// Clones share the high-water mark; each thread keeps a clone of its own (`Send`, not `Sync`).
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn TimeSource>,
    /// The latest time that any clone has told, in nanoseconds since the Unix epoch.
    high_ns: Arc<AtomicU64>,
    /// From here this clone counts forward while the wall clock is behind.
    anchor: Cell<Anchor>,
}

#[derive(Clone, Copy)]
struct Anchor {
    boot_ns: u64,
    time_ns: u64,
}

impl Clock {
    /// A clock over the machine's clocks that starts at the later of the wall clock and
    /// `last_record_ms`, the time of the last record of the log (0: none).
    pub fn start(last_record_ms: u64) -> Clock {
        Clock::with_source(Arc::new(SystemTime), last_record_ms)
    }

    /// As [`Clock::start`], over other sources.
    pub fn with_source(source: Arc<dyn TimeSource>, last_record_ms: u64) -> Clock {
        let last_record_ns = last_record_ms.saturating_mul(MILLISECOND_NS);
        let time_ns = source.wall_ns().max(last_record_ns);
        let anchor = Anchor {
            boot_ns: source.boot_ns(),
            time_ns,
        };
        Clock {
            source,
            high_ns: Arc::new(AtomicU64::new(time_ns)),
            anchor: Cell::new(anchor),
        }
    }

    /// Milliseconds since the Unix epoch: for records, deadlines and turns. Read once a turn.
    pub fn now_ms(&self) -> u64 {
        self.now_epoch_ns() / MILLISECOND_NS
    }

    /// Nanoseconds since the Unix epoch on the same clock as [`Clock::now_ms`] (for TIME).
    pub fn now_epoch_ns(&self) -> u64 {
        let wall_ns = self.source.wall_ns();
        let boot_ns = self.source.boot_ns();
        let anchor = self.anchor.get();
        let half_speed_ns = anchor.time_ns + boot_ns.saturating_sub(anchor.boot_ns) / 2;
        let own_ns = wall_ns.max(half_speed_ns);
        let before_ns = self.high_ns.fetch_max(own_ns, Ordering::Relaxed);
        let now_ns = own_ns.max(before_ns);
        if now_ns > half_speed_ns {
            // The wall, or another shard, is ahead: count from there.
            self.anchor.set(Anchor {
                boot_ns,
                time_ns: now_ns,
            });
        }
        now_ns
    }

    /// Monotonic nanoseconds: for durations alone, never stored.
    pub fn now_ns(&self) -> u64 {
        self.source.monotonic_ns()
    }

    /// Nanoseconds of CPU that this thread has used: for the cost of background work. A system
    /// call, so not for every command.
    pub fn cpu_ns(&self) -> u64 {
        self.source.cpu_ns()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let high_ms = self.high_ns.load(Ordering::Relaxed) / MILLISECOND_NS;
        formatter
            .debug_struct("Clock")
            .field("high_ms", &high_ms)
            .finish_non_exhaustive()
    }
}

/// Clocks that a test or the simulator moves by hand. Clones move together.
#[derive(Debug, Clone)]
pub struct ManualClock {
    readings: Arc<ManualReadings>,
}

#[derive(Debug)]
struct ManualReadings {
    wall_ns: AtomicU64,
    boot_ns: AtomicU64,
    monotonic_ns: AtomicU64,
}

impl ManualClock {
    /// All clocks run from here: the wall shows `wall_ms`, the machine has just booted.
    pub fn new(wall_ms: u64) -> ManualClock {
        let readings = ManualReadings {
            wall_ns: AtomicU64::new(wall_ms * MILLISECOND_NS),
            boot_ns: AtomicU64::new(0),
            monotonic_ns: AtomicU64::new(0),
        };
        ManualClock {
            readings: Arc::new(readings),
        }
    }

    /// A server clock over these readings; see [`Clock::start`].
    pub fn clock(&self, last_record_ms: u64) -> Clock {
        Clock::with_source(self.readings.clone(), last_record_ms)
    }

    /// Time passes, on all clocks.
    pub fn advance_ms(&self, milliseconds: u64) {
        self.advance_ns(milliseconds * MILLISECOND_NS);
    }

    /// Time passes, on all clocks.
    pub fn advance_ns(&self, nanoseconds: u64) {
        self.readings
            .wall_ns
            .fetch_add(nanoseconds, Ordering::Relaxed);
        self.readings
            .boot_ns
            .fetch_add(nanoseconds, Ordering::Relaxed);
        self.readings
            .monotonic_ns
            .fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// The machine sleeps: wall and boot time go on, the monotonic clock does not.
    pub fn suspend_ms(&self, milliseconds: u64) {
        self.readings
            .wall_ns
            .fetch_add(milliseconds * MILLISECOND_NS, Ordering::Relaxed);
        self.readings
            .boot_ns
            .fetch_add(milliseconds * MILLISECOND_NS, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock: forward if positive, back if negative.
    pub fn step_wall_ms(&self, milliseconds: i64) {
        let step_ns = milliseconds * MILLISECOND_NS as i64;
        let before_ns = self.readings.wall_ns.load(Ordering::Relaxed);
        self.readings
            .wall_ns
            .store(before_ns.saturating_add_signed(step_ns), Ordering::Relaxed);
    }
}

impl TimeSource for ManualReadings {
    fn wall_ns(&self) -> u64 {
        self.wall_ns.load(Ordering::Relaxed)
    }

    fn boot_ns(&self) -> u64 {
        self.boot_ns.load(Ordering::Relaxed)
    }

    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::Relaxed)
    }

    fn cpu_ns(&self) -> u64 {
        self.monotonic_ns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_800_000_000_000;

    #[test]
    fn it_follows_the_wall_while_nothing_happens() {
        let manual = ManualClock::new(START_MS);
        let clock = manual.clock(0);
        assert_eq!(clock.now_ms(), START_MS);
        for passed in 1..=100 {
            manual.advance_ms(1);
            assert_eq!(clock.now_ms(), START_MS + passed);
        }
    }

    #[test]
    fn a_step_forward_is_followed_at_once() {
        let manual = ManualClock::new(START_MS);
        let clock = manual.clock(0);
        manual.step_wall_ms(60_000);
        assert_eq!(clock.now_ms(), START_MS + 60_000);
    }

    #[test]
    fn a_step_back_is_followed_at_half_speed_until_the_wall_has_caught_up() {
        let manual = ManualClock::new(START_MS);
        let clock = manual.clock(0);
        manual.step_wall_ms(-10_000);
        assert_eq!(clock.now_ms(), START_MS);
        manual.advance_ms(4_000);
        assert_eq!(clock.now_ms(), START_MS + 2_000);
        manual.advance_ms(16_000);
        assert_eq!(clock.now_ms(), START_MS + 10_000, "the wall is there now");
        manual.advance_ms(1_000);
        assert_eq!(clock.now_ms(), START_MS + 11_000);
    }

    #[test]
    fn frequent_readings_behind_the_wall_lose_no_time() {
        let manual = ManualClock::new(START_MS);
        let clock = manual.clock(0);
        manual.step_wall_ms(-10_000);
        for _ in 0..2_000_000 {
            manual.advance_ns(1);
            clock.now_epoch_ns();
        }
        assert_eq!(clock.now_ms(), START_MS + 1);
    }

    #[test]
    fn it_starts_at_the_last_record_when_the_wall_is_behind_it() {
        let manual = ManualClock::new(START_MS);
        let clock = manual.clock(START_MS + 500);
        assert_eq!(clock.now_ms(), START_MS + 500);
        manual.advance_ms(100);
        assert_eq!(clock.now_ms(), START_MS + 550);
    }

    #[test]
    fn a_suspended_machine_has_aged() {
        let manual = ManualClock::new(START_MS);
        let clock = manual.clock(START_MS + 1_000_000);
        manual.suspend_ms(10_000);
        assert_eq!(clock.now_ms(), START_MS + 1_005_000);
        assert_eq!(clock.now_ns(), 0);
    }

    #[test]
    fn no_shard_tells_a_time_before_another_shards() {
        let manual = ManualClock::new(START_MS);
        let one = manual.clock(0);
        let other = one.clone();
        manual.advance_ms(1_000);
        assert_eq!(one.now_ms(), START_MS + 1_000);
        manual.step_wall_ms(-900);
        assert_eq!(other.now_ms(), START_MS + 1_000);
        manual.advance_ms(10);
        assert_eq!(
            other.now_ms(),
            START_MS + 1_005,
            "it counts from what it heard of the other"
        );
        assert_eq!(one.now_ms(), START_MS + 1_005);
    }

    #[test]
    fn the_machines_clock_never_goes_back() {
        let clock = Clock::start(0);
        let mut last_ns = clock.now_epoch_ns();
        for _ in 0..10_000 {
            let now_ns = clock.now_epoch_ns();
            assert!(now_ns >= last_ns);
            last_ns = now_ns;
        }
        assert!(SystemTime.boot_ns() > 0 && clock.now_ns() > 0);
    }
}
