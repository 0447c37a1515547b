//! Hashes that are here in part, against the same hashes in memory: random commands, also groups
//! that are taken back, while checkpoints are under way, some of which fail; fields and keys leave
//! memory, are held and let go, and come when they are old; servers start again from the store and
//! some or all of the log behind it. Nobody may notice.

use std::sync::Arc;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::command::transcript::{rendered, store_all, words};
use crate::command::{Run, table};
use crate::keyspace::Databases;
use crate::keyspace::codec::{BatchBuilder, Mutations};
use crate::keyspace::input_gate::{Hold, Name, Part, Read, Rows};
use crate::keyspace::owned::{Keyspace, Origin};
use crate::keyspace::tokens::TokenSource;
use crate::keyspace::txn::{Owners, Txn};
use crate::reply::Reply;
use crate::residency::{StoredKeys, counts, due_rows};
use crate::resp::Protocol;
use crate::shard::mailbox::SweepSlice;
use crate::store::checkpoint::{self, Deep, Slice, Stale, Sweep};
use crate::store::row::deadlines;
use crate::store::{MapStore, Meta};
use crate::worker::sweep::Sweeping;

const SEED: u64 = 1;
/// Hashes, and fields that commands name; a few commands name more.
const HASHES: u64 = 3;
const FIELDS: u64 = 12;
/// Checkpoints of a run.
const CHECKPOINTS: usize = 60;
/// Commands that are shown when something is wrong.
const SHOWN: usize = 40;

/// Runs commands as one; `kept`: not to be taken back. Returns their replies.
fn run(keyspace: &mut Keyspace, lines: &[String], kept: bool) -> String {
    let mut txn = Txn::new(Owners::One(keyspace), 0);
    let mut replies = String::new();
    for line in lines {
        let words = words(line);
        let row = table().find(words.args()).expect("a known command");
        let Run::Keys(run) = table().row(row).run else {
            panic!("{line} is no command on keys");
        };
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        if let Err(reject) = run(&mut txn, words.args(), &mut reply) {
            txn.roll_back();
            out.clear();
            Reply::new(&mut out, Protocol::Resp2).error(&reject);
            return rendered(&out);
        }
        replies += &rendered(&out);
    }
    assert_eq!(txn.unreadable(), None);
    match kept {
        true => txn.commit(),
        false => txn.roll_back(),
    };
    replies
}

/// Somebody needs something, and what was read for them has not come yet.
struct Holder {
    name: Name,
    coming: Option<Rows>,
}

struct World {
    rng: Xoshiro256PlusPlus,
    origin: Origin,
    store: Arc<MapStore>,
    /// The one that is tested, and the one that keeps everything in memory.
    tested: Keyspace,
    plain: Keyspace,
    holders: Vec<Holder>,
    tickets: u64,
    log: Vec<Bytes>,
    /// Batches that the store has, and that it will have when the sweep ends.
    stored: usize,
    swept: usize,
    sweeping: Option<Sweeping>,
    complete: bool,
    fails: bool,
    starts: u64,
    done: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let slot = redis_protocol::redis_keyslot(b"t");
        let origin = Origin {
            slots: slot..slot + 1,
            seed: SEED,
            databases: Databases::new(16),
            tokens: TokenSource::above(0),
            random_seed: 1,
        };
        let store = Arc::new(MapStore::new());
        let [mut tested, mut plain] = [(); 2].map(|()| Keyspace::new(origin.clone()));
        for keyspace in [&mut tested, &mut plain] {
            keyspace.set_now_ms(1_700_000_000_000);
        }
        tested.set_cold(Arc::new(StoredKeys::new(store.clone())));
        tested.set_gated();
        World {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            origin,
            store,
            tested,
            plain,
            holders: Vec::new(),
            tickets: 0,
            log: Vec::new(),
            stored: 0,
            swept: 0,
            sweeping: None,
            complete: false,
            fails: false,
            starts: 0,
            done: Vec::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    /// The last things that were done.
    fn recent(&self) -> &[String] {
        &self.done[self.done.len().saturating_sub(SHOWN)..]
    }

    fn hash(&mut self) -> String {
        format!("{{t}}h{}", self.below(HASHES))
    }

    fn field(&mut self) -> String {
        format!("f{}", self.below(FIELDS))
    }

    /// A random command on a hash.
    fn line(&mut self) -> String {
        let key = self.hash();
        let [a, b, c] = [(); 3].map(|()| self.field());
        let value = self.below(50);
        let (near, far) = (1 + self.below(3), 700 + self.below(5) * 300);
        let from = self.below(3) * 20;
        match self.below(38) {
            0..=5 => format!("HSET {key} {a} {value}"),
            6..=8 => format!("HSET {key} {a} {value} {b} {value} {c} {value}"),
            9 => {
                let pairs: String = (from..from + 30)
                    .map(|n| format!(" f{n} {value}"))
                    .collect();
                format!("HSET {key}{pairs}")
            }
            10..=12 => format!("HDEL {key} {a} {b} {c}"),
            13 => {
                let names: String = (5..60).map(|number| format!(" f{number}")).collect();
                format!("HDEL {key}{names}")
            }
            14..=16 => format!("HMGET {key} {a} {b} {c}"),
            17..=18 => format!("HLEN {key}"),
            19 => format!("HGETALL {key}"),
            20 => format!("DEL {key}"),
            21 => format!("RENAME {key} {}", self.hash()),
            22 => format!("COPY {key} {} REPLACE", self.hash()),
            23 => format!("SET {key} {value}"),
            24 => format!("EXPIRE {key} {far}"),
            25 => format!("EXPIRE {key} {near}"),
            26 => format!("PERSIST {key}"),
            27..=28 => format!("HEXPIRE {key} {far} FIELDS 2 {a} {b}"),
            29 => format!("HEXPIRE {key} {near} FIELDS 2 {a} {b}"),
            30..=31 => format!("HPERSIST {key} FIELDS 2 {a} {b}"),
            32 => format!("HGETDEL {key} FIELDS 2 {a} {b}"),
            33..=34 => format!("HINCRBY {key} {a} 1"),
            35 => format!("HSETEX {key} EX {far} FIELDS 1 {a} {value}"),
            _ => "DBSIZE".to_owned(),
        }
    }

    /// The turn ends.
    fn seal(&mut self) {
        for (tested, keyspace) in [(true, &mut self.tested), (false, &mut self.plain)] {
            if keyspace.has_effects() {
                let lsn = keyspace.turn().last_lsn() + 1;
                let mut batch = BatchBuilder::default();
                keyspace.seal(&mut batch);
                keyspace.sealed(lsn);
                keyspace.durable(lsn);
                let batch = batch.finish().concat();
                self.log.extend(tested.then(|| batch.into()));
            }
        }
    }

    /// Both do the same, and answer the same.
    fn check(&mut self, line: String) {
        self.done.push(line.clone());
        let lines = [line];
        let tested = run(&mut self.tested, &lines, true);
        let plain = run(&mut self.plain, &lines, true);
        assert_eq!(tested, plain, "behind {:#?}", self.recent());
    }

    /// A few commands, and what else happens meanwhile.
    fn live(&mut self) {
        for _ in 0..self.below(6) {
            if self.below(5) == 0 {
                let lines: Vec<String> = (0..=self.below(3)).map(|_| self.line()).collect();
                self.done.push(format!("taken back: {lines:?}"));
                run(&mut self.tested, &lines, false);
            }
            let line = self.line();
            self.check(line);
            match self.below(9) {
                0..=2 => self.seal(),
                3..=4 => self.evict(),
                5 => self.hold(),
                6 => self.come(),
                7 => self.let_go(),
                _ => {}
            }
        }
        if self.below(4) == 0 {
            self.pass_time();
        }
    }

    fn evict(&mut self) {
        self.seal();
        self.done.push("eviction".to_owned());
        self.tested.evict(0, usize::MAX, true);
        if self.tested.tables().live() == 0 {
            self.tested.forget_hints();
        }
    }

    // ---- what is held ------------------------------------------------------------------------

    fn hold(&mut self) {
        let name = Name {
            database: 0,
            key: self.hash().into_bytes().into(),
            part: match self.below(4) {
                0 => Part::Key,
                1 => Part::Fields,
                _ => Part::Field(self.field().into_bytes().into()),
            },
        };
        self.hold_name(name);
    }

    /// What has to be read is read now, and comes some time later.
    fn hold_name(&mut self, name: Name) {
        self.done.push(format!("hold {name:?}"));
        self.tickets += 1;
        let coming = match self.tested.hold(&name, self.tickets) {
            Hold::Read(read) => Some(self.perform(read)),
            Hold::Here | Hold::Reading(_) => None,
        };
        self.holders.push(Holder { name, coming });
    }

    fn perform(&self, read: Read) -> Rows {
        read.perform(&StoredKeys::new(self.store.clone()), SEED)
    }

    fn holder(&mut self) -> Option<usize> {
        let count = self.holders.len() as u64;
        (count > 0).then(|| self.below(count) as usize)
    }

    fn come(&mut self) {
        if let Some(place) = self.holder()
            && let Some(Rows::Key(ticket, name, found)) = self.holders[place].coming.take()
        {
            self.done.push(format!("come {name:?}"));
            self.tested.came(ticket, &name, found);
        }
    }

    fn let_go(&mut self) {
        if let Some(place) = self.holder() {
            let holder = self.holders.swap_remove(place);
            self.done.push(format!("let go {:?}", holder.name));
            self.tested.let_go(&holder.name);
            if let Some(Rows::Key(ticket, name, found)) = holder.coming {
                self.tested.came(ticket, &name, found);
            }
        }
    }

    // ---- time --------------------------------------------------------------------------------

    fn pass_time(&mut self) {
        let ms = match self.below(3) {
            0 => self.below(400_000),
            _ => self.below(1_500),
        };
        self.seal();
        self.done.push(format!("{ms} ms"));
        let now_ms = self.tested.now_ms() + ms;
        let until_ms = now_ms + 1;
        self.tested.set_now_ms(now_ms);
        self.plain.set_now_ms(now_ms);
        let (from, _) = deadlines(0, until_ms);
        let due = due_rows(&*self.store, &from, until_ms, usize::MAX, SEED);
        let due = due.expect("memory has no damage");
        self.tested.set_horizon_ms(until_ms);
        self.tested.take_hints(&due.hints, until_ms);
        while !self.plain.expire(16) {}
        self.expire();
        self.seal();
        self.check("DBSIZE".to_owned());
    }

    /// What is due expires, also what has to be read for that.
    fn expire(&mut self) {
        let mut kept: Vec<(u64, Vec<Name>)> = Vec::new();
        loop {
            while !self.tested.expire(16) {}
            for id in self.tested.take_done() {
                let names = kept.iter().find(|(other, _)| *other == id);
                for name in names.into_iter().flat_map(|(_, names)| names) {
                    self.tested.let_go(name);
                }
            }
            let hints = self.tested.take_due();
            if hints.is_empty() {
                return;
            }
            for hint in hints {
                let Rows::Due(hint, found) = self.perform(Read::Due(hint)) else {
                    panic!("hints lead to keys")
                };
                let names = self.tested.due_came(hint, found);
                for name in &names {
                    self.tickets += 1;
                    // What somebody else reads comes first.
                    let ticket = self.tickets;
                    self.come_all();
                    if let Hold::Read(read) = self.tested.hold(name, ticket)
                        && let Rows::Key(ticket, name, found) = self.perform(read)
                    {
                        self.tested.came(ticket, &name, found);
                    }
                }
                self.tickets += 1;
                if !names.is_empty() && self.tested.due_fetched(hint, &names, self.tickets) {
                    kept.push((self.tickets, names));
                }
            }
        }
    }

    fn come_all(&mut self) {
        for holder in &mut self.holders {
            if let Some(Rows::Key(ticket, name, found)) = holder.coming.take() {
                self.tested.came(ticket, &name, found);
            }
        }
    }

    // ---- starts ------------------------------------------------------------------------------

    /// The server begins again: on what the store has, and the log behind that or further back.
    fn start_again(&mut self) {
        self.seal();
        let mut keyspace = Keyspace::new(self.origin.clone());
        keyspace.set_now_ms(self.tested.now_ms());
        keyspace.set_cold(Arc::new(StoredKeys::new(self.store.clone())));
        let counts = counts(&*self.store).expect("memory has no damage");
        keyspace.begin_replay(counts.into_iter());
        let from = match self.below(2) {
            0 => self.stored,
            _ => self.below(self.stored as u64 + 1) as usize,
        };
        self.done
            .push(format!("start from {from} of {}", self.log.len()));
        for batch in &self.log[from..] {
            for mutation in Mutations::of(batch) {
                keyspace.apply(mutation.expect("what was written can be read"));
            }
        }
        if let Err(error) = keyspace.end_replay() {
            panic!("{error} behind {:#?}", self.recent());
        }
        self.starts += 1;
        keyspace.set_tokens(TokenSource::above(self.starts << 40));
        keyspace.set_gated();
        self.holders.clear();
        self.tested = keyspace;
    }
}

impl Sweep for World {
    fn begin(&mut self) -> Result<Meta, String> {
        self.seal();
        self.done.push("sweep".to_owned());
        self.swept = self.log.len();
        self.sweeping = Some(Sweeping::begin(&mut self.tested));
        self.complete = false;
        self.live();
        Ok(Meta::default())
    }

    fn next(&mut self) -> Result<Option<Slice>, String> {
        self.seal();
        let mut swept = None;
        if !self.complete {
            let mut slice = SweepSlice::default();
            let sweeping = self.sweeping.as_mut().expect("it has begun");
            sweeping.next(&mut self.tested, &mut slice);
            self.done.push("slice".to_owned());
            self.complete = slice.complete;
            swept = Some(slice.slice);
        }
        self.live();
        Ok(swept)
    }

    fn wait_durable(&mut self) -> Result<u64, String> {
        self.seal();
        match self.fails {
            true => Err("it fails".into()),
            false => Ok(0),
        }
    }

    fn finished(&mut self, ok: bool) {
        self.done.push(format!("sweep ends, stored: {ok}"));
        let sweeping = self.sweeping.take().expect("it has begun");
        sweeping.finish(&mut self.tested, ok);
        if ok {
            self.stored = self.swept;
        }
    }
}

fn run_seed(seed: u64) {
    let mut world = World::new(seed);
    let store = world.store.clone();
    for _ in 0..CHECKPOINTS {
        world.live();
        world.fails = world.below(4) == 0;
        let fails = world.fails;
        let deep = &mut |_| Deep::Proceed;
        let done = checkpoint::run(&*store, &mut world, Stale::default(), deep);
        assert_eq!(done.is_err(), fails);
        if world.below(2) == 0 {
            world.tested.tables_mut().reclaim(1_000);
        }
        world.live();
        if world.below(4) == 0 {
            world.start_again();
        }
    }
    // Nothing is left but what is needed, and what it takes was counted right.
    while !world.holders.is_empty() {
        world.let_go();
    }
    assert_eq!(world.tested.gated(), 0, "seed {seed}");
    world.seal();
    for hash in 0..HASHES {
        world.check(format!("HGETALL {{t}}h{hash}"));
        world.check(format!("PTTL {{t}}h{hash}"));
    }
    world.seal();
    store_all(&mut world.tested, &store);
    world.evict();
    let tables = world.tested.tables();
    assert_eq!(
        (tables.live(), tables.bytes()),
        (0, tables.skeleton_bytes())
    );
}

#[test]
fn nobody_notices_which_fields_are_here() {
    let seeds = match std::env::var("TALLYMAN_TEST_SEEDS") {
        Ok(seeds) => seeds.parse().expect("a number"),
        Err(_) => 20,
    };
    for seed in 0..seeds {
        println!("seed {seed}");
        run_seed(seed);
    }
}
