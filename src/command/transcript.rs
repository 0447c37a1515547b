//! Transcripts: a test speaks like a user in redis-cli, against one shard with everything in
//! memory. Only for tests.

use std::sync::Arc;

use crate::command::{Run, table};
use crate::keyspace::codec::{BatchBuilder, Mutations};
use crate::keyspace::owned::{Keyspace, Origin};
use crate::keyspace::tokens::TokenSource;
use crate::keyspace::txn::{Owners, Txn};
use crate::keyspace::{self, Cell, Cold, Databases, FieldValue, ValueRef, Wait};
use crate::limits::SLOTS;
use crate::reply::Reply;
use crate::residency::{StoredKeys, counts, due_rows};
use crate::resp::Protocol;
use crate::resp::decode::{DecodeLimits, Decoded, Decoder, OwnedArgs};
use crate::resp::value::Value;
use crate::shard::mailbox::SweepSlice;
use crate::store::checkpoint::{self, Stale, Sweep};
use crate::store::row::deadlines;
use crate::store::{MapStore, Meta};
use crate::worker::sweep::Sweeping;

/// Cases of a family's property test, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 10_000;

/// How many cases the property test of a family runs.
pub fn cases() -> proptest::test_runner::Config {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => proptest::test_runner::Config::default(),
        None => proptest::test_runner::Config::with_cases(CASES),
    }
}

/// A shard, and a user who types commands.
pub struct Transcript {
    keyspace: Keyspace,
    origin: Origin,
    protocol: Protocol,
    database: usize,
    lsn: u64,
    log: Vec<bytes::Bytes>,
    recover_always: bool,
    /// With a store, every key is written there and leaves memory after each command.
    store: Option<Arc<MapStore>>,
}

impl Transcript {
    /// Begins on an empty server, at a fixed time.
    pub fn new() -> Transcript {
        Transcript::owning(0..SLOTS)
    }

    /// The same where keys have the hash tag `{t}` and no other slots are there: what is begun and
    /// recovered thousands of times should not have to make and free tables for all of them.
    pub fn of_tag() -> Transcript {
        let slot = redis_protocol::redis_keyslot(b"t");
        Transcript::owning(slot..slot + 1)
    }

    fn owning(slots: std::ops::Range<u16>) -> Transcript {
        let origin = Origin {
            slots,
            seed: 1,
            databases: Databases::new(16),
            tokens: TokenSource::above(0),
            random_seed: 1,
        };
        let mut keyspace = Keyspace::new(origin.clone());
        keyspace.set_now_ms(1_700_000_000_000);
        let transcript = Transcript {
            keyspace,
            origin,
            protocol: Protocol::Resp2,
            database: 0,
            lsn: 0,
            log: Vec::new(),
            recover_always: false,
            store: None,
        };
        // So that every suite can be run in this mode too.
        match std::env::var_os("TALLYMAN_TEST_HIBERNATE") {
            Some(_) => transcript.hibernating(),
            None => transcript,
        }
    }

    /// Speaks RESP3 from now on.
    pub fn resp3(mut self) -> Transcript {
        self.protocol = Protocol::Resp3;
        self
    }

    /// Runs a script as it is; rebuilding the keyspace from the log after every command; with every
    /// key leaving memory after every command; and both.
    pub fn in_both_modes(script: impl Fn(&mut Transcript)) {
        script(&mut Transcript::new());
        script(&mut Transcript::new().recovering());
        script(&mut Transcript::new().hibernating());
        script(&mut Transcript::new().hibernating().recovering());
    }

    /// Uses another database from now on.
    pub fn select(&mut self, number: usize) {
        self.database = number;
    }

    /// Rebuilds the keyspace from the log after every command, so that what is not logged shows.
    pub fn recovering(mut self) -> Transcript {
        self.recover_always = true;
        self
    }

    /// Writes everything to a store after every command, and keeps nothing in memory.
    pub fn hibernating(mut self) -> Transcript {
        let store = Arc::new(MapStore::new());
        self.keyspace.set_cold(cold(&store));
        self.store = Some(store);
        self
    }

    /// Whether every key leaves memory after each command.
    pub fn hibernates(&self) -> bool {
        self.store.is_some()
    }

    /// The reply to a command line, as redis-cli prints it.
    pub fn run(&mut self, line: &str) -> String {
        self.run_args(&words(line))
    }

    /// The reply to a command given as arguments, as redis-cli prints it.
    pub fn run_bytes(&mut self, args: &[&[u8]]) -> String {
        self.run_args(&OwnedArgs::from_slices(args.iter().copied()))
    }

    fn run_args(&mut self, args: &OwnedArgs) -> String {
        let args = args.args();
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, self.protocol);
        match table().find(args) {
            Err(reject) => reply.error(&reject),
            Ok(row) => {
                let Run::Keys(run) = table().row(row).run else {
                    panic!("a transcript runs commands on keys; sessions have tests of their own");
                };
                let mut txn = Txn::new(Owners::One(&mut self.keyspace), self.database);
                match run(&mut txn, args, &mut reply) {
                    Ok(()) => {
                        txn.commit();
                    }
                    Err(reject) => {
                        txn.roll_back();
                        out.clear();
                        Reply::new(&mut out, self.protocol).error(&reject);
                    }
                }
            }
        }
        self.seal();
        rendered(&out)
    }

    /// Writes what no command of the tested family can.
    pub fn write(&mut self, write: impl FnOnce(&mut Txn<'_>)) {
        let mut txn = Txn::new(Owners::One(&mut self.keyspace), self.database);
        write(&mut txn);
        txn.commit();
        self.seal();
    }

    /// Makes a hash, for commands that want another type.
    pub fn make_hash(&mut self, key: &str) {
        self.write(|txn| {
            let key = txn.key(key.as_bytes());
            txn.put_field(&key, b"field", FieldValue::from_bytes(b"value"), 0)
                .expect("there was no such key");
        });
    }

    /// Makes a state cell, which is a string to commands on strings.
    pub fn make_cell(&mut self, key: &str, state: &str) {
        self.write(|txn| {
            let key = txn.key(key.as_bytes());
            let cell = Cell {
                token: txn.token(&key).expect("tokens are durable here"),
                owner: None,
                fingerprint: None,
                done: false,
                state: bytes::Bytes::copy_from_slice(state.as_bytes()),
            };
            txn.put(&key, keyspace::Value::Cell(Box::new(cell)), 0);
        });
    }

    /// Whether the key holds a state cell.
    pub fn is_cell(&mut self, key: &str) -> bool {
        let mut txn = Txn::new(Owners::One(&mut self.keyspace), self.database);
        let key = txn.key(key.as_bytes());
        let is_cell = matches!(txn.value(&key), Some(ValueRef::Cell(_)));
        txn.commit();
        is_cell
    }

    fn seal(&mut self) {
        if self.keyspace.has_effects() {
            self.lsn += 1;
            let mut batch = BatchBuilder::default();
            self.keyspace.seal(&mut batch);
            self.keyspace.sealed(self.lsn);
            self.log.push(batch.finish().concat().into());
            self.keyspace.durable(self.lsn);
            self.hibernate();
            if self.recover_always {
                self.recover();
            }
        }
        if self.keyspace.tables().dirty_entries() > 0 {
            // Written and taken back, which counts as changed.
            self.hibernate();
        }
        self.evict();
        assert_eq!(self.keyspace.turn().wait_for_all(), Wait::NONE);
    }

    /// Writes everything to the store, if there is one.
    fn hibernate(&mut self) {
        if let Some(store) = &self.store {
            store_all(&mut self.keyspace, store);
        }
    }

    /// Lets everything leave memory that the store has.
    fn evict(&mut self) {
        if self.store.is_some() {
            self.keyspace.evict(0, usize::MAX, true);
            assert_eq!(self.keyspace.tables().live(), 0, "what is stored can leave");
            self.keyspace.forget_hints();
        }
    }

    /// Reads the deadlines of what is asleep, as far as they are due.
    fn read_deadlines(&mut self) {
        if let Some(store) = &self.store {
            let until_ms = self.keyspace.now_ms() + 1;
            let (from, _) = deadlines(0, until_ms);
            let due = due_rows(&**store, &from, until_ms, usize::MAX, self.origin.seed);
            let due = due.expect("memory has no damage");
            self.keyspace.set_horizon_ms(until_ms);
            self.keyspace.take_hints(&due.hints, until_ms);
        }
    }

    /// Restarts from the log alone; with a store, replays all of the log over it.
    pub fn recover(&mut self) {
        let now_ms = self.keyspace.now_ms();
        let mut keyspace = Keyspace::new(Origin {
            databases: self.keyspace.databases().clone(),
            ..self.origin.clone()
        });
        keyspace.set_now_ms(now_ms);
        if let Some(store) = &self.store {
            keyspace.set_cold(cold(store));
            let counts = counts(&**store).expect("memory has no damage");
            keyspace.begin_replay(counts.into_iter());
        }
        for batch in &self.log {
            for mutation in Mutations::of(batch) {
                keyspace.apply(mutation.expect("what was written can be read"));
            }
        }
        if self.store.is_some() {
            keyspace.end_replay().expect("log and store fit");
            keyspace.inherit(&mut self.keyspace);
        }
        self.keyspace = keyspace;
        self.lsn = 0;
        self.hibernate();
        self.evict();
    }

    /// Runs a command line and compares the reply with what redis-cli would print.
    #[track_caller]
    pub fn check(&mut self, line: &str, expected: &str) {
        let reply = self.run(line);
        assert_eq!(reply.trim_end(), expected.trim_end(), "reply to: {line}");
    }

    /// Lets time pass; what is due expires.
    pub fn advance_ms(&mut self, milliseconds: u64) {
        let now_ms = self.keyspace.now_ms() + milliseconds;
        self.keyspace.set_now_ms(now_ms);
        self.read_deadlines();
        while !self.keyspace.expire(16) {}
        self.seal();
    }

    /// The time, ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.keyspace.now_ms()
    }

    /// The keyspace, to look at what no command shows.
    pub fn keyspace(&mut self) -> &mut Keyspace {
        &mut self.keyspace
    }

    /// Batches in the log: commands that changed something.
    pub fn batches(&self) -> usize {
        self.log.len()
    }

    /// Bytes that the last command put into the log.
    pub fn last_batch_bytes(&self) -> usize {
        self.log.last().map_or(0, |batch| batch.len())
    }
}

/// Writes everything to a store; the turn is sealed.
pub fn store_all(keyspace: &mut Keyspace, store: &MapStore) {
    let mut sweep = OneSweep {
        keyspace,
        sweeping: None,
        complete: false,
    };
    let deep = &mut |_| checkpoint::Deep::Proceed;
    checkpoint::run(store, &mut sweep, Stale::default(), deep).expect("memory is never full");
    while !keyspace.tables_mut().reclaim(usize::from(SLOTS)) {}
}

fn cold(store: &Arc<MapStore>) -> Arc<dyn Cold> {
    Arc::new(StoredKeys::new(store.clone()))
}

/// A checkpoint of one keyspace.
struct OneSweep<'a> {
    keyspace: &'a mut Keyspace,
    sweeping: Option<Sweeping>,
    complete: bool,
}

impl Sweep for OneSweep<'_> {
    fn begin(&mut self) -> Result<Meta, String> {
        self.sweeping = Some(Sweeping::begin(self.keyspace));
        Ok(Meta::default())
    }

    fn next(&mut self) -> Result<Option<checkpoint::Slice>, String> {
        if self.complete {
            return Ok(None);
        }
        let mut slice = SweepSlice::default();
        let sweeping = self.sweeping.as_mut().expect("it has begun");
        sweeping.next(self.keyspace, &mut slice);
        self.complete = slice.complete;
        Ok(Some(slice.slice))
    }

    fn wait_durable(&mut self) -> Result<u64, String> {
        Ok(0)
    }

    fn finished(&mut self, ok: bool) {
        if let Some(sweeping) = self.sweeping.take() {
            sweeping.finish(self.keyspace, ok);
        }
    }
}

/// The arguments of a command line.
pub fn words(line: &str) -> OwnedArgs {
    let mut buffer = line.as_bytes().to_vec();
    buffer.extend_from_slice(b"\r\n");
    let limits = DecodeLimits {
        args_max: 1024,
        bulk_bytes_max: 1 << 20,
        request_bytes_max: 1 << 20,
        authenticated: true,
    };
    let mut decoder = Decoder::new();
    let decoded = decoder
        .decode(&buffer, &limits)
        .expect("a well-formed line");
    assert!(matches!(decoded, Decoded::Request { .. }), "a whole line");
    OwnedArgs::from_slices(decoder.args(&buffer).iter())
}

/// One reply, as redis-cli prints it.
pub fn rendered(reply: &[u8]) -> String {
    let (value, bytes) = Value::parse(reply)
        .expect("a well-formed reply")
        .expect("a whole reply");
    assert_eq!(bytes, reply.len(), "more than one reply");
    value.render()
}

impl Default for Transcript {
    fn default() -> Transcript {
        Transcript::new()
    }
}
