//! The deterministic simulator: whole servers on one thread, over a disk that loses, tears and
//! flips, a clock that jumps, and clients that crash into each other; killed at any step, started
//! again with another number of shards, and held against a plain execution.
//!
//! ```text
//! cargo test --profile simulation --features simulation --test sim -- [options]
//!   --seeds N     so many seeds (default 2000)
//!   --from N      the first seed (default 1)
//!   --long        200,000 seeds
//!   --seed N      replays one seed, twice, and compares the two runs
//!   --faults      every deliberate bug must be found; says by which seed
//!   --fault NAME  one of them, with --seed or --seeds
//!
//! SIM_ALOUD=1 prints what happens, SIM_BACKTRACE=1 where a rule was broken.
//! ```

mod oracle;
mod plain;
mod sessions;
mod state;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tallyman::log::SyncMode;
use tallyman::log::sim_disk::{Call, SimDisk};
use tallyman::sim::{self, Fault};
use tallyman::store::Store;

use crate::oracle::Counts;
use crate::world::{Machine, Started, Wish, World, lose};

/// What a run of one seed found out.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Report {
    trace: u64,
    lives: u64,
    checkpoints: u64,
    flips: u64,
    flips_found: u64,
    flips_undecided: u64,
    cuts: u64,
    removals: u64,
    losses_found: u64,
}

/// Runs one seed; panics when a rule is broken.
fn run_seed(seed: u64) -> (Report, Counts) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let lives = random.random_range(1..5);
    let mut report = Report::default();
    let mut machine = Box::new(Machine::new(seed, random));
    for life in 0..=lives {
        report.lives += 1;
        let mut started = start(machine);
        let last = life == lives;
        let steps = steps_of_life(&mut started.world.borrow_mut().machine.random, last);
        report.checkpoints += live(&mut started, steps);
        let Started { world, checkpoint } = started;
        if last || world.borrow_mut().machine.random.random_range(0..4) == 0 {
            audit(&world, last);
        }
        drop(checkpoint);
        let world = Rc::into_inner(world)
            .expect("nothing else reaches it")
            .into_inner();
        machine = Box::new(world.die());
        lose(&mut machine);
        flip_bits(&mut machine, &mut report);
        lose_files(&mut machine, &mut report);
    }
    report.trace = machine.oracle.trace;
    (report, machine.oracle.counts)
}

/// How long a life is, unless it ends by itself.
fn steps_of_life(random: &mut Xoshiro256PlusPlus, last: bool) -> usize {
    match (last, random.random_range(0..4)) {
        (true, _) => 200,
        // What a start leaves behind meets the next one.
        (false, 0) => random.random_range(0..120),
        (false, _) => random.random_range(100..2_500),
    }
}

/// Starts a server; the disk may fail, and the power go, while it starts.
fn start(mut machine: Box<Machine>) -> Started {
    machine.disk.set_space(None);
    for attempt in 0.. {
        if attempt < 3 && machine.random.random_range(0..5) == 0 {
            let calls = [
                Call::Open,
                Call::Read,
                Call::Write,
                Call::Sync,
                Call::Create,
            ];
            let call = calls[machine.random.random_range(0..calls.len())];
            let nth = machine.random.random_range(1..10);
            machine.disk.fail_nth(call, nth, std::io::ErrorKind::Other);
        }
        let shards = machine.random.random_range(1..5);
        match machine.start(shards) {
            Ok(started) => {
                return started;
            }
            Err((back, fatal)) => {
                machine = back;
                assert!(attempt < 3, "the server does not start: {fatal}");
                lose(&mut machine);
            }
        }
    }
    unreachable!("the last attempt starts or panics")
}

/// Lets the server live for so many steps, or until it dies. Returns its checkpoints.
fn live(started: &mut Started, steps: usize) -> u64 {
    let mut checkpoints = 0;
    for _ in 0..steps {
        let wish = started.world.borrow_mut().step();
        match wish {
            None => {}
            Some(Wish::Checkpoint) => checkpoints += u64::from(checkpoint(started)),
            Some(Wish::Reload(asker)) => {
                let done = reload(started);
                started.world.borrow_mut().resume(asker, done);
            }
            Some(Wish::Stop { no_save, asker }) => {
                let done = stop(started, no_save);
                started.world.borrow_mut().resume(asker, done);
            }
        }
        if started.world.borrow().dead.is_some() {
            break;
        }
    }
    checkpoints
}

/// Runs a checkpoint; false if it did not succeed.
fn checkpoint(started: &mut Started) -> bool {
    let Started { world, checkpoint } = started;
    world.borrow_mut().set_checkpointing(true);
    let done = checkpoint.run(true);
    let mut world = world.borrow_mut();
    world.set_checkpointing(false);
    if world.machine.oracle.aloud {
        let meta = world.machine.store.meta();
        println!("checkpoint: {done:?}, the store is at {meta:?}");
    }
    done.is_ok()
}

/// DEBUG RELOAD, as the server does it.
fn reload(started: &mut Started) -> Result<(), String> {
    started.world.borrow_mut().stand_still()?;
    if !checkpoint(started) {
        return Err("no checkpoint".to_owned());
    }
    started.world.borrow_mut().reload()
}

/// SHUTDOWN, as the server does it.
fn stop(started: &mut Started, no_save: bool) -> Result<(), String> {
    started.world.borrow_mut().stand_still()?;
    if !no_save && !checkpoint(started) {
        return Err("no checkpoint".to_owned());
    }
    started.world.borrow_mut().stop()
}

/// The server comes to rest, and tells all that it has.
fn audit(world: &Rc<RefCell<World>>, last: bool) {
    let mut world = world.borrow_mut();
    world.heal();
    world.audit();
    if last && world.dead.is_none() {
        world.let_deadlines_pass();
    }
}

/// On copies of the disk: a flipped bit is found, or does no harm.
fn flip_bits(machine: &mut Machine, report: &mut Report) {
    if machine.mode != SyncMode::Always {
        return;
    }
    let Ok((recovery, _, _)) = machine.read(&machine.disk.fork(1), (1, 0), true) else {
        // What a start makes of it is checked there.
        return;
    };
    let end = recovery.position().lsn;
    drop(recovery);
    for _ in 0..2 {
        let disk = machine.disk.fork(machine.random.random());
        if !flip_one(machine, &disk) {
            return;
        }
        report.flips += 1;
        let threads = machine.threads();
        let Ok((recovery, recovered, _)) = machine.read(&disk, (2, threads), true) else {
            report.flips_found += 1;
            continue;
        };
        let lsn = recovery.position().lsn;
        let (found, map) = Machine::holds(&recovered);
        if lsn < end {
            // Undecidable for the last record alone: nothing says yet that it was synced.
            let before = machine.records.iter().rfind(|record| **record < end);
            assert!(
                before.is_none_or(|before| lsn >= *before),
                "a flipped bit cut the log from {end} to {lsn}, and nobody is told"
            );
            report.flips_undecided += 1;
        }
        check_served(machine, (lsn, &found, &map), "after a flipped bit");
    }
}

/// What is served is what was there at some moment, whole.
fn check_served(
    machine: &Machine,
    (lsn, found, map): (u64, &state::State, &state::DatabaseMap),
    when: &str,
) {
    let (expected, expected_map) = machine.oracle.expected(lsn);
    assert_eq!(expected_map.0, map.0, "databases {when}, at {lsn}");
    let differ = state::differences(&expected, found);
    assert!(differ.is_empty(), "{when}, at {lsn}: {differ:?} differ");
}

/// On copies of the disk: a file of the log is cut short or gone. Whoever starts then has all that
/// there was; or is told.
fn lose_files(machine: &mut Machine, report: &mut Report) {
    let Ok((recovery, _, _)) = machine.read(&machine.disk.fork(1), (1, 0), true) else {
        return;
    };
    let end = recovery.position().lsn;
    drop(recovery);
    for _ in 0..3 {
        let disk = machine.disk.fork(machine.random.random());
        let files = machine.log_files(&disk);
        let (file, contents) = &files[machine.random.random_range(0..files.len())];
        let what = if machine.random.random_range(0..3) == 0 {
            disk.disk().remove(file).expect("it is there");
            report.removals += 1;
            "without"
        } else {
            let blocks = contents.len().div_ceil(4096);
            let block = machine.random.random_range(0..blocks);
            disk.truncate(file, block as u64 * 4096);
            report.cuts += 1;
            "with a cut"
        };
        let threads = machine.threads();
        let Ok((recovery, recovered, _)) = machine.read(&disk, (2, threads), true) else {
            report.losses_found += 1;
            continue;
        };
        let lsn = recovery.position().lsn;
        let when = format!("{what} {}", file.display());
        assert_eq!(lsn, end, "where the log ends {when}, and nobody is told");
        let (found, map) = Machine::holds(&recovered);
        check_served(machine, (lsn, &found, &map), &when);
    }
}

/// Flips one bit of what the log holds.
fn flip_one(machine: &mut Machine, disk: &Arc<SimDisk>) -> bool {
    let files = machine.log_files(disk);
    if files.is_empty() {
        return false;
    }
    let (file, contents) = &files[machine.random.random_range(0..files.len())];
    let used: Vec<usize> = contents
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte != 0)
        .map(|(at, _)| at)
        .collect();
    if used.is_empty() {
        return false;
    }
    let at = used[machine.random.random_range(0..used.len())];
    disk.flip_bit(file, at as u64, machine.random.random_range(0..8));
    true
}

// ---- many seeds ---------------------------------------------------------------------------------

thread_local! {
    static BROKEN: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs one seed with a deliberate bug or none; what was broken, if anything was.
fn try_seed(seed: u64, fault: Option<Fault>) -> Result<(Report, Counts), String> {
    sim::set_fault(fault);
    sim::mute(false);
    sim::take_events();
    let result = catch_unwind(AssertUnwindSafe(|| run_seed(seed)));
    sim::mute(true);
    sim::take_events();
    result.map_err(|_| BROKEN.take())
}

fn keep_messages() {
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or(String::new(), |place| place.to_string());
        let text = info.payload_as_str().unwrap_or("it panicked").to_owned();
        BROKEN.set(format!("{text}\n  at {place}"));
        if std::env::var_os("SIM_BACKTRACE").is_some() {
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
        }
    }));
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    report: Report,
    counts: Counts,
    failures: Vec<(u64, String)>,
}

fn failure(seed: u64, text: &str) -> String {
    format!(
        "seed {seed}: {text}\n  replay: cargo test --profile simulation --features simulation \
         --test sim -- --seed {seed}"
    )
}

fn run_many(from: u64, seeds: u64, fault: Option<Fault>, until_found: bool) -> Totals {
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while !stop.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= from + seeds {
                return;
            }
            let result = try_seed(seed, fault);
            let mut totals = totals.lock().expect("nobody panics here");
            totals.seeds += 1;
            match result {
                Ok((report, counts)) => totals.add(&report, &counts),
                Err(text) => {
                    if fault.is_none() {
                        println!("{}", failure(seed, &text));
                    }
                    totals.failures.push((seed, text));
                    if until_found || totals.failures.len() >= 5 {
                        stop.store(true, Ordering::SeqCst);
                    }
                }
            }
            if fault.is_none() && totals.seeds.is_multiple_of(10_000) {
                println!("{} seeds", totals.seeds);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut totals = totals.into_inner().expect("nobody panics here");
    totals.failures.sort();
    totals
}

impl Totals {
    fn add(&mut self, report: &Report, counts: &Counts) {
        self.report.lives += report.lives;
        self.report.checkpoints += report.checkpoints;
        self.report.flips += report.flips;
        self.report.flips_found += report.flips_found;
        self.report.flips_undecided += report.flips_undecided;
        self.report.cuts += report.cuts;
        self.report.removals += report.removals;
        self.report.losses_found += report.losses_found;
        self.counts.events += counts.events;
        self.counts.replies += counts.replies;
        self.counts.blocks += counts.blocks;
        self.counts.batches += counts.batches;
        self.counts.recoveries += counts.recoveries;
        self.counts.recovered_keys += counts.recovered_keys;
        self.counts.tokens += counts.tokens;
        self.counts.plain += counts.plain;
        self.counts.reloads += counts.reloads;
        self.counts.stops += counts.stops;
        self.counts.evicted += counts.evicted;
    }

    fn print(&self) {
        let Counts {
            events,
            replies,
            blocks,
            batches,
            recoveries,
            recovered_keys,
            tokens,
            plain,
            reloads,
            stops,
            evicted,
        } = self.counts;
        let Report {
            lives,
            checkpoints,
            flips,
            flips_found,
            flips_undecided,
            cuts,
            removals,
            losses_found,
            ..
        } = self.report;
        println!(
            "{} seeds: {lives} starts, {recoveries} recoveries of {recovered_keys} keys, {batches} \
             batches, {checkpoints} checkpoints\n{events} events, {replies} replies checked ({plain} \
             by the plain model), {blocks} blocks, {tokens} tokens, \
             {reloads} recoveries in place, {stops} clean stops, \
             {evicted} keys left memory\n{flips} bits flipped: \
             {flips_found} found, {} harmless, {flips_undecided} in the last record before a \
             crash\n{cuts} files of the log cut short, {removals} removed: {losses_found} found, {} \
             harmless",
            self.seeds,
            flips - flips_found - flips_undecided,
            cuts + removals - losses_found
        );
    }
}

/// Every deliberate bug is found. Returns how many were not.
fn find_faults(faults: &[Fault], from: u64, seeds: u64) -> u64 {
    let mut missed = 0;
    for &fault in faults {
        let began = Instant::now();
        let totals = run_many(from, seeds, Some(fault), true);
        // A seed that fails by itself finds nothing.
        let found = totals
            .failures
            .iter()
            .find(|(seed, _)| try_seed(*seed, None).is_ok());
        match found {
            Some((seed, text)) => {
                let line: String = text
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(120)
                    .collect();
                println!(
                    "{fault:?}: found by seed {seed} in {:?}: {line}",
                    began.elapsed()
                );
            }
            None => {
                missed += 1;
                println!("{fault:?}: NOT FOUND by {} seeds", totals.seeds);
            }
        }
    }
    missed
}

/// One seed, twice: both runs must be the same.
fn replay(seed: u64, fault: Option<Fault>) -> u64 {
    let first = try_seed(seed, fault);
    let second = try_seed(seed, fault);
    match (&first, &second) {
        (Ok(first), Ok(second)) if first.0 == second.0 => {
            println!("seed {seed}: {:?}\n{:?}", first.0, first.1);
            0
        }
        (Err(first), Err(second)) if first == second => {
            println!("seed {seed}: {first}");
            1
        }
        _ => {
            println!("seed {seed} does not repeat itself:\n{first:?}\n{second:?}");
            1
        }
    }
}

struct Options {
    from: u64,
    seeds: Option<u64>,
    seed: Option<u64>,
    faults: bool,
    fault: Option<Fault>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        from: 1,
        seeds: None,
        seed: None,
        faults: false,
        fault: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let text = words.next().unwrap_or_default();
            text.parse().map_err(|_| format!("{word} needs a number"))
        };
        match word.as_str() {
            "--seeds" => options.seeds = Some(number()?),
            "--from" => options.from = number()?,
            "--seed" => options.seed = Some(number()?),
            "--long" => options.seeds = Some(200_000),
            "--faults" => options.faults = true,
            "--fault" => {
                let name = words.next().unwrap_or_default();
                let found = Fault::ALL.iter().find(|fault| format!("{fault:?}") == name);
                options.fault = Some(*found.ok_or(format!("no fault is called {name}"))?);
            }
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

/// The same seed gives the same run.
fn repeats(seeds: std::ops::Range<u64>) -> bool {
    seeds.into_iter().all(|seed| {
        let (first, second) = (try_seed(seed, None), try_seed(seed, None));
        let same = first.as_ref().map(|run| run.0) == second.as_ref().map(|run| run.0);
        if !same {
            println!("seed {seed} does not repeat itself");
        }
        same
    })
}

fn main() {
    let options = options().unwrap_or_else(|text| {
        eprintln!("{text}");
        std::process::exit(2);
    });
    keep_messages();
    if let Some(seed) = options.seed {
        std::process::exit(i32::from(replay(seed, options.fault) > 0));
    }
    if options.faults {
        let one: Vec<Fault> = options.fault.into_iter().collect();
        let faults = if one.is_empty() { Fault::ALL } else { &one };
        let missed = find_faults(faults, options.from, options.seeds.unwrap_or(2_000));
        println!("{} passed, {missed} failed", faults.len() as u64 - missed);
        std::process::exit(i32::from(missed > 0));
    }
    let began = Instant::now();
    let same = repeats(options.from..options.from + 3);
    let totals = run_many(
        options.from,
        options.seeds.unwrap_or(2_000),
        options.fault,
        false,
    );
    totals.print();
    println!("in {:.1} s", began.elapsed().as_secs_f64());
    let failed = totals.failures.len() as u64 + u64::from(!same);
    println!(
        "{} passed, {failed} failed",
        totals.seeds - totals.failures.len() as u64
    );
    std::process::exit(i32::from(failed > 0));
}
