//! What may be observed: a plain execution on one thread beside the server's, fed in the order in
//! which things took effect, and the rules that every reply, batch and recovery is held against.
//!
//! Always true: the reference runs without log, gate, mailboxes and lending, muted (no deliberate
//! bug reaches it); a broken rule panics with what was expected.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use tallyman::command::spec::{Across, Keys, flag};
use tallyman::command::{Row, Run};
use tallyman::keyspace::owned::Origin as KeyspaceOrigin;
use tallyman::keyspace::tokens::{TOKEN_END, TokenSource};
use tallyman::keyspace::txn::{Owners, Txn, WatchedKey};
use tallyman::keyspace::{Databases, Key, Keyspace};
use tallyman::limits::FIELDS_EXPIRED_AT_ONCE_MAX;
use tallyman::log::{Lsn, SyncMode};
use tallyman::resp::decode::OwnedArgs;
use tallyman::resp::value::Value;
use tallyman::route::Routes;
use tallyman::shard::{BlockCall, Context, Ended, Endless, Room, Space, block_may_run, execute};
use tallyman::sim::{self, Event, Scene};

use crate::plain;
use crate::state::{DatabaseMap, LogModel, Logical, Name, State, differences, everything, known};

/// How a reply is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Exactly,
    /// The order of the elements is free.
    AsSet,
    /// It tells of memory, time of use, or chance.
    No,
}

fn compare(row: &Row) -> Compare {
    match row.spec.name {
        "hgetall" | "hkeys" | "hvals" | "keys" => Compare::AsSet,
        "randomkey" | "hrandfield" | "scan" | "hscan" | "object|freq" | "object|idletime"
        | "memory|usage" | "debug|object" => Compare::No,
        name if name.starts_with("debug") => Compare::No,
        _ => Compare::Exactly,
    }
}

/// Where a turn of a shard stands: shard, and the number of the turn since the start.
type Turn = (usize, usize);

/// What is known of a request.
#[derive(Default)]
struct Asked {
    /// What ran for it: arguments and reply of each part.
    parts: Vec<(Row, OwnedArgs, Vec<u8>)>,
    /// The reply of a block.
    block: Option<Vec<u8>>,
    /// Turns that its reply depends on.
    turns: BTreeSet<Turn>,
}

/// A block that is running.
#[derive(Default)]
struct Running {
    runs: bool,
    replies: Vec<Vec<u8>>,
    changed: BTreeSet<Turn>,
    turns: BTreeSet<Turn>,
}

/// Answers for room as the log did.
struct Scripted(Room);

impl Space for Scripted {
    fn take(&mut self, _bytes: u64, _urgent: bool) -> Room {
        self.0
    }

    fn give_back(&mut self, _bytes: u64) {}
}

/// One run of the server, from its start to its end.
struct Life {
    routes: Routes,
    seed: u64,
    mode: SyncMode,
    shards: Vec<Option<Box<Keyspace>>>,
    /// Keys of each shard.
    states: Vec<State>,
    scratch: Box<Keyspace>,
    watches: HashMap<u64, Vec<(WatchedKey, WatchedKey)>>,
    /// Where each turn of each shard was queued.
    turns: Vec<Vec<Lsn>>,
    /// State of each shard at each of its positions.
    sealed: Vec<Vec<(Lsn, State)>>,
    maps: Vec<(Lsn, DatabaseMap)>,
    /// The turn that last changed a key.
    changed: BTreeMap<Name, Turn>,
    asked: HashMap<(u64, u64), Asked>,
    /// Turns that must be queued as one.
    atoms: Vec<BTreeSet<Turn>>,
    running: Option<Running>,
    /// The map of databases, where the running command flushes.
    flushed: Option<DatabaseMap>,
    log: LogModel,
    /// What clients were shown was queued up to here.
    shown_lsn: Lsn,
    durable_lsn: Lsn,
    /// A start that failed later found the log ending here: what follows is of starts.
    cut_lsn: Lsn,
    tokens: TokenSource,
}

/// What the simulator counts.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub events: u64,
    pub replies: u64,
    pub blocks: u64,
    pub batches: u64,
    pub recoveries: u64,
    pub recovered_keys: u64,
    pub tokens: u64,
    pub plain: u64,
    pub reloads: u64,
    pub stops: u64,
    pub evicted: u64,
}

/// All that is known of a run of the simulator.
pub struct Oracle {
    keys: Vec<Vec<u8>>,
    tokens: HashSet<u64>,
    token_of: HashMap<Vec<u8>, u64>,
    life: Option<Life>,
    /// A hash of all that happened.
    pub trace: u64,
    pub counts: Counts,
    /// Prints what happens.
    pub aloud: bool,
}

/// How a life begins.
pub struct Beginning {
    pub routes: Routes,
    pub seed: u64,
    pub random_seed: u64,
    pub mode: SyncMode,
    pub lsn: Lsn,
    pub token_ceiling: u64,
}

impl Oracle {
    pub fn new(keys: Vec<Vec<u8>>) -> Oracle {
        Oracle {
            keys,
            tokens: HashSet::new(),
            token_of: HashMap::new(),
            life: None,
            trace: 0xcbf2_9ce4_8422_2325,
            counts: Counts::default(),
            aloud: std::env::var_os("SIM_ALOUD").is_some(),
        }
    }

    /// Notes something in the trace.
    pub fn note(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("a server runs")
    }

    // ---- beginnings and ends -----------------------------------------------------------------

    /// What must be there if the log ends at `lsn`.
    pub fn expected(&self, lsn: Lsn) -> (State, DatabaseMap) {
        let Some(life) = &self.life else {
            return (State::new(), DatabaseMap::default());
        };
        let lsn = lsn.min(life.cut_lsn);
        let at = |positions: &[(Lsn, DatabaseMap)]| {
            let last = positions.iter().rfind(|(at, _)| *at <= lsn);
            last.map(|(_, map)| map.clone()).unwrap_or_default()
        };
        let map = at(&life.maps);
        let mut state = State::new();
        for sealed in &life.sealed {
            if let Some((_, keys)) = sealed.iter().rfind(|(at, _)| *at <= lsn) {
                let live = keys.iter().filter(|(name, _)| map.0.contains(&name.0));
                state.extend(live.map(|(name, logical)| (name.clone(), logical.clone())));
            }
        }
        (state, map)
    }

    /// The log of the life that ended was found to end at `lsn`, with this in it.
    pub fn check_recovered(&mut self, lsn: Lsn, found: &State, map: &DatabaseMap) {
        let Some(life) = &self.life else {
            return;
        };
        if life.mode == SyncMode::Always {
            assert!(
                lsn >= life.shown_lsn,
                "clients were shown what was queued at {}, the log ends at {lsn}",
                life.shown_lsn
            );
        }
        assert!(
            lsn >= life.durable_lsn,
            "durable up to {} before, the log ends at {lsn}",
            life.durable_lsn
        );
        if self.aloud {
            println!("a start finds the log ending at {lsn}");
        }
        let (expected, expected_map) = self.expected(lsn);
        assert_eq!(expected_map.0, map.0, "the map of databases at {lsn}");
        assert_same(&expected, found, &format!("recovered at {lsn}"));
        let life = self.life();
        life.cut_lsn = life.cut_lsn.min(lsn);
        self.counts.recoveries += 1;
        self.counts.recovered_keys += found.len() as u64;
    }

    /// The server died, or ended.
    pub fn end(&mut self) {
        let life = self.life();
        for atom in &life.atoms {
            let lsns = atom
                .iter()
                .map(|&(shard, turn)| life.turns[shard].get(turn));
            let lsns: BTreeSet<_> = lsns.collect();
            assert!(
                lsns.len() <= 1,
                "one block or command was queued at {lsns:?}: not whole"
            );
        }
    }

    /// A server starts on this state.
    pub fn begin(&mut self, beginning: &Beginning, state: State, map: DatabaseMap) {
        let routes = beginning.routes;
        let tokens = TokenSource::above(beginning.token_ceiling);
        let databases = Databases::restored(map.0.clone(), map.1, map.0.len());
        let origin = |slots: Range<u16>, random_seed: u64| KeyspaceOrigin {
            slots,
            seed: beginning.seed,
            databases: databases.clone(),
            tokens: tokens.clone(),
            random_seed,
        };
        let shards = 0..routes.shards();
        let mut keyspaces: Vec<Box<Keyspace>> = shards
            .clone()
            .map(|shard| {
                let random_seed = beginning.random_seed.wrapping_add(shard as u64);
                Box::new(Keyspace::new(origin(routes.slots(shard), random_seed)))
            })
            .collect();
        let mut states = vec![State::new(); routes.shards()];
        for (name, logical) in &state {
            let shard = routes.of_key(&name.1);
            logical.load_into(&mut keyspaces[shard], name, beginning.seed);
            states[shard].insert(name.clone(), logical.clone());
        }
        let scratch_tokens = TokenSource::above(1);
        let scratch = KeyspaceOrigin {
            tokens: scratch_tokens,
            ..origin(0..tallyman::limits::SLOTS, 0)
        };
        self.life = Some(Life {
            routes,
            seed: beginning.seed,
            mode: beginning.mode,
            shards: keyspaces.into_iter().map(Some).collect(),
            sealed: states
                .iter()
                .map(|state| vec![(beginning.lsn, state.clone())])
                .collect(),
            states,
            scratch: Box::new(Keyspace::new(scratch)),
            watches: HashMap::new(),
            turns: vec![Vec::new(); routes.shards()],
            maps: vec![(beginning.lsn, map.clone())],
            changed: BTreeMap::new(),
            asked: HashMap::new(),
            atoms: Vec::new(),
            running: None,
            flushed: None,
            log: LogModel::begin(&state, &map),
            shown_lsn: beginning.lsn,
            durable_lsn: beginning.lsn,
            cut_lsn: Lsn::MAX,
            tokens,
        });
    }

    /// The server recovered in place: that changes nothing but its tokens, and drew them anew.
    pub fn reloaded(&mut self, ceiling: Bytes) {
        let life = self.life();
        for keyspace in life.shards.iter_mut().flatten() {
            keyspace.set_tokens(life.tokens.clone());
        }
        life.log.apply(ceiling);
        self.counts.reloads += 1;
    }

    /// The server ended as it was asked to: it may not have lost anything, however it synced.
    pub fn stopped(&mut self, lsn: Lsn) {
        self.durable(lsn);
        self.counts.stops += 1;
    }

    /// The log says that everything up to here is on disk.
    pub fn durable(&mut self, lsn: Lsn) {
        let life = self.life();
        life.durable_lsn = life.durable_lsn.max(lsn);
    }

    // ---- events ------------------------------------------------------------------------------

    /// Follows what the server did.
    pub fn follow(&mut self, events: Vec<Event>) {
        let muted = sim::mute(true);
        for event in events {
            self.counts.events += 1;
            self.event(event);
        }
        sim::mute(muted);
    }

    fn event(&mut self, event: Event) {
        if self.aloud {
            say(&event);
        }
        match event {
            Event::Ran {
                at,
                context,
                row,
                args,
                ended,
                reply,
            } => self.ran(&at, context, row, args, (ended, reply)),
            Event::Block {
                at,
                context,
                watched,
                conditions,
                runs,
            } => self.block(&at, context, (watched, conditions), runs),
            Event::BlockDone(context, reply) => self.block_done(context, reply),
            Event::Watched(at, context, watched) => self.watched(&at, context, watched),
            Event::Unwatched(at, context, watched) => self.unwatched(&at, context, &watched),
            Event::Expired(at, database, key) => {
                let ((), changed) = self.run(&at, |owners| {
                    if let Owners::Several(keyspaces) = owners {
                        let key = keyspaces[0].key_of(database, &key);
                        keyspaces[0].expire_key(database, &key, FIELDS_EXPIRED_AT_ONCE_MAX);
                    }
                });
                self.note_changes(&changed);
            }
            Event::PutOff(at, keys) => {
                let ((), changed) = self.run(&at, |owners| look_at(owners, &keys));
                self.note_changes(&changed);
            }
            Event::Appended(lsn, payload) => {
                self.note(&lsn.to_le_bytes());
                self.note(&payload);
                self.counts.batches += 1;
                self.life().log.apply(payload);
            }
            Event::Sealed(slots, lsn) => self.sealed(&slots, lsn),
            Event::Durable(slots, lsn) => {
                let life = self.life();
                let shard = life.routes.of_slot(slots.start);
                let keyspace = life.shards[shard].as_mut().expect("at home");
                keyspace.durable(lsn);
            }
            Event::Token(key, token) => self.token(key, token),
            Event::Flushed(ids, next) => self.life().flushed = Some((ids, next)),
        }
    }

    fn token(&mut self, key: Vec<u8>, token: u64) {
        self.counts.tokens += 1;
        assert!(token > 0 && token < TOKEN_END, "token {token}");
        assert!(self.tokens.insert(token), "token {token} was used before");
        let before = self.token_of.insert(key, token).unwrap_or(0);
        assert!(before < token, "token {token} of a key after {before}");
    }

    /// Runs something on the reference's shards of a scene; says which keys it changed.
    fn run<R>(&mut self, at: &Scene, f: impl FnOnce(Owners<'_>) -> R) -> (R, Vec<Name>) {
        let keys = &self.keys;
        let life = self.life.as_mut().expect("a server runs");
        let ids: Vec<usize> = at
            .slots
            .iter()
            .map(|slots| life.routes.of_slot(slots.start))
            .collect();
        let lent = ids
            .iter()
            .map(|&shard| life.shards[shard].take().expect("at home"));
        let mut lent: Vec<Box<Keyspace>> = lent.collect();
        for keyspace in &mut lent {
            keyspace.set_now_ms(at.now_ms);
        }
        let result = f(Owners::Several(&mut lent));
        let mut changed = Vec::new();
        for (shard, keyspace) in ids.into_iter().zip(lent) {
            let own: Vec<Vec<u8>> = keys
                .iter()
                .filter(|key| life.routes.of_key(key) == shard)
                .cloned()
                .collect();
            let after = known(&keyspace, &own, life.seed, &life.states[shard]);
            changed.extend(differences(&life.states[shard], &after));
            life.states[shard] = after;
            life.shards[shard] = Some(keyspace);
        }
        (result, changed)
    }

    /// A database that was emptied long ago may get a new id or not, which nobody sees.
    fn follow_flush(&mut self, before: &[State], (ids, next): DatabaseMap) {
        let life = self.life();
        let own = databases_of(life);
        let (ids, next) = match life.flushed.clone() {
            Some(map) => map,
            // The reference alone did it: what it emptied was empty.
            None if own.iter().any(|id| !ids.contains(id)) => {
                let gone = |name: &&Name| !own.contains(&name.0);
                let lost = before.iter().flat_map(State::keys).find(gone);
                assert_eq!(lost, None, "a database is not flushed, and has keys");
                (ids, next)
            }
            None => return,
        };
        life.flushed = None;
        let own = databases_of(life);
        let other = own
            .iter()
            .filter(|id| !ids.contains(id))
            .copied()
            .collect::<Vec<_>>();
        let used = life
            .states
            .iter()
            .flat_map(State::keys)
            .find(|name| other.contains(&name.0));
        assert_eq!(used, None, "a flushed database is empty");
        let databases = Databases::restored(ids.clone(), next, ids.len());
        for keyspace in life.shards.iter_mut().flatten() {
            keyspace.set_databases(databases.clone());
        }
    }

    /// The turns that are running change these keys. Returns them.
    fn note_changes(&mut self, changed: &[Name]) -> BTreeSet<Turn> {
        let life = self.life();
        let mut turns = BTreeSet::new();
        for name in changed {
            let shard = life.routes.of_key(&name.1);
            let turn = (shard, life.turns[shard].len());
            life.changed.insert(name.clone(), turn);
            turns.insert(turn);
        }
        turns
    }

    fn ran(
        &mut self,
        at: &Scene,
        context: Context,
        row: Row,
        args: OwnedArgs,
        (ended, reply): (Ended, Vec<u8>),
    ) {
        self.note(row.spec.name.as_bytes());
        self.note(&reply);
        let mut room = match ended {
            Ended::Later | Ended::Asleep => Scripted(Room::Later),
            Ended::Done { .. } if reply.starts_with(b"-NOSPACE") => Scripted(Room::None),
            Ended::Done { .. } => Scripted(Room::Granted),
        };
        let before = self.life().states.clone();
        let map = map_of(self.life());
        let mut out = Vec::new();
        let (_, changed) = self.run(at, |owners| {
            execute(owners, &row, args.args(), context, &mut room, &mut out)
        });
        self.follow_flush(&before, map);
        let told = || format!("{} {}", row.spec.name, shown(&args));
        check_reply(&row, &out, &reply, &told);
        let failed = !matches!(ended, Ended::Done { failed: false, .. });
        self.check_changes(&before, at, (&row, &args, failed), &changed);
        let special = reply.starts_with(b"-NOSPACE") || reply.starts_with(b"-TRYAGAIN");
        if ended != Ended::Later && !special {
            let call = plain::Call {
                name: row.spec.name,
                words: args.args().iter().skip(1).collect(),
                database: databases_of(self.life())[context.database],
                now_ms: at.now_ms,
                protocol: context.protocol,
            };
            let known = plain::check(&call, &reply, &before, &self.life().states);
            self.counts.plain += u64::from(known);
        }
        let changed_turns = self.note_changes(&changed);
        let mut turns = self.seen(at, (&row, &args, context), (failed, &reply));
        turns.extend(&changed_turns);
        let life = self.life();
        if let Some(running) = &mut life.running {
            running.changed.extend(&changed_turns);
            running.turns.extend(turns);
            running.replies.push(reply);
            return;
        }
        if changed_turns.len() > 1 {
            life.atoms.push(changed_turns);
        }
        if ended != Ended::Later {
            let origin = (context.origin.client, context.origin.request);
            let asked = life.asked.entry(origin).or_default();
            asked.turns.extend(turns);
            asked.parts.push((row, args, reply));
        }
    }

    /// What refuses, or only reads, changes nothing but what is past its deadline; what writes
    /// changes its own keys alone.
    fn check_changes(
        &mut self,
        before: &[State],
        at: &Scene,
        (row, args, failed): (&Row, &OwnedArgs, bool),
        changed: &[Name],
    ) {
        let named: Option<Vec<&[u8]>> = match row.spec.keys {
            Keys::Range { .. } | Keys::Counted { .. } => {
                let places = row.key_places(args.args()).unwrap_or_default();
                Some(places.each(args.args()).collect())
            }
            Keys::None | Keys::Cursor(_) | Keys::All => None,
        };
        for name in changed {
            let was = before.iter().find_map(|state| state.get(name));
            if was.is_some_and(|was| was.is_overdue(at.now_ms)) {
                continue;
            }
            let what = || format!("{} {} changed {name:?}", row.spec.name, shown(args));
            assert!(!failed, "{}, and was refused", what());
            assert!(row.has(flag::WRITE), "{}, and does not write", what());
            if let Some(named) = &named {
                assert!(
                    named.contains(&&name.1[..]),
                    "{}, and does not name it",
                    what()
                );
            }
        }
    }

    /// The turns that changed what a reply tells of.
    fn seen(
        &mut self,
        at: &Scene,
        (row, args, context): (&Row, &OwnedArgs, Context),
        (failed, reply): (bool, &[u8]),
    ) -> BTreeSet<Turn> {
        let life = self.life();
        if failed && !refusal_tells(life, at, (row, args), context, reply) {
            return BTreeSet::new();
        }
        let database = databases_of(life)[context.database];
        match row.spec.keys {
            Keys::Range { .. } | Keys::Counted { .. } => {
                let places = row.key_places(args.args()).unwrap_or_default();
                // Of several keys, one may be enough for a refusal, and so for these.
                let seen = match row.spec.name {
                    _ if places.count == 1 => 1,
                    _ if failed => 0,
                    "msetnx" | "msetex" => 0,
                    "copy" => 1,
                    _ => usize::MAX,
                };
                let keys = places.each(args.args()).take(seen);
                let turns = keys.filter_map(|key| life.changed.get(&(database, key.to_vec())));
                turns.copied().collect()
            }
            // Of the rest, a slice of a scan may see nothing.
            Keys::Cursor(_) if !failed => {
                let keys = scanned(reply).into_iter();
                let names = keys.map(|key| (database, key));
                names
                    .filter_map(|name| life.shown(&name, at.now_ms))
                    .collect()
            }
            Keys::Cursor(_) | Keys::None => BTreeSet::new(),
            Keys::All if matches!(row.spec.name, "dbsize" | "keys") => {
                let here = |turn: &&Turn| {
                    at.slots
                        .iter()
                        .any(|slots| life.routes.of_slot(slots.start) == turn.0)
                };
                let of_database = life.changed.iter().filter(|(name, _)| name.0 == database);
                of_database
                    .map(|(_, turn)| turn)
                    .filter(here)
                    .copied()
                    .collect()
            }
            Keys::All if row.spec.name == "randomkey" => match Value::parse(reply) {
                Ok(Some((Value::Bulk(key), _))) => {
                    let name = (database, key);
                    life.shown(&name, at.now_ms).into_iter().collect()
                }
                _ => BTreeSet::new(),
            },
            Keys::All => BTreeSet::new(),
        }
    }

    // ---- blocks and watches ------------------------------------------------------------------

    /// Takes the reference's watches that belong to the server's.
    fn own_watches(&mut self, client: u64, watched: &[WatchedKey]) -> Vec<WatchedKey> {
        let known = self.life().watches.entry(client).or_default();
        let mut own = Vec::new();
        for watched in watched {
            let place = known.iter().position(|(theirs, _)| theirs == watched);
            let place = place.expect("a watch ends that began");
            own.push(known.remove(place).1);
        }
        own
    }

    fn block(
        &mut self,
        at: &Scene,
        context: Context,
        (watched, conditions): (Vec<WatchedKey>, Vec<tallyman::session::Condition>),
        runs: bool,
    ) {
        self.counts.blocks += 1;
        let mut turns = BTreeSet::new();
        for watched in &watched {
            let life = self.life();
            let id = databases_of(life)[watched.number];
            turns.extend(life.changed.get(&(id, watched.key.to_vec())));
        }
        let own = self.own_watches(context.origin.client, &watched);
        let block = BlockCall {
            calls: Vec::new(),
            watched: own,
            conditions,
        };
        let ((expected, _), changed) =
            self.run(at, |owners| block_may_run(owners, &block, context));
        assert_eq!(
            expected,
            Ok(runs),
            "whether a block runs that watches {watched:?}"
        );
        let changed = self.note_changes(&changed);
        let id = databases_of(self.life())[context.database];
        for condition in &block.conditions {
            let name = (id, condition.key().to_vec());
            turns.extend(self.life().changed.get(&name));
        }
        turns.extend(&changed);
        self.life().running = Some(Running {
            runs,
            replies: Vec::new(),
            changed,
            turns,
        });
    }

    fn block_done(&mut self, context: Context, reply: Vec<u8>) {
        let life = self.life();
        let running = life.running.take().expect("a block runs");
        if running.changed.len() > 1 {
            life.atoms.push(running.changed);
        }
        if running.runs {
            let head = reply
                .iter()
                .position(|byte| *byte == b'\n')
                .expect("a head")
                + 1;
            let mut at = head;
            // Replies of session commands lie between.
            for part in &running.replies {
                while !reply[at..].starts_with(part) || part.is_empty() {
                    let next = Value::parse(&reply[at..]).ok().flatten();
                    let (_, bytes) = next.expect("the reply of a block has those of its commands");
                    at += bytes;
                    if part.is_empty() {
                        break;
                    }
                }
                at += part.len();
            }
        }
        let origin = (context.origin.client, context.origin.request);
        let asked = life.asked.entry(origin).or_default();
        asked.turns.extend(running.turns);
        asked.block = Some(reply);
    }

    fn watched(&mut self, at: &Scene, context: Context, watched: Vec<WatchedKey>) {
        let keys: Vec<Box<[u8]>> = watched.iter().map(|watched| watched.key.clone()).collect();
        let (own, changed) = self.run(at, |owners| {
            let mut txn = Txn::new(owners, context.database);
            let own: Vec<WatchedKey> = keys.iter().map(|key| txn.watch(&txn.key(key))).collect();
            txn.commit();
            own
        });
        self.note_changes(&changed);
        for (theirs, own) in watched.iter().zip(&own) {
            assert_eq!(
                theirs.existed, own.existed,
                "a watched key exists: {theirs:?}"
            );
        }
        let pairs = watched.into_iter().zip(own);
        self.life()
            .watches
            .entry(context.origin.client)
            .or_default()
            .extend(pairs);
    }

    fn unwatched(&mut self, at: &Scene, context: Context, watched: &[WatchedKey]) {
        let own = self.own_watches(context.origin.client, watched);
        let ((), changed) = self.run(at, |owners| {
            let mut txn = Txn::new(owners, context.database);
            own.iter().for_each(|watched| txn.unwatch(watched));
            txn.commit();
        });
        self.note_changes(&changed);
    }

    // ---- batches -----------------------------------------------------------------------------

    /// A shard's turn was queued: the log must hold what the shard holds.
    fn sealed(&mut self, slots: &Range<u16>, lsn: Lsn) {
        let life = self.life();
        let shard = life.routes.of_slot(slots.start);
        let keyspace = life.shards[shard].as_mut().expect("at home");
        keyspace.seal(&mut tallyman::keyspace::codec::BatchBuilder::default());
        keyspace.sealed(lsn);
        life.turns[shard].push(lsn);
        let state = life.states[shard].clone();
        let map = databases_of(life).to_vec();
        assert_eq!(
            life.log.map.0, map,
            "the map of databases in the log at {lsn}"
        );
        let mine = |name: &Name| map.contains(&name.0) && life.routes.of_key(&name.1) == shard;
        let logged = life.log.state.iter().filter(|(name, _)| mine(name));
        let logged: State = logged
            .map(|(name, logical)| (name.clone(), logical.clone()))
            .collect();
        assert_same(
            &state,
            &logged,
            &format!("shard {shard} as the log has it at {lsn}"),
        );
        let mut counts: BTreeMap<(u16, u32), u64> = BTreeMap::new();
        for (database, key) in state.keys() {
            *counts
                .entry((Key::new(key, 0).slot, *database))
                .or_insert(0) += 1;
        }
        for (&(slot, database), &keys) in &life.log.counts {
            if slots.contains(&slot) && map.contains(&database) {
                let found = counts.remove(&(slot, database)).unwrap_or(0);
                assert_eq!(
                    found, keys,
                    "keys of slot {slot}, database {database}, at {lsn}"
                );
            }
        }
        assert!(
            counts.is_empty(),
            "no count was logged for {counts:?} at {lsn}"
        );
        let next = life.shards[shard]
            .as_ref()
            .expect("at home")
            .databases()
            .next();
        life.sealed[shard].push((lsn, state));
        life.maps.push((lsn, (map, next)));
    }

    /// A batch that the start queued by itself.
    pub fn appended(&mut self, payload: Bytes) {
        self.life().log.apply(payload);
    }

    // ---- replies -----------------------------------------------------------------------------

    /// A client received the reply to its request of this number; everything up to `durable_lsn`
    /// was durable by then.
    pub fn answered(&mut self, (client, request): (u64, u64), words: &[Vec<u8>], reply: &[u8]) {
        self.counts.replies += 1;
        // What session commands answer, also in a block, may tell of the machine.
        let told = self.life().asked.get(&(client, request));
        if told.is_some_and(|asked| asked.block.is_none()) {
            self.note(reply);
        }
        let life = self.life.as_mut().expect("a server runs");
        let told = || {
            let words: Vec<_> = words
                .iter()
                .map(|word| word.escape_ascii().to_string())
                .collect();
            format!("client {client}, request {request}, {}", words.join(" "))
        };
        let Some(asked) = life.asked.remove(&(client, request)) else {
            check_unasked(words, reply, &told);
            return;
        };
        if let Some(block) = &asked.block {
            assert_eq!(show(block), show(reply), "{}", told());
        } else if let [(_, _, one)] = &asked.parts[..] {
            assert_eq!(show(one), show(reply), "{}", told());
        } else {
            check_merged(&asked.parts, words, reply, &told);
        }
        if life.mode != SyncMode::Always {
            return;
        }
        for (shard, turn) in asked.turns {
            let lsn = life.turns[shard].get(turn).copied();
            let lsn = lsn.unwrap_or_else(|| {
                panic!(
                    "{} tells {} of a turn that is not queued",
                    told(),
                    show(reply)
                )
            });
            assert!(
                lsn <= life.durable_lsn,
                "{} tells {} of what was queued at {lsn}; durable is {}",
                told(),
                show(reply),
                life.durable_lsn
            );
            life.shown_lsn = life.shown_lsn.max(lsn);
        }
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Nothing is past its deadline any more, and the server's tables hold what they should.
    pub fn check_tables<'a>(&mut self, now_ms: u64, keyspaces: impl Iterator<Item = &'a Keyspace>) {
        let life = self.life();
        let map = databases_of(life).to_vec();
        let mut found = State::new();
        for keyspace in keyspaces {
            found.extend(
                everything(keyspace)
                    .into_iter()
                    .filter(|(name, _)| map.contains(&name.0)),
            );
        }
        let mut expected = State::new();
        life.states
            .iter()
            .for_each(|state| expected.extend(state.clone()));
        for (name, logical) in &found {
            assert!(
                !logical.is_overdue(now_ms),
                "{name:?} outlives its deadline: {logical:?}"
            );
        }
        assert_same(&expected, &found, "the tables at the end");
    }
}

impl Life {
    /// The turn that last changed a key which a client was shown: it must be there.
    fn shown(&self, name: &Name, now_ms: u64) -> Option<Turn> {
        let found = self.states.iter().find_map(|state| state.get(name));
        let gone = |logical: &Logical| logical.deadline_ms != 0 && logical.deadline_ms <= now_ms;
        assert!(
            found.is_some_and(|logical| !gone(logical)),
            "a client is shown {name:?}, which is {found:?}"
        );
        self.changed.get(name).copied()
    }
}

/// The keys in the reply to SCAN, none of them twice.
fn scanned(reply: &[u8]) -> Vec<Vec<u8>> {
    let Ok(Some((Value::Array(parts), _))) = Value::parse(reply) else {
        panic!("a scan answers {}", show(reply));
    };
    let [_, Value::Array(keys)] = &parts[..] else {
        panic!("a scan answers {}", show(reply));
    };
    let bytes = |key: &Value| match key {
        Value::Bulk(bytes) => bytes.to_vec(),
        other => panic!("{other:?} is no key"),
    };
    let keys: Vec<Vec<u8>> = keys.iter().map(bytes).collect();
    let different: BTreeSet<&Vec<u8>> = keys.iter().collect();
    assert_eq!(different.len(), keys.len(), "a key twice: {}", show(reply));
    keys
}

/// Prints an event: for a person who looks into a seed.
fn say(event: &Event) {
    match event {
        Event::Ran {
            at,
            context,
            args,
            reply,
            ..
        } => println!(
            "{:?} {} db {} {:?}: {} -> {}",
            at.slots,
            at.now_ms,
            context.database,
            context.origin,
            shown(args),
            show(reply)
        ),
        Event::Block { at, runs, .. } => println!("{:?} block, runs: {runs}", at.slots),
        Event::Expired(at, database, key) => {
            let key = key.escape_ascii();
            println!("{:?} {} expiry db {database} {key}", at.slots, at.now_ms);
        }
        Event::PutOff(at, keys) => println!("{:?} {} put off: {keys:?}", at.slots, at.now_ms),
        Event::Appended(lsn, payload) => {
            let mutations = tallyman::keyspace::codec::Mutations::of(payload);
            println!("batch {lsn}: {:?}", mutations.collect::<Vec<_>>());
        }
        Event::Sealed(slots, lsn) => println!("{slots:?} sealed at {lsn}"),
        Event::Flushed(ids, next) => println!("databases {ids:?}, next {next}"),
        _ => {}
    }
}

/// Looks at keys, by database id, so that what is past its deadline goes.
fn look_at(owners: Owners<'_>, keys: &[(u32, Vec<u8>)]) {
    let Owners::Several(keyspaces) = owners else {
        return;
    };
    for (database, bytes) in keys {
        let key = keyspaces[0].key_of(*database, bytes);
        let slots = |keyspace: &Box<Keyspace>| keyspace.slots().contains(&key.slot);
        let place = keyspaces.iter().position(slots);
        keyspaces[place.expect("a shard of the scene")].expire_key(*database, &key, usize::MAX);
    }
}

/// The reference's map of databases.
fn map_of(life: &Life) -> DatabaseMap {
    let at_home = life.shards.iter().flatten().next();
    let databases = at_home.expect("a shard at home").databases();
    (databases.ids().to_vec(), databases.next())
}

fn databases_of(life: &Life) -> &[u32] {
    life.shards
        .iter()
        .flatten()
        .next()
        .expect("a shard at home")
        .databases()
        .ids()
}

/// Whether a refusal says something about the keys: it would be another if there were none.
fn refusal_tells(
    life: &mut Life,
    at: &Scene,
    (row, args): (&Row, &OwnedArgs),
    context: Context,
    reply: &[u8],
) -> bool {
    let mut out = Vec::new();
    life.scratch.set_now_ms(at.now_ms);
    let owners = Owners::One(&mut life.scratch);
    let context = Context {
        database: 0,
        ..context
    };
    execute(owners, row, args.args(), context, &mut Endless, &mut out);
    let fresh = everything(&life.scratch).is_empty();
    if !fresh {
        let origin = KeyspaceOrigin {
            slots: 0..tallyman::limits::SLOTS,
            seed: life.seed,
            databases: Databases::new(databases_of(life).len()),
            tokens: TokenSource::above(1),
            random_seed: 0,
        };
        *life.scratch = Keyspace::new(origin);
    }
    out != reply && !reply.starts_with(b"-NOSPACE") && !reply.starts_with(b"-TRYAGAIN")
}

fn show(bytes: &[u8]) -> String {
    bytes
        .escape_ascii()
        .to_string()
        .chars()
        .take(2_000)
        .collect()
}

/// Arguments as text.
pub fn shown(args: &OwnedArgs) -> String {
    let words = args
        .args()
        .iter()
        .map(|word| word.escape_ascii().to_string());
    let text = words.collect::<Vec<_>>().join(" ");
    text.chars().take(500).collect()
}

fn elements(reply: &[u8]) -> Vec<String> {
    match Value::parse(reply) {
        Ok(Some((Value::Array(values) | Value::Set(values), _))) => {
            let mut texts: Vec<String> = values.iter().map(Value::render).collect();
            texts.sort();
            texts
        }
        Ok(Some((Value::Map(pairs), _))) => {
            let pair = |(key, value): &(Value, Value)| key.render() + &value.render();
            let mut texts: Vec<String> = pairs.iter().map(pair).collect();
            texts.sort();
            texts
        }
        _ => vec![show(reply)],
    }
}

fn check_reply(row: &Row, expected: &[u8], reply: &[u8], told: &dyn Fn() -> String) {
    match compare(row) {
        Compare::Exactly => assert_eq!(show(expected), show(reply), "the reply to {}", told()),
        Compare::AsSet => {
            assert_eq!(
                elements(expected),
                elements(reply),
                "the reply to {}",
                told()
            );
        }
        Compare::No => {}
    }
}

/// The reply to a request for which nothing ran.
fn check_unasked(words: &[Vec<u8>], reply: &[u8], told: &dyn Fn() -> String) {
    let args = OwnedArgs::from_slices(words.iter().map(Vec::as_slice));
    let table = tallyman::command::table();
    let runs_on_keys = table
        .find(args.args())
        .is_ok_and(|id| matches!(table.row(id).run, Run::Keys(_)));
    let fine = !runs_on_keys || reply.starts_with(b"-") || reply == b"+QUEUED\r\n";
    assert!(
        fine,
        "{} did not run, and was answered {}",
        told(),
        show(reply)
    );
}

/// The reply to a request that ran in parts.
fn check_merged(
    parts: &[(Row, OwnedArgs, Vec<u8>)],
    words: &[Vec<u8>],
    reply: &[u8],
    told: &dyn Fn() -> String,
) {
    let wrong = |expected: &str| {
        panic!("{}: {} instead of {expected}", told(), show(reply));
    };
    if parts.iter().any(|(_, _, part)| part.starts_with(b"-")) {
        if !parts.iter().any(|(_, _, part)| part == reply) {
            wrong("one of the refusals");
        }
        return;
    }
    match parts[0].0.spec.across {
        Across::Sum => {
            let number = |reply: &[u8]| -> i64 {
                let text = String::from_utf8_lossy(reply);
                text.trim()
                    .trim_start_matches(':')
                    .parse()
                    .expect("an integer")
            };
            let sum: i64 = parts.iter().map(|(_, _, part)| number(part)).sum();
            if sum != number(reply) {
                wrong(&sum.to_string());
            }
        }
        Across::Interleave => {
            let array = |reply: &[u8]| match Value::parse(reply) {
                Ok(Some((Value::Array(values), _))) => values,
                other => panic!("{other:?} is no array"),
            };
            let mut values: HashMap<Vec<u8>, Value> = HashMap::new();
            for (row, args, part) in parts {
                let places = row.key_places(args.args()).unwrap_or_default();
                let keys = places.each(args.args()).map(<[u8]>::to_vec);
                values.extend(keys.zip(array(part)));
            }
            let expected: Vec<String> = words[1..].iter().map(|key| values[key].render()).collect();
            let found: Vec<String> = array(reply).iter().map(Value::render).collect();
            assert_eq!(expected, found, "{}", told());
        }
        Across::Concat => {
            let mut expected: Vec<String> = parts
                .iter()
                .flat_map(|(_, _, part)| elements(part))
                .collect();
            expected.sort();
            assert_eq!(expected, elements(reply), "{}", told());
        }
        Across::AnyOne => {
            if !parts.iter().any(|(_, _, part)| part == reply) {
                wrong("one of the parts");
            }
        }
        Across::Atomic => wrong("one reply: it ran several times"),
    }
}

fn assert_same(expected: &State, found: &State, what: &str) {
    let names = differences(expected, found);
    if let Some(name) = names.first() {
        let text = |state: &State| {
            let text = format!("{:?}", state.get(name).map(Rc::as_ref));
            text.chars().take(600).collect::<String>()
        };
        panic!(
            "{what}: {} key(s) differ; database {} key {}: expected {}, found {}",
            names.len(),
            name.0,
            name.1.escape_ascii(),
            text(expected),
            text(found)
        );
    }
}
