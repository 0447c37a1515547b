//! The event loop: connections, what is in flight on them, and when the next unit is due.
//!
//! Always true: replies come in the order of requests, so what is in flight on a connection is a
//! queue; every unit that was begun is recorded or counted as lost.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::process::Cpu;
use crate::record::Recorder;
use crate::reply;
use crate::report::GroupResult;
use crate::workload::{Numbers, SCRIPTS, Step, Workload};

/// A group of clients that do the same.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// What they send.
    pub workload: Workload,
    /// Connections.
    pub clients: usize,
    /// Units in flight per connection, closed loop.
    pub pipeline: usize,
    /// Units per second of all together: open loop.
    pub rate: Option<f64>,
    /// Sends as soon as a reply came, not when all are answered.
    pub window: bool,
    /// Random numbers are below this.
    pub keys: u64,
    /// Size of values.
    pub value_bytes: usize,
    /// Random numbers count up.
    pub sequential: bool,
    /// Ends after so many units.
    pub count: Option<u64>,
}

/// When the run ends.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Not recorded.
    pub warm_up: Duration,
    /// Recorded; nothing: until the first group has sent its count.
    pub measured: Option<Duration>,
    /// Of the time line.
    pub interval: Duration,
    /// The process whose CPU time is told.
    pub server: Option<u32>,
}

/// What came out of a run.
pub struct Outcome {
    /// A result for each group, in their order.
    pub groups: Vec<GroupResult>,
    /// CPU time of the measured part.
    pub cpu: Cpu,
}

/// A unit under way.
struct Flight {
    /// When it was sent, or should have been.
    began_ns: u64,
    numbers: Numbers,
    step: usize,
    replies_left: u32,
}

struct Conn {
    socket: TcpStream,
    group: usize,
    out: Vec<u8>,
    input: Vec<u8>,
    flights: VecDeque<Flight>,
}

struct Group {
    plan: GroupPlan,
    steps: Vec<Step>,
    conns: std::ops::Range<usize>,
    random: u64,
    seq: u64,
    /// Units that may still begin.
    left: u64,
    /// Open loop: when the next unit should be sent, and on which connection.
    due_ns: f64,
    gap_ns: f64,
    next_conn: usize,
    units: u64,
    ended_ns: u64,
    errors: u64,
    first_error: Option<String>,
    ended_early: u64,
    recorder: Recorder,
}

/// Drives all groups.
pub struct Driver {
    poll: Poll,
    timer: rustix::fd::OwnedFd,
    start: Instant,
    conns: Vec<Conn>,
    groups: Vec<Group>,
    bounds: Bounds,
    scratch: Vec<u8>,
    stopping: bool,
}

const TIMER: Token = Token(usize::MAX);
/// An open loop sends what is due at most so often: each wake-up costs time that the server lacks.
const TICK_NS: u64 = 50_000;
/// Units in flight on a connection of an open loop, at most; those behind wait, and it counts.
const FLIGHTS_MAX: usize = 10_000;
const READ_BYTES: usize = 256 * 1024;
/// What is still under way at the end gets so long.
const DRAIN: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

impl Driver {
    /// Connects all clients and loads their scripts.
    ///
    /// # Errors
    /// The server cannot be reached, or does not know scripts.
    pub fn connect(
        address: &str,
        plans: Vec<GroupPlan>,
        bounds: Bounds,
        seed: u64,
    ) -> io::Result<Driver> {
        let poll = Poll::new()?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let raw = timer.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&raw), TIMER, Interest::READABLE)?;
        let mut driver = Driver {
            poll,
            timer,
            start: Instant::now(),
            conns: Vec::new(),
            groups: Vec::new(),
            bounds,
            scratch: vec![0; READ_BYTES],
            stopping: false,
        };
        for (index, plan) in plans.into_iter().enumerate() {
            driver.add_group(address, plan, seed.wrapping_add(index as u64))?;
        }
        Ok(driver)
    }

    fn add_group(&mut self, address: &str, plan: GroupPlan, seed: u64) -> io::Result<()> {
        let shas = load_scripts(address, &plan.workload)?;
        let steps = plan
            .workload
            .compile(plan.value_bytes, &shas)
            .map_err(io::Error::other)?;
        let first = self.conns.len();
        let group = self.groups.len();
        for _ in 0..plan.clients {
            let socket = connect(address)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            let token = Token(self.conns.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut socket, token, interest)?;
            self.conns.push(Conn {
                socket,
                group,
                out: Vec::new(),
                input: Vec::new(),
                flights: VecDeque::new(),
            });
        }
        // Numbers of units differ from those of earlier runs on the same server.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let seq = since.map_or(0, |since| since.as_micros() as u64) + group as u64 * 100_000_000;
        let interval_ns = self.bounds.interval.as_nanos() as u64;
        self.groups.push(Group {
            steps,
            conns: first..self.conns.len(),
            random: seed,
            seq,
            left: plan.count.unwrap_or(u64::MAX),
            due_ns: 0.0,
            gap_ns: plan.rate.map_or(0.0, |rate| 1e9 / rate.max(1e-3)),
            next_conn: 0,
            units: 0,
            ended_ns: 0,
            errors: 0,
            first_error: None,
            ended_early: 0,
            recorder: Recorder::new(interval_ns),
            plan,
        });
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// A connection broke, or what came is no reply.
    pub fn run(mut self) -> io::Result<Outcome> {
        self.start = Instant::now();
        for index in 0..self.conns.len() {
            self.fill(index, 0);
            self.flush(index)?;
        }
        let warm_ns = self.bounds.warm_up.as_nanos() as u64;
        self.turns(|_, now_ns| now_ns >= warm_ns)?;
        let cpu_before = Cpu::now(self.bounds.server)?;
        let began_ns = self.now_ns();
        for group in &mut self.groups {
            group.recorder.begin(began_ns);
            group.units = 0;
        }
        let end_ns = self
            .bounds
            .measured
            .map(|measured| began_ns + measured.as_nanos() as u64);
        self.turns(|driver, now_ns| match end_ns {
            Some(end_ns) => now_ns >= end_ns,
            None => driver.groups[0].left == 0 && !driver.in_flight(0),
        })?;
        let ended_ns = match end_ns {
            Some(_) => self.now_ns(),
            None => self.groups[0].ended_ns,
        };
        let cpu = Cpu::now(self.bounds.server)?.since(cpu_before);
        for group in &mut self.groups {
            group.recorder.close_until(ended_ns);
        }
        let done: Vec<u64> = self.groups.iter().map(|group| group.units).collect();
        self.stopping = true;
        let drained_ns = self.now_ns() + DRAIN.as_nanos() as u64;
        self.turns(|driver, now_ns| {
            now_ns >= drained_ns || (0..driver.groups.len()).all(|group| !driver.in_flight(group))
        })?;
        let groups = self.results(&done, ended_ns - began_ns);
        Ok(Outcome { groups, cpu })
    }

    fn in_flight(&self, group: usize) -> bool {
        let conns = self.groups[group].conns.clone();
        self.conns[conns]
            .iter()
            .any(|conn| !conn.flights.is_empty())
    }

    fn results(self, done: &[u64], took_ns: u64) -> Vec<GroupResult> {
        let mut results = Vec::new();
        for (group, units) in self.groups.into_iter().zip(done) {
            let flights = self.conns[group.conns.clone()].iter();
            results.push(GroupResult {
                name: group.plan.workload.name.clone(),
                clients: group.plan.clients,
                pipeline: group.plan.pipeline,
                rate: group.plan.rate,
                units: *units,
                seconds: took_ns as f64 / 1e9,
                errors: group.errors,
                first_error: group.first_error,
                ended_early: group.ended_early,
                lost: flights.map(|conn| conn.flights.len() as u64).sum(),
                recorder: group.recorder,
            });
        }
        results
    }

    /// Turns of the event loop until `over`.
    fn turns(&mut self, over: impl Fn(&Driver, u64) -> bool) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let now_ns = self.now_ns();
            if over(self, now_ns) {
                return Ok(());
            }
            self.send_due(now_ns)?;
            // Long enough to cost nothing, short enough to end in time.
            let polled = self.poll.poll(&mut events, Some(Duration::from_millis(5)));
            match polled {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in events.iter() {
                if event.token() == TIMER {
                    let _ = rustix::io::read(&self.timer, &mut [0; 8][..]);
                    continue;
                }
                let index = event.token().0;
                if event.is_readable() {
                    self.receive(index)?;
                }
                self.flush(index)?;
            }
        }
    }

    /// Sends what an open loop should have sent by now, and sets the timer for what comes next.
    fn send_due(&mut self, now_ns: u64) -> io::Result<()> {
        if self.stopping {
            return Ok(());
        }
        let mut next_ns = u64::MAX;
        for index in 0..self.groups.len() {
            if self.groups[index].plan.rate.is_none() {
                continue;
            }
            loop {
                let group = &mut self.groups[index];
                let due_ns = group.due_ns as u64;
                if due_ns > now_ns || group.left == 0 {
                    break;
                }
                let conn = group.conns.start + group.next_conn;
                if self.conns[conn].flights.len() >= FLIGHTS_MAX {
                    break;
                }
                group.next_conn = (group.next_conn + 1) % group.conns.len();
                group.due_ns += group.gap_ns;
                group.recorder.lag.saturating_record(now_ns - due_ns);
                self.begin(conn, due_ns);
            }
            let conns = self.groups[index].conns.clone();
            for conn in conns {
                if !self.conns[conn].out.is_empty() {
                    self.flush(conn)?;
                }
            }
            next_ns = next_ns.min(self.groups[index].due_ns as u64);
        }
        if next_ns != u64::MAX {
            self.wake_at(now_ns, next_ns.max(now_ns + TICK_NS))?;
        }
        Ok(())
    }

    fn wake_at(&self, now_ns: u64, at_ns: u64) -> io::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let in_ns = at_ns - now_ns;
        let spec = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: (in_ns / 1_000_000_000) as i64,
                tv_nsec: (in_ns % 1_000_000_000) as i64,
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// Begins units on a connection of a closed loop, of which `done` have just ended.
    fn fill(&mut self, index: usize, done: usize) {
        let conn = &self.conns[index];
        let group = &self.groups[conn.group];
        if group.plan.rate.is_some() || self.stopping {
            return;
        }
        let wanted = match (conn.flights.is_empty(), group.plan.window) {
            (true, _) => group.plan.pipeline,
            (false, true) => done,
            (false, false) => 0,
        };
        let now_ns = if wanted > 0 { self.now_ns() } else { 0 };
        for _ in 0..(wanted as u64).min(self.groups[self.conns[index].group].left) {
            self.begin(index, now_ns);
        }
    }

    fn begin(&mut self, index: usize, began_ns: u64) {
        let conn = &mut self.conns[index];
        let group = &mut self.groups[conn.group];
        group.left -= 1;
        group.seq += 1;
        let numbers = Numbers {
            unit: group.rand(),
            seq: group.seq,
        };
        let mut flight = Flight {
            began_ns,
            numbers,
            step: 0,
            replies_left: 0,
        };
        group.write_step(&mut flight, b"", &mut conn.out);
        conn.flights.push_back(flight);
    }

    /// Reads what has come on a connection.
    fn receive(&mut self, index: usize) -> io::Result<()> {
        loop {
            let mut scratch = std::mem::take(&mut self.scratch);
            let conn = &mut self.conns[index];
            let read = conn.socket.read(&mut scratch);
            let bytes = match read {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.scratch = scratch;
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let done = if conn.input.is_empty() {
                let (used, done) = self.replies(index, &scratch[..bytes])?;
                self.conns[index]
                    .input
                    .extend_from_slice(&scratch[used..bytes]);
                done
            } else {
                let mut input = std::mem::take(&mut conn.input);
                input.extend_from_slice(&scratch[..bytes]);
                let (used, done) = self.replies(index, &input)?;
                input.drain(..used);
                self.conns[index].input = input;
                done
            };
            let whole = bytes < scratch.len();
            self.scratch = scratch;
            self.fill(index, done);
            // A short read has emptied the socket.
            if whole {
                return Ok(());
            }
        }
    }

    /// Takes whole replies; returns their bytes and how many units ended.
    fn replies(&mut self, index: usize, input: &[u8]) -> io::Result<(usize, usize)> {
        let now_ns = self.now_ns();
        let conn = &mut self.conns[index];
        let group = &mut self.groups[conn.group];
        let (mut at, mut done) = (0, 0);
        while let Some(found) = reply::next(&input[at..]).map_err(io::Error::other)? {
            let reply = &input[at..at + found.bytes];
            at += found.bytes;
            if found.error {
                group.error(reply);
            }
            let flight = conn
                .flights
                .front_mut()
                .ok_or_else(|| io::Error::other("a reply that nobody asked for"))?;
            flight.replies_left -= 1;
            if flight.replies_left > 0 {
                continue;
            }
            let Some(mut flight) = conn.flights.pop_front() else {
                continue;
            };
            flight.step += 1;
            if flight.step < group.steps.len() {
                if group.write_step(&mut flight, reply, &mut conn.out) {
                    conn.flights.push_back(flight);
                    continue;
                }
                group.ended_early += 1;
            }
            done += 1;
            group.units += 1;
            group.ended_ns = now_ns;
            group
                .recorder
                .record(now_ns, now_ns.saturating_sub(flight.began_ns));
        }
        Ok((at, done))
    }

    fn flush(&mut self, index: usize) -> io::Result<()> {
        let conn = &mut self.conns[index];
        while !conn.out.is_empty() {
            match conn.socket.write(&conn.out) {
                Ok(bytes) if bytes == conn.out.len() => conn.out.clear(),
                Ok(bytes) => {
                    conn.out.drain(..bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Group {
    fn rand(&mut self) -> u64 {
        if self.plan.sequential {
            self.random += 1;
            return (self.random - 1) % self.plan.keys;
        }
        // splitmix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(self.plan.keys)) >> 64) as u64
    }

    /// Appends the requests of the flight's step; false: the unit ends here.
    fn write_step(&mut self, flight: &mut Flight, before: &[u8], out: &mut Vec<u8>) -> bool {
        let steps = std::mem::take(&mut self.steps);
        let step = &steps[flight.step];
        flight.replies_left = step.replies;
        let written = step.write(&flight.numbers, || self.rand(), before, out);
        self.steps = steps;
        written
    }

    fn error(&mut self, reply: &[u8]) {
        self.errors += 1;
        if self.first_error.is_none() {
            let at = memchr::memchr(b'-', reply).unwrap_or(0);
            let text = String::from_utf8_lossy(&reply[at..(at + 200).min(reply.len())]);
            self.first_error = Some(text.trim_end().to_owned());
        }
    }
}

fn connect(address: &str) -> io::Result<std::net::TcpStream> {
    let address: std::net::SocketAddr = address
        .parse()
        .map_err(|_| io::Error::other(format!("{address} is no address and port")))?;
    let socket = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Connections that do nothing; each has been answered once, so that the server has it.
///
/// # Errors
/// The server does not take them, or this process may not open so many files.
pub fn connect_idle(address: &str, count: usize) -> io::Result<Vec<std::net::TcpStream>> {
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        let text = |error: io::Error| io::Error::other(format!("idle {number}: {error}"));
        let mut socket = connect(address).map_err(text)?;
        socket.write_all(b"PING\r\n").map_err(text)?;
        let mut reply = [0; 7];
        socket.read_exact(&mut reply).map_err(text)?;
        socket.set_nonblocking(true)?;
        idle.push(socket);
    }
    Ok(idle)
}

/// How many of them the server has closed.
pub fn count_lost(idle: &[std::net::TcpStream]) -> usize {
    let lost = |mut socket: &std::net::TcpStream| match socket.read(&mut [0; 1]) {
        Err(error) => error.kind() != ErrorKind::WouldBlock,
        Ok(bytes) => bytes == 0,
    };
    idle.iter().filter(|socket| lost(socket)).count()
}

/// Digests of the scripts that a workload needs.
fn load_scripts(address: &str, workload: &Workload) -> io::Result<Vec<(String, String)>> {
    let mut shas = Vec::new();
    for name in workload.scripts() {
        let found = SCRIPTS.iter().find(|(known, _)| *known == name);
        let (_, text) =
            found.ok_or_else(|| io::Error::other(format!("there is no script {name:?}")))?;
        let mut socket = connect(address)?;
        let request = format!(
            "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n${}\r\n{text}\r\n",
            text.len()
        );
        socket.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        let mut bytes = [0; 512];
        while reply::next(&reply).map_err(io::Error::other)?.is_none() {
            let read = socket.read(&mut bytes)?;
            if read == 0 {
                return Err(io::Error::other("the server closed a connection"));
            }
            reply.extend_from_slice(&bytes[..read]);
        }
        let sha = reply::element(&reply, 0).filter(|sha| sha.len() == 40);
        let sha = sha.ok_or_else(|| {
            let text = String::from_utf8_lossy(&reply).trim_end().to_owned();
            io::Error::other(format!("SCRIPT LOAD: {text}"))
        })?;
        let sha = String::from_utf8_lossy(sha).into_owned();
        shas.push((name.to_owned(), sha));
    }
    Ok(shas)
}
