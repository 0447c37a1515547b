//! The core of a shard thread: it owns a shard and serves a share of the connections. No I/O, no
//! threads, no clock of its own: bytes, messages, positions and times come in, and bytes that may
//! be sent, messages and positions to wait for go out. [`runner`] puts it on a thread with sockets;
//! the simulator drives it by hand.
//!
//! Always true: a connection's requests run in order, its replies leave in order, and none before
//! what it saw is durable; while the shard is lent, everything that needs it waits in one order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::clock::Clock;
use crate::config::{AppendFsync, Reader};
use crate::keyspace::codec::BatchBuilder;
use crate::keyspace::owned::KeyspaceStats;
use crate::keyspace::{Keyspace, Wait, Warmed};
use crate::limits::LOG_BLOCK_BYTES;
use crate::log::{Batch, Log, SyncMode, alone_bytes};
use crate::metrics::ShardMetrics;
use crate::resp::pipeline::Pipeline;
use crate::route::Routes;
use crate::session::{Client, Session, Shared};
use crate::shard::mailbox::{Answers, ConnId, Message, ShardId};
use crate::shard::{Room, Space};
use crate::sim;
use crate::worker::conn::{Conn, Place, Resting};
use crate::worker::input_gate::{InputGate, ReadSink};
use crate::worker::lending::{Coordinator, Held};
use crate::worker::sweep::Sweeping;
use crate::worker::table::Table;
use crate::worker::waits::Waits;

mod blocks;
pub mod conn;
pub mod input_gate;
#[cfg(test)]
mod input_gate_field_tests;
#[cfg(test)]
mod input_gate_tests;
mod lending;
#[cfg(test)]
mod lending_tests;
#[cfg(test)]
mod memory_tests;
mod messages;
mod requests;
mod residency;
pub mod runner;
pub(crate) mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod waits;

/// What a thread asks of the server as a whole.
#[derive(Debug)]
pub enum Control {
    /// A checkpoint; tell the connection when it has finished.
    Checkpoint(Option<(ShardId, ConnId)>),
    /// Stop; tell the connection if that fails.
    Shutdown {
        /// Without a last checkpoint.
        no_save: bool,
        /// Who asked.
        asker: (ShardId, ConnId),
    },
    /// Copy the data folder, and tell the connection.
    Backup {
        /// The new folder.
        target: std::path::PathBuf,
        /// Who asked.
        asker: (ShardId, ConnId),
    },
    /// Forget everything in memory and recover in place.
    Reload((ShardId, ConnId)),
}

/// Where `Control` goes.
pub type ControlSink = Arc<dyn Fn(Control) + Send + Sync>;

/// What a worker is made from.
pub struct Parts {
    /// Number of the shard and its thread.
    pub id: ShardId,
    /// Division of slots.
    pub routes: Routes,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// The commit log.
    pub log: Log,
    /// The clock.
    pub clock: Clock,
    /// The shard.
    pub keyspace: Box<Keyspace>,
    /// Where wishes to the server go.
    pub control: ControlSink,
    /// Where reads of keys that hibernate go; without it, commands wait for the disk.
    pub reads: Option<ReadSink>,
    /// Hash seed of the data folder.
    pub seed: u64,
}

/// The core of a shard thread.
pub struct Worker {
    id: ShardId,
    routes: Routes,
    shared: Arc<Shared>,
    settings: Reader,
    metrics: Arc<ShardMetrics>,
    log: Log,
    clock: Clock,
    control: ControlSink,
    /// The shard; away while lent.
    keyspace: Option<Box<Keyspace>>,
    conns: Table<Place>,
    /// Places that were ever used.
    places: u32,
    /// Places of the connections that do not rest, and maybe others.
    awake_conns: Vec<u32>,
    /// When connections were last looked at that could rest.
    rested_ms: u64,
    free: Vec<u32>,
    /// Requests of the connection whose requests run.
    pipeline: Pipeline,
    /// What was computed of their keys.
    warmed: Vec<Option<Warmed>>,
    /// The same of the request that runs.
    next_warmed: Option<Warmed>,
    /// Connections with replies that wait for the running turn.
    turn_conns: Vec<ConnId>,
    /// Replies for other threads, made in this turn.
    answers: Vec<(ShardId, ConnId, Answers)>,
    /// Lines for monitors, made in this turn.
    monitor_lines: Vec<(Bytes, Wait)>,
    outbox: Vec<(ShardId, Message)>,
    /// Connections that something happened to.
    attention: Vec<ConnId>,
    /// Positions that held replies wait for.
    gate_waits: Waits,
    /// Positions that WAITAOF waits for.
    durable_waits: BinaryHeap<Reverse<(u64, ConnId)>>,
    /// Messages that wait for the shard to come home, or for room in the log.
    waiting: VecDeque<Message>,
    /// Connections that wait for the same.
    waiting_conns: Vec<ConnId>,
    /// Connections that wait until CLIENT PAUSE ends, or for a timeout.
    timed_conns: Vec<ConnId>,
    /// Calls that may still be on their way to each shard.
    credit: Vec<usize>,
    /// Connections that wait for credit.
    credit_conns: Vec<ConnId>,
    /// What this turn needs several shards for; asked for when it ends.
    gathered: Vec<Coordinator>,
    coordinators: HashMap<u64, Coordinator>,
    /// Who asked for this thread's shard, and the coordinator there.
    lends: VecDeque<(ShardId, u64)>,
    /// The shard waits at home for a coordinator of this thread; nobody else gets it.
    set_aside: bool,
    /// Shards that a running coordinator has.
    held: Option<Held>,
    /// Coordinators that wait for room in the log.
    stalled: Vec<u64>,
    next_ticket: u64,
    allowance: Allowance,
    /// Something waits for room in the log.
    wants_space: bool,
    sweeping: Option<Sweeping>,
    input_gate: InputGate,
    /// Over the memory bound, and nothing can be evicted.
    short_of_memory: bool,
    /// Entries that eviction passed since it found one.
    evicted_in_vain: usize,
    monitors: Vec<ConnId>,
    /// What the metrics know of the keyspace's statistics.
    told: KeyspaceStats,
    now_ms: u64,
    last_ns: u64,
    sleep_us: u64,
    random: u64,
}

/// Room in the log that was reserved and not yet used.
struct Allowance {
    log: Log,
    left: u64,
    used: u64,
}

/// A connection rests after so long without use, in ms: soon, so that many that come one after the
/// other take turns with what a connection in use needs.
const REST_MS: u64 = 25;
/// Bytes that logging an expired key takes, roughly.
const EXPIRY_EFFECT_BYTES: u64 = 128;
/// What a record takes beside its payload, at most: headers, and padding to whole blocks.
const RECORD_BYTES: u64 = 2 * LOG_BLOCK_BYTES;
/// Entries that are passed per tick to clean up behind deleted keys, and while memory is short: a
/// fraction of a millisecond.
const RECLAIM_ENTRIES: usize = 8 * 1024;
const RECLAIM_ENTRIES_SHORT: usize = 32 * 1024;
/// Room is reserved in pieces of at least so many bytes.
const RESERVE_BYTES: u64 = 64 * 1024;
/// More unused room than this goes back.
const ALLOWANCE_BYTES_MAX: u64 = 256 * 1024;

impl Space for Allowance {
    fn take(&mut self, bytes: u64, urgent: bool) -> Room {
        // The first of a turn takes what a record needs beside its payload.
        let bytes = match self.used {
            0 => bytes.saturating_add(RECORD_BYTES),
            _ => bytes,
        };
        let room = self.obtain(bytes, urgent);
        if room == Room::Granted {
            self.left -= bytes;
            self.used += bytes;
        }
        room
    }

    fn give_back(&mut self, bytes: u64) {
        self.used -= bytes;
        self.left += bytes;
    }
}

impl Allowance {
    /// Sees that there are so many bytes left.
    fn obtain(&mut self, bytes: u64, urgent: bool) -> Room {
        if bytes > self.left {
            let more = (bytes - self.left).max(RESERVE_BYTES);
            match self.log.try_reserve(more, urgent) {
                crate::log::Reserve::Granted => self.left += more,
                crate::log::Reserve::Busy => return Room::Later,
                // A smaller piece may still fit.
                crate::log::Reserve::Full => {
                    let exact = bytes - self.left;
                    match self.log.try_reserve(exact, urgent) {
                        crate::log::Reserve::Granted => self.left += exact,
                        crate::log::Reserve::Busy => return Room::Later,
                        crate::log::Reserve::Full => return Room::None,
                    }
                }
            }
        }
        Room::Granted
    }

    /// The room for a batch of `bytes`, from what its commands took: of a whole record, which it
    /// gets if nobody else writes.
    fn hand_over(&mut self, bytes: u64) -> u64 {
        let bytes = alone_bytes(bytes);
        let held = self.left + self.used;
        self.used = 0;
        if bytes > held {
            // Expiry and the like did not ask: take what is set aside for them.
            let more = bytes - held;
            self.left = 0;
            return if self.log.reserve_urgent(more) {
                bytes
            } else {
                held
            };
        }
        self.left = held - bytes;
        if self.left > ALLOWANCE_BYTES_MAX {
            self.log.unreserve(self.left - RESERVE_BYTES);
            self.left = RESERVE_BYTES;
        }
        bytes
    }
}

impl Worker {
    /// A worker with its shard and no connections.
    pub fn new(parts: Parts) -> Worker {
        let settings = parts.shared.settings.reader();
        let metrics = parts.shared.metrics.shards()[parts.id].clone();
        let mailbox = parts.shared.settings.settings().mailbox_calls_max;
        let shards = parts.routes.shards();
        let allowance = Allowance {
            log: parts.log.clone(),
            left: 0,
            used: 0,
        };
        let mut worker = Worker {
            id: parts.id,
            routes: parts.routes,
            shared: parts.shared,
            settings,
            metrics,
            log: parts.log,
            clock: parts.clock,
            control: parts.control,
            keyspace: Some(parts.keyspace),
            conns: Table::new(),
            places: 0,
            awake_conns: Vec::new(),
            rested_ms: 0,
            free: Vec::new(),
            pipeline: Pipeline::default(),
            warmed: Vec::new(),
            next_warmed: None,
            turn_conns: Vec::new(),
            answers: Vec::new(),
            monitor_lines: Vec::new(),
            outbox: Vec::new(),
            attention: Vec::new(),
            gate_waits: Waits::default(),
            durable_waits: BinaryHeap::new(),
            waiting: VecDeque::new(),
            waiting_conns: Vec::new(),
            timed_conns: Vec::new(),
            credit: vec![(mailbox / shards).max(1); shards],
            credit_conns: Vec::new(),
            gathered: Vec::new(),
            coordinators: HashMap::new(),
            lends: VecDeque::new(),
            set_aside: false,
            held: None,
            stalled: Vec::new(),
            next_ticket: 0,
            allowance,
            wants_space: false,
            sweeping: None,
            input_gate: InputGate::new(parts.reads),
            short_of_memory: false,
            evicted_in_vain: 0,
            monitors: Vec::new(),
            told: KeyspaceStats::default(),
            now_ms: 0,
            last_ns: 0,
            sleep_us: 0,
            random: parts.seed | 1,
        };
        if let Some(mut keyspace) = worker.keyspace.take() {
            worker.gate_keyspace(&mut keyspace);
            worker.keyspace = Some(keyspace);
        }
        worker.begin_turn();
        worker
    }

    /// Reads the clock: once per turn.
    pub fn begin_turn(&mut self) {
        self.now_ms = self.clock.now_ms();
        self.last_ns = self.clock.now_ns();
        let settings = self.settings.current();
        if let Some(keyspace) = &mut self.keyspace {
            keyspace.set_now_ms(self.now_ms);
            let limits = (
                settings.hash_max_listpack_entries,
                settings.hash_max_listpack_value_bytes,
            );
            keyspace.set_listpack_limits(limits.0, limits.1);
        }
    }

    // ---- connections -------------------------------------------------------------------------

    /// A new connection.
    pub fn connect(&mut self, client: Arc<Client>) -> ConnId {
        let authenticated = self.settings.current().requirepass.is_empty();
        let index = self.free.pop().unwrap_or_else(|| {
            self.places += 1;
            self.places - 1
        });
        let id = ConnId {
            index,
            client: client.id,
        };
        let session = Session::new(client.clone(), authenticated);
        self.conns
            .set(index, Place::Resting(Resting::new(&session)));
        self.metrics.connections.raise(1);
        self.shared.clients.add(client);
        id
    }

    /// The connection is gone; what it started elsewhere ends by itself.
    pub fn disconnect(&mut self, id: ConnId) {
        let Some(mut conn) = self.take(id) else {
            return;
        };
        self.forget_watches(&mut conn);
        if let Some(fetch) = conn.fetch {
            self.release(fetch);
        }
        self.give_up_behind(id);
        if conn.session.monitor {
            self.end_monitor(id);
        }
        self.free.push(id.index);
        self.metrics.connections.lower(1);
        self.shared.clients.remove(id.client);
    }

    fn take(&mut self, id: ConnId) -> Option<Box<Conn>> {
        self.awake(id)?.take_busy()
    }

    /// The place of a connection, if it is still there.
    fn place(&mut self, id: ConnId) -> Option<&mut Place> {
        let place = self.conns.get_mut(id.index)?;
        (place.client_id() == Some(id.client)).then_some(place)
    }

    /// The same; the connection rests no more.
    fn awake(&mut self, id: ConnId) -> Option<&mut Place> {
        let place = self.conns.get_mut(id.index)?;
        if place.client_id() != Some(id.client) {
            return None;
        }
        if place.wake(id.index) {
            self.awake_conns.push(id.index);
        }
        Some(place)
    }

    fn put_back(&mut self, conn: Box<Conn>) {
        if let Some(place) = self.conns.get_mut(conn.id.index) {
            *place = Place::Busy(conn);
        }
    }

    /// The connection, if it is still there.
    pub fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.awake(id)?.busy()
    }

    /// The connection, if it is still there and does not rest.
    fn busy(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.place(id)?.busy()
    }

    /// The record of a connection's client.
    pub fn client(&mut self, id: ConnId) -> Option<Arc<Client>> {
        self.place(id)?.client().cloned()
    }

    /// Whether a request that was read waits to be run.
    pub fn has_input(&mut self, id: ConnId) -> bool {
        self.busy(id).is_some_and(|conn| conn.has_input())
    }

    /// Whether there is something to do for a connection before its client sends more, or the disk
    /// releases more.
    pub fn has_work(&mut self, id: ConnId) -> bool {
        let place = self.place(id);
        place.is_none_or(|place| place.busy().is_some_and(|conn| !conn.is_idle()))
    }

    /// Whether a connection is gone or can be closed: it is closing, and everything was sent.
    pub fn is_done(&mut self, id: ConnId) -> bool {
        match self.place(id) {
            None => true,
            Some(place) => place.busy().is_some_and(|conn| conn.is_done()),
        }
    }

    /// Whether a connection waits for something, or shows what others do.
    pub fn is_waiting(&mut self, id: ConnId) -> bool {
        let waits = |conn: &mut Conn| conn.session.monitor || conn.is_busy();
        self.busy(id).is_some_and(waits)
    }

    /// Whether a connection rests.
    #[cfg(test)]
    fn rests(&mut self, id: ConnId) -> bool {
        matches!(self.place(id), Some(Place::Resting(_)))
    }

    /// Lets connections rest that were not used for a while.
    fn rest_conns(&mut self) {
        if self.now_ms < self.rested_ms.saturating_add(REST_MS) {
            return;
        }
        self.rested_ms = self.now_ms;
        let since_ms = self.now_ms.saturating_sub(REST_MS);
        // A place may have been given up and woken again.
        self.awake_conns.sort_unstable();
        self.awake_conns.dedup();
        let conns = &mut self.conns;
        self.awake_conns.retain(|index| {
            let place = conns.get_mut(*index);
            place.is_some_and(|place| place.rest(since_ms))
        });
    }

    /// Ids of all connections.
    pub fn conn_ids(&self) -> Vec<ConnId> {
        let id = |(index, place): (u32, &Place)| {
            let client = place.client_id()?;
            Some(ConnId { index, client })
        };
        self.conns.iter().filter_map(id).collect()
    }

    /// Whether the runner should read from its socket.
    pub fn may_read(&mut self, id: ConnId) -> bool {
        let stopping = self.shared.stopping.load(Ordering::Relaxed);
        let place = self.place(id).filter(|_| !stopping);
        place.is_some_and(|place| place.busy().is_none_or(|conn| conn.may_read()))
    }

    /// Released bytes of a connection.
    pub fn output(&mut self, id: ConnId) -> Option<crate::conn::gate::Released<'_>> {
        self.adopt_sync_mode();
        let released_lsn = self.log.released_lsn();
        Some(self.busy(id)?.queue.gate().release(released_lsn))
    }

    /// So many released bytes were sent.
    pub fn sent(&mut self, id: ConnId, bytes: usize) {
        self.metrics.net_output_bytes.add(bytes as u64);
        if let Some(conn) = self.conn(id) {
            conn.queue.gate().sent(bytes);
        }
    }

    /// Makes sure that the connection is looked at again when its next held bytes are released.
    pub fn hold_watch(&mut self, id: ConnId) {
        if let Some(mut conn) = self.take(id) {
            self.watch_gate(&mut conn);
            self.put_back(conn);
        }
    }

    /// Gives a client up that does not read what it asked for.
    ///
    /// # Errors
    /// It has to be closed.
    pub fn check_unread(&mut self, id: ConnId) -> std::io::Result<()> {
        // Who monitors is an ordinary client, as in Redis.
        let limit = self.settings.current().client_output_buffer.normal;
        let unread = self.conn(id).map_or(0, |conn| conn.queue.unread_bytes());
        if unread as u64 <= limit.hard_bytes_effective() {
            return Ok(());
        }
        self.metrics.output_buffer_disconnections.add(1);
        tracing::warn!(
            "client {} is closed: {unread} bytes that it does not read",
            id.client
        );
        Err(std::io::ErrorKind::OutOfMemory.into())
    }

    /// Makes sure that the connection is told when the running turn is queued.
    fn wait_for_turn(&mut self, conn: &mut Conn) {
        if !conn.in_turn && conn.queue.waits_for_turn() {
            conn.in_turn = true;
            self.turn_conns.push(conn.id);
        }
    }

    /// Makes sure that the connection is looked at when its next held bytes are released.
    fn watch_gate(&mut self, conn: &mut Conn) {
        let Some(lsn) = conn.queue.gate().next_lsn() else {
            return;
        };
        if conn.gate_lsn != lsn {
            conn.gate_lsn = lsn;
            conn.held_since_ns = self.last_ns;
            self.metrics.gate_replies.raise(1);
            self.gate_waits.add(lsn, conn.id);
        }
    }

    // ---- the turn ----------------------------------------------------------------------------

    /// Whether the turn has something to hand over.
    pub fn wants_seal(&self) -> bool {
        !self.answers.is_empty()
            || !self.monitor_lines.is_empty()
            || !self.gathered.is_empty()
            || self.keyspace.as_ref().is_some_and(|keyspace| {
                let read = |stats: KeyspaceStats| (stats.woken, stats.woken_fields);
                // What keys and fields the turn read from the store may have to make room again.
                keyspace.has_effects() || read(keyspace.stats()) > read(self.told)
            })
    }

    /// Ends the turn: queues its effects in the log, and lets go what waited for their position.
    pub fn seal(&mut self) {
        self.metrics.turns.add(1);
        self.adopt_sync_mode();
        let effects = self
            .keyspace
            .as_mut()
            .filter(|keyspace| keyspace.has_effects());
        if let Some(keyspace) = effects {
            let mut batch = BatchBuilder::with_room(keyspace.turn().batch_bytes());
            keyspace.seal(&mut batch);
            let lsn = append(
                &self.log,
                batch.finish(),
                keyspace.now_ms(),
                &mut self.allowance,
            );
            keyspace.sealed(lsn);
            if keyspace.sync_wanted() {
                self.log.request_sync();
            }
            self.metrics.batches.add(1);
            self.sealed(lsn);
        }
        self.make_room();
        for (to, conn, answers) in std::mem::take(&mut self.answers) {
            self.outbox.push((
                to,
                Message::Answers {
                    from: self.id,
                    conn,
                    answers,
                },
            ));
        }
        for (line, wait) in std::mem::take(&mut self.monitor_lines) {
            // A command without effects: whatever was queued before it.
            let wait = Wait::lsn(wait.sealed_at(self.log.last_lsn()));
            for shard in 0..self.routes.shards() {
                self.outbox
                    .push((shard, Message::Monitor(line.clone(), wait)));
            }
        }
        self.ask_for_shards();
        self.publish();
    }

    /// Tells the log how replies wait, where that was set. What was set is true of the next write,
    /// so the log knows before anybody hears that it was set.
    fn adopt_sync_mode(&mut self) {
        let mode = sync_mode(self.settings.current().appendfsync);
        if self.log.sync_mode() != mode {
            self.log.set_sync(mode);
        }
    }

    /// What waited for the turn waits for `lsn` now.
    fn sealed(&mut self, lsn: u64) {
        for id in std::mem::take(&mut self.turn_conns) {
            if let Some(mut conn) = self.take(id) {
                conn.in_turn = false;
                conn.sealed(lsn);
                self.watch_gate(&mut conn);
                if conn.more {
                    self.attention.push(id);
                }
                self.put_back(conn);
            }
        }
        for (_, _, answers) in &mut self.answers {
            for (_, _, wait) in &mut answers.ends {
                *wait = Wait::lsn(wait.sealed_at(lsn));
            }
        }
        for (_, wait) in &mut self.monitor_lines {
            *wait = Wait::lsn(wait.sealed_at(lsn));
        }
    }

    /// Tells the metrics what they show of this shard.
    pub(super) fn publish(&mut self) {
        let Some(keyspace) = &self.keyspace else {
            return;
        };
        let (stats, told) = (keyspace.stats(), self.told);
        self.metrics
            .keyspace_hits
            .add(stats.hits.saturating_sub(told.hits));
        self.metrics
            .keyspace_misses
            .add(stats.misses.saturating_sub(told.misses));
        self.metrics
            .expired_keys
            .add(stats.expired.saturating_sub(told.expired));
        self.metrics
            .evicted_keys
            .add(stats.evicted.saturating_sub(told.evicted));
        self.metrics
            .woken_keys
            .add(stats.woken.saturating_sub(told.woken));
        self.metrics
            .woken_fields
            .add(stats.woken_fields.saturating_sub(told.woken_fields));
        self.told = stats;
        let mut keys = 0;
        for (number, &id) in keyspace.databases().ids().iter().enumerate() {
            let count = keyspace.tables().count_db(id);
            keys += count;
            // Hints are at least the deadlines there are.
            let deadlines = (keyspace.deadline_hints() as u64).min(count);
            self.shared.keyspace.set(self.id, number, count, deadlines);
        }
        self.metrics.keys.set(keys);
        self.metrics.resident_keys.set(keyspace.tables().live());
        self.metrics
            .resident_bytes
            .set((keyspace.tables().bytes() + keyspace.bytes_besides_tables()) as u64);
    }

    /// The log is durable up to here: held replies may go.
    pub fn durable(&mut self) {
        let durable_lsn = self.log.durable_lsn();
        let released_lsn = self.log.released_lsn();
        if let Some(keyspace) = &mut self.keyspace {
            keyspace.durable(durable_lsn);
        }
        while let Some(id) = self.gate_waits.take(released_lsn) {
            let now_ns = self.last_ns;
            self.metrics.gate_replies.lower(1);
            let held_since_ns = self.conn(id).map(|conn| {
                conn.gate_lsn = 0;
                conn.held_since_ns
            });
            if let Some(since_ns) = held_since_ns {
                self.metrics
                    .record_gate_wait(now_ns.saturating_sub(since_ns));
                self.attention.push(id);
            }
        }
        while let Some(Reverse((lsn, id))) = self.durable_waits.peek().copied() {
            if lsn > durable_lsn {
                break;
            }
            self.durable_waits.pop();
            self.finish_wait(id, false);
        }
    }

    /// The position that this thread wants to be woken for.
    pub fn wanted_lsn(&self) -> Option<u64> {
        let gate = self.gate_waits.first();
        // Where replies do not wait for the disk, a sync is noticed at the next tick.
        let waits = self.log.released_lsn() != u64::MAX;
        let durable = self
            .durable_waits
            .peek()
            .map(|Reverse((lsn, _))| *lsn)
            .filter(|_| waits);
        match (gate, durable) {
            (Some(gate), Some(durable)) => Some(gate.min(durable)),
            (one, other) => one.or(other),
        }
    }

    /// Room in the log may be there again.
    pub fn space_changed(&mut self) {
        self.wants_space = false;
        let stalled = std::mem::take(&mut self.stalled);
        for ticket in stalled {
            self.run_coordinator(ticket);
        }
        self.go_on();
    }

    /// Whether something waits for room in the log.
    pub fn wants_space(&self) -> bool {
        self.wants_space
    }

    /// The shard is here: lets everything go on that waited for it, connections first, so that a
    /// stream of lendings does not starve them.
    fn go_on(&mut self) {
        self.attention.append(&mut self.waiting_conns);
        self.drain_waiting();
    }

    /// Time passes: expiry and timeouts. `budget` bounds the expired keys.
    pub fn tick(&mut self, budget: usize) -> bool {
        let mut complete = true;
        if let Some(keyspace) = &mut self.keyspace {
            let due = keyspace
                .next_deadline_ms()
                .is_some_and(|at_ms| at_ms <= self.now_ms);
            let bytes = budget as u64 * EXPIRY_EFFECT_BYTES;
            // Without room for its effects expiry waits; commands do not see what is past its time.
            // While the server stands still nothing may change.
            let due = due && !self.shared.stopping.load(Ordering::Relaxed);
            if due && self.allowance.take(bytes, true) == Room::Granted {
                complete = keyspace.expire(budget);
                self.allowance.give_back(bytes);
            }
            self.input_gate.follow_expiry(self.id, keyspace);
            let entries = if self.short_of_memory {
                RECLAIM_ENTRIES_SHORT
            } else {
                RECLAIM_ENTRIES
            };
            keyspace.tables_mut().reclaim(entries);
            let dropped = keyspace.take_dropped();
            if !dropped.is_empty() {
                // Freeing millions of keys takes a while; nobody waits for it.
                let freeing = std::thread::Builder::new().name("free".into());
                let _ = freeing.spawn(move || drop(dropped));
            }
        }
        self.rest_conns();
        self.make_room();
        complete &= !self.more_room_at_hand();
        self.check_timed();
        self.publish();
        complete
    }

    /// When `tick` is needed next, ms since the Unix epoch.
    pub fn next_tick_ms(&self) -> Option<u64> {
        let expiry = self
            .keyspace
            .as_ref()
            .and_then(|keyspace| keyspace.next_deadline_ms());
        let timed = (!self.timed_conns.is_empty()).then_some(self.now_ms + 10);
        match (expiry, timed) {
            (Some(expiry), Some(timed)) => Some(expiry.min(timed)),
            (one, other) => one.or(other),
        }
    }

    /// The turn's time, ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Messages for other threads (and this one), in order.
    pub fn take_outbox(&mut self) -> Vec<(ShardId, Message)> {
        std::mem::take(&mut self.outbox)
    }

    /// Connections to look at.
    pub fn take_attention(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.attention)
    }

    /// How long DEBUG SLEEP wants this thread to stand still, in microseconds.
    pub fn take_sleep_us(&mut self) -> u64 {
        std::mem::take(&mut self.sleep_us)
    }

    /// Whether nothing is under way here any more: no coordinator, no message, shard at home.
    pub fn is_quiet(&self) -> bool {
        self.may_end() && self.input_gate.is_quiet()
    }

    /// The same, but for what waits for keys: it has not begun, and need not.
    pub fn may_end(&self) -> bool {
        self.coordinators.is_empty()
            && self.gathered.is_empty()
            && self.lends.is_empty()
            && self.waiting.is_empty()
            && self.keyspace.is_some()
            && self.outbox.is_empty()
    }

    /// The shard, when it is at home.
    pub fn keyspace(&mut self) -> Option<&mut Box<Keyspace>> {
        self.keyspace.as_mut()
    }
}

/// How `appendfsync` is spelled in the log.
pub(crate) fn sync_mode(setting: AppendFsync) -> SyncMode {
    match setting {
        AppendFsync::Always => SyncMode::Always,
        AppendFsync::Everysec => SyncMode::EverySec,
        AppendFsync::No => SyncMode::No,
    }
}

/// Queues a batch in the log.
fn append(log: &Log, parts: Vec<Bytes>, time_ms: u64, allowance: &mut Allowance) -> u64 {
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    let reserved_bytes = allowance.hand_over(bytes as u64);
    let payload = sim::payload(&parts);
    let lsn = log.append(Batch {
        parts,
        time_ms,
        reserved_bytes,
    });
    sim::appended(lsn, payload);
    lsn
}
