//! A whole server on one thread: workers, mailboxes, lending, commit log, checkpoint, gate and
//! reply queues, one step at a time in random order, over a disk that fails and a clock that jumps.
//!
//! Always true: the same seed takes the same steps.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{TryRecvError, channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use tallyman::clock::{Clock, ManualClock};
use tallyman::config::{AppendFsync, DebugCommand, Settings};
use tallyman::keyspace::input_gate::Read;
use tallyman::keyspace::tokens::{TOKEN_BLOCK, TokenSource};
use tallyman::log::sim_disk::{Call, Keep, SimDisk};
use tallyman::log::{self, Batch, Fatal, Log, Lsn, Manual, Options, SyncMode};
use tallyman::recovery::{self, Plan, Recovered, recover};
use tallyman::residency::{StoredKeys, due_rows};
use tallyman::route::Routes;
use tallyman::server::checkpoints::{Progress, Shards, Tools};
use tallyman::server::dead::Dead;
use tallyman::server::first_batch;
use tallyman::session::{Address, Client as Record, Shared};
use tallyman::shard::mailbox::{ConnId, Message, SweepSlice, SweepStep};
use tallyman::sim;
use tallyman::store::row::{DEADLINES_BEGIN, deadlines};
use tallyman::store::{Ballast, Fault as StoreFault, Finish, MapStore, Meta, Store};
use tallyman::worker::{Control, Parts, Worker};

use crate::oracle::{Beginning, Oracle};
use crate::sessions::{Client, Generator};
use crate::state::{State, differences, everything};

/// Threads that apply the log, where several do.
pub const THREADS: usize = 3;
/// Database numbers.
pub const DATABASES: usize = 3;
/// Expired keys are deleted in pieces of so many.
const EXPIRE_BUDGET: usize = 200;
/// More than the batch with the ceiling of tokens takes.
const CEILING_BYTES: u64 = 8 * 1024;
const WALL_MS: u64 = 1_700_000_000_000;
/// Deadlines of keys that hibernate are read so long before.
const HORIZON_MS: u64 = 5_000;

/// What stays when the server dies.
pub struct Machine {
    pub random: Xoshiro256PlusPlus,
    pub disk: Arc<SimDisk>,
    pub store: Arc<MapStore>,
    pub clock: ManualClock,
    time_us: Arc<AtomicU64>,
    pub seed: u64,
    pub segment_bytes: u64,
    pub mode: SyncMode,
    /// 0, or so little that keys leave memory all the time.
    pub maxmemory_bytes: usize,
    pub generator: Generator,
    pub oracle: Oracle,
    /// Ends of the records that are on disk, since the start.
    pub records: Vec<Lsn>,
    next_client: u64,
}

/// The server while it runs.
pub struct World {
    pub machine: Machine,
    manual: Manual,
    log: Log,
    workers: Vec<Worker>,
    inboxes: Vec<VecDeque<Message>>,
    awake: BTreeSet<(usize, ConnId)>,
    clients: Vec<Client>,
    wishes: Arc<Mutex<Vec<Control>>>,
    pending: VecDeque<Wish>,
    shared: Arc<Shared>,
    plan: Plan,
    tokens: TokenSource,
    now: Clock,
    /// Rows of deadlines before this were read, by shard.
    next_deadlines: Vec<Vec<u8>>,
    /// Reads of keys that hibernate, by shard, that nobody has made yet.
    reads: Reads,
    checkpointing: bool,
    /// Why the process has died.
    pub dead: Option<String>,
    calm: bool,
}

/// What the server as a whole is to do next.
pub enum Wish {
    Checkpoint,
    /// Recovers in place, for this connection.
    Reload((usize, ConnId)),
    Stop {
        no_save: bool,
        asker: (usize, ConnId),
    },
}

type Reads = Arc<Mutex<Vec<(usize, Read)>>>;

/// What a checkpoint works with, beside the world.
pub type Checkpoint = Tools<Reach>;

/// How the checkpoint reaches the shards: the world goes on until they answer.
pub struct Reach(pub Rc<RefCell<World>>);

/// A started server.
pub struct Started {
    pub world: Rc<RefCell<World>>,
    pub checkpoint: Checkpoint,
}

impl Machine {
    pub fn new(seed: u64, mut random: Xoshiro256PlusPlus) -> Machine {
        let first = Meta {
            format: 1,
            databases: (0..DATABASES as u32).collect(),
            next_database_id: DATABASES as u32,
            ..Meta::default()
        };
        let store = Arc::new(MapStore::new());
        let made = store.ingest(&mut |_| Ok(Finish::With(first.clone())));
        assert_eq!(made, Ok(true));
        let mode = match random.random_range(0..10) {
            0 | 1 => SyncMode::EverySec,
            2 => SyncMode::No,
            _ => SyncMode::Always,
        };
        let segments = [64 * 1024, 128 * 1024, 512 * 1024];
        let generator = Generator::new(&mut random);
        let mut machine = Machine {
            disk: SimDisk::new(seed),
            store,
            clock: ManualClock::new(WALL_MS),
            time_us: Arc::new(AtomicU64::new(0)),
            seed: seed ^ 0x7a11,
            segment_bytes: 0,
            mode,
            maxmemory_bytes: random.random_range(0..2),
            oracle: Oracle::new(generator.keys.clone()),
            generator,
            random,
            records: Vec::new(),
            next_client: 0,
        };
        // As a new data folder has it.
        machine.segment_bytes = segments[machine.random.random_range(0..3)];
        let begun = log::begin(machine.disk.disk(), Path::new("log"), &machine.options(1));
        begun.expect("the disk works");
        machine
    }

    pub fn options(&self, shards: usize) -> Options {
        let time_us = self.time_us.clone();
        let clock_us = Arc::new(move || time_us.fetch_add(1, Ordering::Relaxed));
        let mut options = Options::new(self.seed, clock_us);
        options.segment_bytes = self.segment_bytes;
        options.set_aside_bytes = self.segment_bytes / 4;
        options.writers = shards;
        options.sync = self.mode;
        options.spare_segments_max = 2;
        options
    }

    /// Reads a disk as a start does, with this many threads besides the one that reads the log;
    /// `awake`: everything, to be compared.
    pub fn read(
        &self,
        disk: &Arc<SimDisk>,
        (shards, threads): (usize, usize),
        awake: bool,
    ) -> Result<(log::Recovery, Recovered, Plan), Fatal> {
        let meta = self
            .store
            .meta()
            .expect("the store works")
            .unwrap_or_default();
        let options = self.options(shards);
        let mut recovery = log::open(disk.disk(), Path::new("log"), options, meta.known(true))?;
        let plan = Plan {
            routes: Routes::new(shards),
            seed: self.seed,
            databases: DATABASES,
            random_seed: self.seed ^ 5,
            threads,
        };
        let store: Arc<dyn Store> = self.store.clone();
        let mut recovered = recover(&store, &meta, &mut recovery, plan, &mut |_| {})?;
        for keyspace in recovered.keyspaces.iter_mut().filter(|_| awake) {
            keyspace.wake_everything().expect("the store works");
        }
        Ok((recovery, recovered, plan))
    }

    /// The files of the log, and what is in them.
    pub fn log_files(&self, disk: &Arc<SimDisk>) -> Vec<(PathBuf, Vec<u8>)> {
        let names = disk.disk().list(Path::new("log")).expect("it can be read");
        let paths = names.iter().map(|name| Path::new("log").join(name));
        let files = paths.map(|path| (disk.contents(&path), path));
        let files = files.filter(|(contents, _)| !contents.is_empty());
        files.map(|(contents, path)| (path, contents)).collect()
    }

    /// Threads that are to apply the log, some time.
    pub fn threads(&mut self) -> usize {
        [0, THREADS][self.random.random_range(0..2)]
    }

    /// Time passes.
    fn advance_us(&mut self, us: u64) {
        self.clock.advance_ns(us * 1_000);
        self.time_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What the keyspaces hold in live databases.
    pub fn holds(recovered: &Recovered) -> (State, (Vec<u32>, u32)) {
        let map = recovered.keyspaces[0].databases();
        let mut state = State::new();
        for keyspace in &recovered.keyspaces {
            let all = everything(keyspace).into_iter();
            state.extend(all.filter(|(name, _)| map.ids().contains(&name.0)));
        }
        (state, (map.ids().to_vec(), map.next()))
    }

    /// Starts a server on what the disk has.
    ///
    /// # Errors
    /// The start failed; the machine is as it was.
    pub fn start(mut self, shards: usize) -> Result<Started, (Box<Machine>, Fatal)> {
        macro_rules! attempt {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(fatal) => return Err((Box::new(self), fatal)),
                }
            };
        }
        let alone = (shards, 0);
        let (recovery, recovered, plan) = attempt!(self.read(&self.disk.clone(), alone, false));
        let lsn = recovery.position().lsn;
        let copy = self.disk.fork(3);
        copy.spare();
        let (_, all, _) = attempt!(self.read(&copy, alone, true));
        let (_, together, _) = attempt!(self.read(&copy, (shards, THREADS), true));
        let (state, map) = Machine::holds(&all);
        same_recovery(&all, &together);
        self.oracle.check_recovered(lsn, &state, &map);
        let (log, manual) = attempt!(recovery.finish_manual());
        let clock = self.clock.clock(recovered.time_ms);
        let databases = recovered.keyspaces[0].databases().clone();
        let ceiling = (&recovered.tokens, &databases);
        let first = first_batch(ceiling, &clock);
        let payload = first.parts.concat();
        attempt!(begin_log(&log, first));
        let mut manual = manual;
        loop {
            match manual.step() {
                Ok(true) => {}
                Ok(false) if log.durable_lsn() == log.last_lsn() => break,
                Ok(false) => log.request_sync(),
                Err(fatal) => return Err((Box::new(self), fatal)),
            }
        }
        let beginning = Beginning {
            routes: plan.routes,
            seed: plan.seed,
            random_seed: plan.random_seed,
            mode: self.mode,
            lsn,
            token_ceiling: recovered.tokens.ceiling() - TOKEN_BLOCK * shards as u64,
        };
        sim::take_events();
        self.oracle.begin(&beginning, state, map);
        self.oracle.appended(Bytes::from(payload));
        self.records = vec![lsn];
        Ok(World::open(self, (log, manual, clock), recovered, plan))
    }
}

/// However many threads apply the log: the same comes of it, in databases that are dead too.
fn same_recovery(one: &Recovered, other: &Recovered) {
    let figures = |recovered: &Recovered| {
        let Recovered {
            token_ceiling,
            keys,
            batches,
            time_ms,
            ..
        } = *recovered;
        let dead = recovered.dead_databases.clone();
        (token_ceiling, keys, batches, time_ms, dead)
    };
    assert_eq!(figures(one), figures(other), "what several threads recover");
    assert_eq!(one.keyspaces.len(), other.keyspaces.len());
    for (one, other) in one.keyspaces.iter().zip(&other.keyspaces) {
        assert_eq!(one.slots(), other.slots());
        assert_eq!(one.databases().ids(), other.databases().ids());
        let differ = differences(&everything(one), &everything(other));
        assert!(
            differ.is_empty(),
            "what several threads recover: {differ:?}"
        );
    }
}

fn begin_log(log: &Log, first: Batch) -> Result<(), Fatal> {
    if log.reserve_urgent(first.reserved_bytes) {
        log.append(first);
        return Ok(());
    }
    Err(Fatal::new("no space".to_owned(), Path::new("log")))
}

fn shared(shards: usize, machine: &Machine) -> Arc<Shared> {
    let settings = Settings {
        databases: DATABASES,
        mailbox_calls_max: 8 * shards,
        enable_debug_command: DebugCommand::Yes,
        maxmemory_bytes: machine.maxmemory_bytes,
        appendfsync: match machine.mode {
            SyncMode::Always => AppendFsync::Always,
            SyncMode::EverySec => AppendFsync::Everysec,
            SyncMode::No => AppendFsync::No,
        },
        ..Settings::default()
    };
    Shared::alone(settings, shards)
}

impl World {
    fn open(
        machine: Machine,
        (log, manual, clock): (Log, Manual, Clock),
        recovered: Recovered,
        plan: Plan,
    ) -> Started {
        let shards = plan.routes.shards();
        let shared = shared(shards, &machine);
        let wishes: Arc<Mutex<Vec<Control>>> = Arc::default();
        let reads: Reads = Arc::default();
        let databases = recovered.keyspaces[0].databases().clone();
        let dead = Dead::new(databases, recovered.dead_databases);
        let store: Arc<dyn Store> = machine.store.clone();
        let keyspaces = recovered.keyspaces.into_iter().enumerate();
        let workers = keyspaces.map(|(id, keyspace)| {
            let (wishes, reads) = (wishes.clone(), reads.clone());
            Worker::new(Parts {
                id,
                routes: plan.routes,
                shared: shared.clone(),
                log: log.clone(),
                clock: clock.clone(),
                keyspace,
                control: Arc::new(move |wish| wishes.lock().expect("one thread").push(wish)),
                reads: Some(Arc::new(move |shard, read| {
                    reads.lock().expect("one thread").push((shard, read));
                })),
                seed: plan.seed + id as u64,
            })
        });
        let world = World {
            machine,
            manual,
            log: log.clone(),
            workers: workers.collect(),
            inboxes: (0..shards).map(|_| VecDeque::new()).collect(),
            awake: BTreeSet::new(),
            clients: Vec::new(),
            wishes,
            pending: VecDeque::new(),
            shared: shared.clone(),
            plan,
            tokens: recovered.tokens.clone(),
            now: clock.clone(),
            next_deadlines: vec![DEADLINES_BEGIN.to_vec(); shards],
            reads,
            checkpointing: false,
            dead: None,
            calm: false,
        };
        let world = Rc::new(RefCell::new(world));
        let checkpoint = Tools {
            store,
            log,
            clock,
            shards: Reach(world.clone()),
            tokens: recovered.tokens,
            dead,
            past_ms: 0..0,
            stuck: BTreeSet::new(),
            seed: plan.seed,
            progress: Arc::new(Progress::default()),
            ballast: Ballast::none(),
            may_shrink: false,
            ending: Arc::default(),
        };
        Started { world, checkpoint }
    }

    fn random(&mut self, bound: usize) -> usize {
        self.machine.random.random_range(0..bound)
    }

    fn now_ms(&self) -> u64 {
        self.workers[0].now_ms()
    }

    // ---- what a thread does ------------------------------------------------------------------

    /// Passes on what a worker made, and lets the oracle follow.
    fn after(&mut self, shard: usize) {
        loop {
            let outbox = self.workers[shard].take_outbox();
            if outbox.is_empty() {
                break;
            }
            for (to, message) in outbox {
                if to == shard {
                    self.workers[shard].message(message);
                } else {
                    self.inboxes[to].push_back(message);
                }
            }
        }
        let attention = self.workers[shard].take_attention();
        self.awake
            .extend(attention.into_iter().map(|id| (shard, id)));
        self.workers[shard].take_sleep_us();
        self.machine.oracle.follow(sim::take_events());
    }

    fn deliver(&mut self, shard: usize) -> bool {
        let Some(message) = self.inboxes[shard].pop_front() else {
            return false;
        };
        self.workers[shard].begin_turn();
        self.workers[shard].message(message);
        self.after(shard);
        true
    }

    fn seal(&mut self, shard: usize) -> bool {
        let wanted = self.workers[shard].wants_seal();
        if wanted {
            self.workers[shard].seal();
            self.after(shard);
        }
        wanted
    }

    fn commit(&mut self) -> bool {
        let worked = match self.manual.step() {
            Ok(worked) => worked,
            Err(fatal) => {
                self.dead = Some(fatal.to_string());
                return false;
            }
        };
        let position = self.log.position();
        self.machine.oracle.durable(position.lsn);
        if self.machine.records.last() != Some(&position.lsn) {
            self.machine.records.push(position.lsn);
        }
        worked
    }

    fn tell_durable(&mut self, shard: usize) {
        let worker = &mut self.workers[shard];
        worker.begin_turn();
        worker.durable();
        if worker.wants_space() {
            worker.space_changed();
        }
        self.after(shard);
    }

    fn tick(&mut self, shard: usize) -> bool {
        self.tell_durable(shard);
        self.read_deadlines(shard);
        let complete = self.workers[shard].tick(EXPIRE_BUDGET);
        self.after(shard);
        complete
    }

    /// Tells a shard of deadlines that keys have which hibernate, as their thread does it.
    fn read_deadlines(&mut self, shard: usize) {
        let horizon_ms = self.now.now_ms() + HORIZON_MS;
        let (store, from) = (&*self.machine.store, &self.next_deadlines[shard]);
        let due = due_rows(store, from, horizon_ms, usize::MAX, self.machine.seed);
        let hints = due.expect("the store works").hints;
        self.next_deadlines[shard] = deadlines(horizon_ms, horizon_ms).0;
        let worker = &mut self.workers[shard];
        worker.message(Message::Horizon(horizon_ms));
        worker.message(Message::Hints(hints, horizon_ms, channel().0));
    }

    /// One step of a connection, as the runner does it.
    fn poll(&mut self, shard: usize, id: ConnId) {
        let Some(index) = self.clients.iter().position(|client| client.conn == id) else {
            return;
        };
        let worker = &mut self.workers[shard];
        worker.begin_turn();
        if worker.conn(id).is_some_and(|conn| conn.has_input()) {
            worker.resume(id);
        }
        for read in 0.. {
            if !self.workers[shard].may_read(id) || self.clients[index].sent.is_empty() {
                break;
            }
            if read == 4 {
                self.awake.insert((shard, id));
                break;
            }
            let most = self.clients[index].sent.len();
            let bytes = if self.calm {
                most
            } else {
                1 + self.random(most)
            };
            let piece: Vec<u8> = self.clients[index].sent.drain(..bytes).collect();
            self.workers[shard].receive(id, &piece);
        }
        self.after(shard);
        self.write(shard, id, index);
        self.after(shard);
        let done = self.workers[shard]
            .conn(id)
            .is_none_or(|conn| conn.is_done());
        if done {
            self.disconnect(index);
        }
    }

    fn write(&mut self, shard: usize, id: ConnId, index: usize) {
        loop {
            let Some(released) = self.workers[shard].output(id) else {
                return;
            };
            let bytes = released.bytes().to_vec();
            if bytes.is_empty() {
                self.workers[shard].hold_watch(id);
                break;
            }
            // Now and then the client reads a part alone.
            let most = if self.calm || self.random(4) > 0 {
                bytes.len()
            } else {
                1 + self.random(bytes.len())
            };
            self.workers[shard].sent(id, most);
            self.clients[index]
                .received
                .extend_from_slice(&bytes[..most]);
            if most < bytes.len() {
                self.awake.insert((shard, id));
                break;
            }
        }
        let client = &mut self.clients[index];
        while let Some((request, words, reply)) = client.next_reply() {
            self.machine
                .oracle
                .answered((id.client, request), &words, &reply);
        }
    }

    fn connect(&mut self) {
        let shard = self.random(self.workers.len());
        self.machine.next_client += 1;
        let ends = (Address::loopback(1), Address::loopback(2));
        let record = Record::new(self.machine.next_client, shard, ends, 0, 0);
        let conn = self.workers[shard].connect(Arc::new(record));
        self.clients.push(Client::new(shard, conn));
    }

    fn disconnect(&mut self, index: usize) {
        let client = self.clients.remove(index);
        self.workers[client.shard].disconnect(client.conn);
        self.after(client.shard);
    }

    // ---- steps -------------------------------------------------------------------------------

    /// Does something that could happen next. Says what is to be done with the server as a whole;
    /// nothing while a checkpoint runs.
    pub fn step(&mut self) -> Option<Wish> {
        let shard = self.random(self.workers.len());
        match self.random(1_000) {
            0..250 => drop(self.deliver(shard)),
            250..480 => {
                let awake = self.awake.len().max(1);
                let nth = self.random(awake);
                if let Some(&(shard, id)) = self.awake.iter().nth(nth) {
                    self.awake.remove(&(shard, id));
                    self.poll(shard, id);
                }
            }
            480..580 => drop(self.seal(shard)),
            580..660 => drop(self.commit()),
            660..680 => drop(self.read()),
            680..780 => self.tell_durable(shard),
            780..880 => self.client_sends(),
            880..920 => self.time_passes(),
            920..950 => drop(self.tick(shard)),
            950..958 if self.clients.len() < 6 => self.connect(),
            958..962 if !self.clients.is_empty() => {
                let index = self.random(self.clients.len());
                if self.random(2) == 0 {
                    self.disconnect(index);
                } else if let Some(conn) =
                    self.workers[self.clients[index].shard].conn(self.clients[index].conn)
                {
                    conn.eof = true;
                    self.awake
                        .insert((self.clients[index].shard, self.clients[index].conn));
                }
            }
            962..966 => self.disk_fails(),
            966..969 if !self.checkpointing => return Some(Wish::Checkpoint),
            972..980 => {
                self.take_wishes();
                if !self.checkpointing {
                    return self.pending.pop_front();
                }
            }
            980..1_000 => self.evict(shard),
            _ => {}
        }
        None
    }

    fn client_sends(&mut self) {
        if self.clients.is_empty() {
            return self.connect();
        }
        let index = self.random(self.clients.len());
        let now_ms = self.now_ms();
        let client = &mut self.clients[index];
        self.machine
            .generator
            .send(client, now_ms, &mut self.machine.random);
        self.awake.insert((client.shard, client.conn));
    }

    fn time_passes(&mut self) {
        match self.random(100) {
            0..80 => {
                let us = self.random(40_000) as u64;
                self.machine.advance_us(us);
            }
            80..95 => {
                let ms = self.random(2_000) as u64;
                self.machine.advance_us(ms * 1_000);
            }
            95..98 => {
                let ms = self.random(20_000) as i64 - 10_000;
                self.machine.clock.step_wall_ms(ms);
            }
            _ => self.machine.clock.suspend_ms(500),
        }
    }

    fn disk_fails(&mut self) {
        let nth = 1 + self.random(12) as u64;
        let disk = self.machine.disk.clone();
        match self.random(20) {
            0 => disk.fail_nth(Call::Sync, nth, ErrorKind::Other),
            1 => disk.fail_nth(Call::Write, nth, ErrorKind::Other),
            2..6 => {
                let bytes = self.random(3 * self.machine.segment_bytes as usize) as u64;
                disk.set_space(Some(disk.used_bytes() + bytes));
            }
            6..12 => disk.set_space(None),
            12 => self
                .machine
                .store
                .fail_next(StoreFault::FullAfter(nth as usize)),
            13 => self.machine.store.fail_next(StoreFault::FullAtFinish),
            14 => self.machine.store.fail_next(StoreFault::CrashBeforeFinish),
            15 => self.machine.store.fail_next(StoreFault::CrashAfterFinish),
            _ => {}
        }
    }

    /// A reader thread reads a key; which of them is first, nobody knows.
    fn read(&mut self) -> bool {
        let left = self.reads.lock().expect("one thread").len();
        if left == 0 {
            return false;
        }
        let nth = self.random(left);
        let (shard, read) = self.reads.lock().expect("one thread").swap_remove(nth);
        let cold = StoredKeys::new(self.machine.store.clone());
        let rows = read.perform(&cold, self.machine.seed);
        self.inboxes[shard].push_back(Message::Rows(rows));
        true
    }

    /// Memory is short.
    fn evict(&mut self, shard: usize) {
        let entries = [1, 5, 1_000][self.random(3)];
        if let Some(keyspace) = self.workers[shard].keyspace() {
            self.machine.oracle.counts.evicted += keyspace.evict(0, entries, true).entries;
        }
    }

    /// What connections asked of the server. True if there was anything.
    fn take_wishes(&mut self) -> bool {
        let wishes = std::mem::take(&mut *self.wishes.lock().expect("one thread"));
        let any = !wishes.is_empty();
        for wish in wishes {
            match wish {
                Control::Checkpoint(asker) => {
                    if let Some((shard, conn)) = asker {
                        // Told at once: the reply says nothing that is checked here.
                        self.inboxes[shard].push_back(Message::Done(conn, Ok(())));
                    }
                    self.pending.push_back(Wish::Checkpoint);
                }
                Control::Reload(asker) => self.pending.push_back(Wish::Reload(asker)),
                Control::Shutdown { no_save, asker } => {
                    self.pending.push_back(Wish::Stop { no_save, asker });
                }
                Control::Backup { .. } => {}
            }
        }
        any
    }

    /// Who comes to rest does not want to be stopped or recovered: that has failed.
    fn refuse_wishes(&mut self) {
        for wish in std::mem::take(&mut self.pending) {
            if let Wish::Reload(asker) | Wish::Stop { asker, .. } = wish {
                self.resume(asker, Err("not now".to_owned()));
            }
        }
    }

    // ---- the server as a whole ---------------------------------------------------------------

    /// No new commands; everything under way comes to its end and is durable.
    pub fn stand_still(&mut self) -> Result<(), String> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.come_to_rest();
        self.make_durable(self.log.last_lsn())
    }

    fn make_durable(&mut self, lsn: Lsn) -> Result<(), String> {
        self.log.request_sync();
        while self.dead.is_none() && self.log.durable_lsn() < lsn {
            self.commit();
        }
        self.dead.as_ref().map_or(Ok(()), |text| Err(text.clone()))
    }

    /// Everything in memory is as the store has it; the log has nothing behind the store.
    pub fn reload(&mut self) -> Result<(), String> {
        self.come_to_rest();
        // Before tokens are drawn: the reference draws them only if this succeeds.
        if !self.log.reserve_urgent(CEILING_BYTES) {
            return Err("no space".to_owned());
        }
        let store: Arc<dyn Store> = self.machine.store.clone();
        let meta = store.meta().expect("the store works").unwrap_or_default();
        let loaded = recovery::load(&store, &meta, self.plan, self.tokens.clone());
        let keyspaces = loaded.expect("what was stored can be read");
        let databases = keyspaces[0].databases().clone();
        let ceiling = Batch {
            reserved_bytes: CEILING_BYTES,
            ..first_batch((&self.tokens, &databases), &self.now)
        };
        let payload = Bytes::from(ceiling.parts.concat());
        self.log.append(ceiling);
        self.make_durable(self.log.last_lsn())?;
        self.machine.oracle.reloaded(payload);
        for (shard, keyspace) in keyspaces.into_iter().enumerate() {
            self.inboxes[shard].push_back(Message::Replace(keyspace));
        }
        self.come_to_rest();
        Ok(())
    }

    /// Ends the process, with everything on disk.
    pub fn stop(&mut self) -> Result<(), String> {
        self.come_to_rest();
        self.make_durable(self.log.last_lsn())?;
        self.machine.oracle.stopped(self.log.last_lsn());
        self.dead = Some("it was stopped".to_owned());
        Ok(())
    }

    /// Commands run again, and who asked is told.
    pub fn resume(&mut self, (shard, conn): (usize, ConnId), result: Result<(), String>) {
        self.shared.stopping.store(false, Ordering::SeqCst);
        self.inboxes[shard].push_back(Message::Done(conn, result));
        let conns = self
            .clients
            .iter()
            .map(|client| (client.shard, client.conn));
        self.awake.extend(conns);
    }

    // ---- rest --------------------------------------------------------------------------------

    /// Lets everything that is under way come to its end. Nobody may be left without a reply.
    pub fn settle(&mut self) {
        self.come_to_rest();
        for client in &mut self.clients {
            client.pass_over_silent();
            let waiting = client.asked.front().map(|words| words.concat());
            assert!(
                self.dead.is_some() || waiting.is_none(),
                "client {} never got a reply to {:?}",
                client.conn.client,
                waiting.map(|words| words.escape_ascii().to_string())
            );
        }
    }

    fn come_to_rest(&mut self) {
        self.calm = true;
        for round in 0..400 {
            let mut busy = self.take_wishes();
            if !self.shared.stopping.load(Ordering::SeqCst) {
                self.refuse_wishes();
            }
            for shard in 0..self.workers.len() {
                while self.deliver(shard) {
                    busy = true;
                }
                busy |= self.seal(shard);
            }
            while self.commit() {
                busy = true;
            }
            while self.read() {
                busy = true;
            }
            if self.dead.is_some() {
                return;
            }
            for shard in 0..self.workers.len() {
                self.tell_durable(shard);
            }
            for (shard, id) in std::mem::take(&mut self.awake) {
                busy = true;
                self.poll(shard, id);
            }
            if !busy {
                // What waits for a tick, or for the witness of an idle log.
                self.machine.advance_us(30_000);
                let mut complete = true;
                for shard in 0..self.workers.len() {
                    complete &= self.tick(shard);
                }
                if complete && round > 60 {
                    break;
                }
            }
        }
        self.calm = false;
    }

    /// The disk works, and has space; so has memory.
    pub fn heal(&mut self) {
        let unbounded = self.shared.settings.config_set(&[(b"maxmemory", b"0")]);
        unbounded.expect("it can be set");
        self.machine.disk.set_space(None);
    }

    /// Asks for everything, over a connection of its own.
    pub fn audit(&mut self) {
        if self.dead.is_none() {
            self.settle();
        }
        if self.dead.is_some() {
            return;
        }
        self.connect();
        let client = self.clients.last_mut().expect("just connected");
        for database in 0..DATABASES {
            client.ask_line(&format!("SELECT {database}"));
            client.ask_line("DBSIZE");
            for key in &self.machine.generator.keys {
                for command in [
                    "TYPE",
                    "GET",
                    "PEXPIRETIME",
                    "GETSTATE",
                    "HGETALL",
                    "STRLEN",
                ] {
                    client.ask(vec![command.as_bytes().to_vec(), key.clone()]);
                }
            }
            client.ask_line("DBSIZE");
        }
        self.awake.insert((client.shard, client.conn));
        self.settle();
    }

    /// Every deadline passes; every key that has one is gone, without anybody asking for it.
    pub fn let_deadlines_pass(&mut self) {
        self.machine.advance_us(3_600_000_000);
        self.settle();
        self.check_tables();
        self.audit();
        self.check_tables();
    }

    fn check_tables(&mut self) {
        if self.dead.is_some() {
            return;
        }
        let now_ms = self.now_ms();
        let workers = self.workers.iter_mut();
        let keyspaces = workers.map(|worker| {
            let keyspace = worker.keyspace().expect("at home");
            // What is compared is what is in memory.
            keyspace.wake_everything().expect("the store works");
            &**keyspace
        });
        self.machine.oracle.check_tables(now_ms, keyspaces);
    }

    /// The end of the process; the machine stays.
    pub fn die(self) -> Machine {
        let World { machine, .. } = self;
        sim::take_events();
        let mut machine = machine;
        machine.oracle.end();
        machine
    }

    pub fn set_checkpointing(&mut self, running: bool) {
        self.checkpointing = running;
    }
}

impl Shards for Reach {
    fn count(&self) -> usize {
        self.0.borrow().workers.len()
    }

    fn ask(&self, shard: usize, step: SweepStep) -> Result<SweepSlice, String> {
        let (answer, answered) = channel();
        let message = Message::Sweep(step, answer);
        let mut world = self.0.borrow_mut();
        world.inboxes[shard].push_back(message);
        for _ in 0..100_000 {
            match answered.try_recv() {
                Ok(slice) => return Ok(slice),
                Err(TryRecvError::Empty) if world.dead.is_none() => drop(world.step()),
                Err(_) => return Err("the server is dead".to_owned()),
            }
        }
        panic!("shard {shard} never answered a checkpoint");
    }

    fn tell(&self, _shard: usize, _conn: ConnId, _result: Result<(), String>) {}

    fn wait_durable(&self, log: &Log, lsn: u64) -> Result<(), String> {
        let mut world = self.0.borrow_mut();
        log.request_sync();
        for _ in 0..100_000 {
            if world.dead.is_some() {
                return Err("the server is dead".to_owned());
            }
            if log.durable_lsn() >= lsn {
                return Ok(());
            }
            world.step();
        }
        panic!("lsn {lsn} never became durable");
    }
}

/// How the machine loses its server.
pub fn lose(machine: &mut Machine) -> &'static str {
    let (keep, name) = match machine.random.random_range(0..12) {
        0..3 => (Keep::Nothing, "power, nothing unsynced kept"),
        3..6 => (Keep::Some, "power, some kept"),
        6..8 => (Keep::Torn, "power, torn sectors"),
        8 => (Keep::Everything, "power, everything kept"),
        _ => {
            machine.disk.kill();
            return "kill";
        }
    };
    machine.disk.crash(keep);
    name
}
