//! The input gate of a thread: what waits for keys that hibernate, while other keys go on.
//!
//! A command that finds a key asleep is taken back. Its keys are read by other threads, all at
//! once; then it runs again: a request of this thread's connection, calls from another thread, or
//! what a coordinator wanted to run on borrowed shards, which went home meanwhile.
//!
//! Always true: the keys of a fetch stay in memory until it is released. A connection runs nothing
//! while its request waits; calls of one connection run in their order, so those behind one that
//! waits stand in line behind it, and so does what it wants to run on borrowed shards. No shard is
//! lent while its keys are read. What waits is bounded: a connection waits with what it has read,
//! calls keep their credit, and a coordinator's connection waits for it.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::command::spec::{Needs, Words};
use crate::command::{Row, Run, table};
use crate::keyspace::Keyspace;
use crate::keyspace::deadlines::Hint;
use crate::keyspace::input_gate::{Hold, Name, Part, Read, Rows};
use crate::limits::FETCHED_AHEAD_MAX;
use crate::resp::decode::{Args, DecodeLimits, Decoded, Decoder};
use crate::route::ShardSet;
use crate::shard::mailbox::{Call, Calls, ConnId, Message, ShardId, Work};
use crate::worker::Worker;
use crate::worker::conn::{Barrier, Conn};
use crate::worker::lending::{Errand, Job};

/// Where reads go; what they find comes back as a message to the shard.
pub type ReadSink = Arc<dyn Fn(ShardId, Read) + Send + Sync>;

/// What waits for keys of this thread's shard, and what of this thread waits for other shards'.
#[derive(Default)]
pub(super) struct InputGate {
    /// Without one, commands read the store themselves.
    sink: Option<ReadSink>,
    fetches: HashMap<u64, Fetch>,
    /// By ticket of the read: who waits for it, in the order of their coming.
    reading: HashMap<u64, Vec<u64>>,
    /// Calls of a connection that wait, and the fetch that the first of them waits for.
    lines: HashMap<(ShardId, ConnId), (u64, Vec<Call>)>,
    /// What coordinators wanted to run.
    errands: HashMap<u64, Delayed>,
    /// The same, where calls of its connection stand in line that were before it.
    behind: HashMap<ConnId, (Errand, ShardSet)>,
    /// The last number of a fetch, a read, or an errand.
    last: u64,
}

/// Keys that somebody needs.
struct Fetch {
    whom: Whom,
    names: Vec<Name>,
    /// So many are still being read.
    left: usize,
}

#[derive(Clone, Copy)]
enum Whom {
    Conn(ConnId),
    Line(ShardId, ConnId),
    Coordinator {
        to: ShardId,
        ticket: u64,
    },
    /// Expiry.
    Due(Hint),
}

/// An errand whose keys are being fetched.
struct Delayed {
    errand: Errand,
    shards: ShardSet,
    /// So many shards still fetch.
    left: usize,
}

/// What a call needs of the hash at its first key.
fn parts_of(needs: Needs, args: Args<'_>) -> impl Iterator<Item = Part> {
    let (fields, all) = match needs {
        Needs::Nothing => (Words::default(), None),
        Needs::Fields(fields) => (fields, None),
        Needs::AllFields => (Words::default(), Some(Part::Fields)),
    };
    let fields = fields.each(args, 0).map(|name| Part::Field(name.into()));
    fields.chain(all)
}

impl InputGate {
    pub(super) fn new(sink: Option<ReadSink>) -> InputGate {
        InputGate {
            sink,
            ..InputGate::default()
        }
    }

    /// Whether nothing waits here but what is to expire.
    pub(super) fn is_quiet(&self) -> bool {
        let mut fetches = self.fetches.values();
        let expires = |fetch: &Fetch| matches!(fetch.whom, Whom::Due(_));
        fetches.all(expires)
            && self.lines.is_empty()
            && self.errands.is_empty()
            && self.behind.is_empty()
    }

    /// Lets those keys be read that are to expire, and those go that have expired.
    pub(super) fn follow_expiry(&mut self, shard: ShardId, keyspace: &mut Keyspace) {
        for hint in keyspace.take_due() {
            if let Some(sink) = &self.sink {
                sink(shard, Read::Due(hint));
            }
        }
        for id in keyspace.take_done() {
            self.release(id, keyspace);
        }
    }

    fn release(&mut self, id: u64, keyspace: &mut Keyspace) {
        if let Some(fetch) = self.fetches.remove(&id) {
            for name in &fetch.names {
                keyspace.let_go(name);
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Worker {
    /// A keyspace is this thread's from now on. Nobody waits for keys of the one before it.
    pub(super) fn gate_keyspace(&mut self, keyspace: &mut Keyspace) {
        if self.input_gate.sink.is_some() {
            keyspace.set_gated();
            self.input_gate.fetches.clear();
            self.input_gate.reading.clear();
        }
    }

    // ---- fetching ----------------------------------------------------------------------------

    /// Sees that keys come, and stay: with those of the fetch `id`, if there is one. Returns the
    /// fetch, and whether its keys are here.
    fn fetch(&mut self, id: Option<u64>, whom: Whom, names: Vec<Name>) -> (u64, bool) {
        let gate = &mut self.input_gate;
        let id = id.filter(|id| gate.fetches.contains_key(id));
        let id = id.unwrap_or_else(|| gate.next());
        let fetch = gate.fetches.remove(&id);
        let mut fetch = fetch.unwrap_or(Fetch {
            whom,
            names: Vec::new(),
            left: 0,
        });
        let keyspace = self.keyspace.as_mut();
        let keyspace = keyspace.expect("what is asleep was found in the shard");
        for name in names {
            let fresh = gate.next();
            let ticket = match keyspace.hold(&name, fresh) {
                Hold::Here => None,
                Hold::Reading(ticket) => Some(ticket),
                Hold::Read(read) => {
                    if let Some(sink) = &gate.sink {
                        sink(self.id, read);
                    }
                    Some(fresh)
                }
            };
            if let Some(ticket) = ticket {
                gate.reading.entry(ticket).or_default().push(id);
                fetch.left += 1;
            }
            fetch.names.push(name);
        }
        let here = fetch.left == 0;
        gate.fetches.insert(id, fetch);
        (id, here)
    }

    /// Nobody else ends a wait for keys that are here already.
    fn wake_if(&mut self, here: bool, id: u64) {
        if here {
            self.outbox.push((self.id, Message::Here(id)));
        }
    }

    /// What a fetch held is not needed any more.
    pub(super) fn release(&mut self, id: u64) {
        let Some(keyspace) = &mut self.keyspace else {
            self.waiting.push_back(Message::Release(id));
            return;
        };
        self.input_gate.release(id, keyspace);
    }

    /// What was read is here, and so is the shard.
    pub(super) fn rows(&mut self, rows: Rows) {
        let Some(keyspace) = &mut self.keyspace else {
            return;
        };
        let ticket = match rows {
            Rows::Key(ticket, name, found) => {
                keyspace.came(ticket, &name, found);
                ticket
            }
            Rows::Due(hint, found) => {
                let names = keyspace.due_came(hint, found);
                return self.fetch_due(hint, names);
            }
        };
        let waiting = self.input_gate.reading.remove(&ticket);
        for id in waiting.unwrap_or_default() {
            let Some(fetch) = self.input_gate.fetches.get_mut(&id) else {
                continue;
            };
            fetch.left -= 1;
            if fetch.left == 0 {
                self.fetched(id);
            }
        }
    }

    /// All keys of a fetch are here.
    pub(super) fn fetched(&mut self, id: u64) {
        let Some(fetch) = self.input_gate.fetches.get(&id) else {
            return;
        };
        match fetch.whom {
            Whom::Conn(conn) => self.run_fetched_request(conn, id),
            Whom::Line(from, conn) => self.run_line(from, conn, id),
            Whom::Coordinator { to, ticket } => self.outbox.push((
                to,
                Message::Fetched {
                    ticket,
                    shard: self.id,
                    fetch: id,
                },
            )),
            Whom::Due(hint) => {
                let keyspace = self.keyspace.as_mut();
                if !keyspace.is_some_and(|keyspace| keyspace.due_fetched(hint, &fetch.names, id)) {
                    self.release(id);
                }
            }
        }
    }

    /// Fetches keys that a deadline means; the next tick deletes them.
    fn fetch_due(&mut self, hint: Hint, names: Vec<Name>) {
        if names.is_empty() {
            return;
        }
        let (id, here) = self.fetch(None, Whom::Due(hint), names);
        if here {
            self.fetched(id);
        }
    }

    // ---- requests of this thread's connections -----------------------------------------------

    /// The connection's request has to wait for keys of this shard.
    pub(super) fn fetch_for_request(&mut self, conn: &mut Conn) {
        let names = self.take_wanted();
        let (id, here) = self.fetch(conn.fetch, Whom::Conn(conn.id), names);
        conn.fetch = Some(id);
        conn.barrier = Some(Barrier::Reading);
        self.wake_if(here, id);
    }

    fn run_fetched_request(&mut self, id: ConnId, fetch: u64) {
        if let Some(conn) = self.conn(id) {
            conn.barrier = None;
            self.resume_held(id);
        }
        let reads = |conn: &mut Conn| matches!(conn.barrier, Some(Barrier::Reading));
        if !self.conn(id).is_some_and(reads) {
            self.release(fetch);
            if let Some(conn) = self.conn(id) {
                conn.fetch = None;
            }
        }
    }

    /// What the last command wanted of this shard.
    fn take_wanted(&mut self) -> Vec<Name> {
        let keyspace = self.keyspace.as_mut();
        keyspace.map_or_else(Vec::new, |keyspace| keyspace.take_wanted())
    }

    /// A connection's request waits for keys: those of the requests behind it are read meanwhile.
    pub(super) fn fetch_ahead(&mut self, conn: &Conn, requests: &[u8], limits: &DecodeLimits) {
        let Some(id) = conn.fetch else {
            return;
        };
        let (mut decoder, mut at) = (Decoder::new(), 0);
        for number in 0..FETCHED_AHEAD_MAX {
            let consumed = match decoder.decode(&requests[at..], limits) {
                Ok(Decoded::Request { consumed }) => consumed,
                Ok(Decoded::Empty { consumed }) => {
                    at += consumed;
                    continue;
                }
                Ok(Decoded::Incomplete { .. }) | Err(_) => return,
            };
            let args = decoder.args(&requests[at..]);
            let Some(row) = table().find(args).ok().map(|row| table().row(row)) else {
                return;
            };
            if matches!(row.run, Run::Session(_)) {
                // What follows may be of another database, or of a block.
                return;
            }
            if self.routes.need(row, args).is_err() {
                // It is refused before it comes to its keys, and one of them may be too long.
                return;
            }
            if number > 0 {
                self.fetch_too(id, row, args, conn.session.database);
            }
            at += consumed;
        }
    }

    /// Lets the keys of a call be read that runs soon, for a fetch that does not wait for them.
    fn fetch_too(&mut self, id: u64, row: &Row, args: Args<'_>, database: usize) {
        let gate = &mut self.input_gate;
        let (Some(keyspace), Some(fetch), Some(sink)) =
            (&mut self.keyspace, gate.fetches.get_mut(&id), &gate.sink)
        else {
            return;
        };
        let database = keyspace.databases().id(database);
        let places = row.key_places(args).unwrap_or_default();
        let keys = places.each(args).take(FETCHED_AHEAD_MAX);
        let keys = keys.map(|key| (key, Part::Key));
        let parts = parts_of((row.needs)(args), args).take(FETCHED_AHEAD_MAX);
        let parts = parts.zip(std::iter::repeat(places.each(args).next()));
        let parts = parts.filter_map(|(part, key)| Some((key?, part)));
        for (key, part) in keys.chain(parts) {
            let key_here = self.routes.of_key(key) == self.id;
            let name = Name {
                database,
                key: key.into(),
                part,
            };
            if !key_here || !keyspace.needs_hold(&name) {
                continue;
            }
            gate.last += 1;
            if let Hold::Read(read) = keyspace.hold(&name, gate.last) {
                sink(self.id, read);
            }
            fetch.names.push(name);
        }
    }

    // ---- calls from other threads ------------------------------------------------------------

    /// Puts calls behind those of their connection that wait, if some do.
    pub(super) fn stands_in_line(&mut self, calls: &mut Calls) -> bool {
        if self.input_gate.lines.is_empty() {
            return false;
        }
        let place = (calls.from, calls.conn);
        match self.input_gate.lines.get_mut(&place) {
            Some((_, line)) => {
                line.append(&mut calls.calls);
                true
            }
            None => false,
        }
    }

    /// The first of these calls has to wait for keys of this shard, and the others for it. `id`:
    /// the fetch that it waited for already.
    pub(super) fn fetch_for_line(&mut self, calls: Calls, id: Option<u64>) {
        let names = self.take_wanted();
        let place = (calls.from, calls.conn);
        let (id, here) = self.fetch(id, Whom::Line(calls.from, calls.conn), names);
        for call in calls.calls.iter().skip(1).take(FETCHED_AHEAD_MAX) {
            if let Work::Command(row, args) = &call.work {
                self.fetch_too(id, table().row(*row), args.args(), call.context.database);
            }
        }
        self.input_gate.lines.insert(place, (id, calls.calls));
        self.wake_if(here, id);
    }

    fn run_line(&mut self, from: ShardId, conn: ConnId, id: u64) {
        if let Some((_, calls)) = self.input_gate.lines.remove(&(from, conn)) {
            let calls = Calls { from, conn, calls };
            if let Some(rest) = self.run_calls(calls, Some(id)) {
                self.wants_space = true;
                self.waiting.push_front(Message::Calls(rest));
            }
        }
        let again = self.input_gate.lines.get(&(from, conn));
        if again.is_none_or(|(fetch, _)| *fetch != id) {
            self.release(id);
        }
    }

    // ---- borrowed shards ---------------------------------------------------------------------

    /// An errand has to wait for keys of borrowed shards: their owners fetch them.
    pub(super) fn fetch_for_errand(
        &mut self,
        errand: Errand,
        shards: &ShardSet,
        keyspaces: &mut [Box<Keyspace>],
    ) {
        let ticket = self.input_gate.next();
        let mut left = 0;
        for keyspace in keyspaces {
            let names = keyspace.take_wanted();
            if names.is_empty() {
                continue;
            }
            left += 1;
            let to = self.id;
            let home = self.routes.of_slot(keyspace.slots().start);
            let fetch = Message::Fetch { to, ticket, names };
            self.outbox.push((home, fetch));
        }
        let delayed = Delayed {
            errand,
            shards: shards.clone(),
            left,
        };
        self.input_gate.errands.insert(ticket, delayed);
    }

    /// Gives an errand back, unless its connection has calls at these shards that wait for keys: it
    /// must not overtake them. Calls that did not have to wait are answered before a shard is lent.
    pub(super) fn stays_behind(&mut self, errand: Errand, shards: &ShardSet) -> Option<Errand> {
        let conn = self.conn(errand.conn);
        let waits = conn.is_some_and(|conn| conn.has_calls_at(shards));
        if !waits || matches!(errand.job, Job::Unwatch(_)) {
            return Some(errand);
        }
        let behind = &mut self.input_gate.behind;
        behind.insert(errand.conn, (errand, shards.clone()));
        None
    }

    /// A connection has got answers: what stayed behind its calls may go on.
    pub(super) fn go_on_behind(&mut self, conn: &Conn) {
        let behind = &mut self.input_gate.behind;
        if behind.is_empty() {
            return;
        }
        if let Entry::Occupied(entry) = behind.entry(conn.id)
            && !conn.has_calls_at(&entry.get().1)
        {
            let (errand, shards) = entry.remove();
            self.gather(errand, shards);
        }
    }

    /// A connection is gone: what stayed behind its calls does not begin.
    pub(super) fn give_up_behind(&mut self, id: ConnId) {
        if let Some((mut errand, shards)) = self.input_gate.behind.remove(&id)
            && let Job::Work(Work::Block(block), _) = &mut errand.job
        {
            errand.job = Job::Unwatch(std::mem::take(&mut block.watched));
            self.gather(errand, shards);
        }
    }

    /// A coordinator needs keys of this shard, which is here.
    pub(super) fn fetch_for_coordinator(&mut self, to: ShardId, ticket: u64, names: Vec<Name>) {
        let (id, here) = self.fetch(None, Whom::Coordinator { to, ticket }, names);
        if here {
            self.fetched(id);
        }
    }

    /// Another shard has the keys that an errand wanted of it.
    pub(super) fn errand_fetched(&mut self, ticket: u64, shard: ShardId, fetch: u64) {
        let Some(delayed) = self.input_gate.errands.get_mut(&ticket) else {
            return;
        };
        delayed.errand.fetched.push((shard, fetch));
        delayed.left -= 1;
        if delayed.left > 0 {
            return;
        }
        if let Some(Delayed { errand, shards, .. }) = self.input_gate.errands.remove(&ticket) {
            self.gather(errand, shards);
        }
    }

    /// An errand has run: what was fetched for it may go.
    pub(super) fn release_fetched(&mut self, errand: &Errand) {
        for (shard, fetch) in &errand.fetched {
            self.outbox.push((*shard, Message::Release(*fetch)));
        }
    }
}
