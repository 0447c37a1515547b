//! Hooks of the simulator (`tests/sim`): what ran, in the order in which it ran, and deliberate
//! faults that the simulator must find. Without the feature `simulation`, which no released binary
//! has, all of this is empty.
//!
//! Always true: the hooks tell and never decide, except [`fault`], which is false unless the
//! simulator switched that fault on; what runs while they are muted is not told.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The gate opens when a batch is queued, not when it is durable.
    ReplyBeforeSync,
    /// A reply that only looked at a key does not wait for the key's last write.
    GateOffForReads,
    /// A refusal does not wait for what it tells.
    GateOffForRefusals,
    /// A record is believed although it does not continue the chain.
    ChainNotChecked,
    /// A record is believed although its checksum is wrong.
    TornRecordAccepted,
    /// Nothing behind the end of the log is taken as a proof that more had been synced.
    WitnessIgnored,
    /// A log that ends before what the store's rows were made of is taken for a whole one.
    RowsBeyondLogIgnored,
    /// Nobody looks whether the last segment of the log is there.
    HeadIgnored,
    /// A segment that is shorter than it was made is read up to its end.
    CutSegmentAccepted,
    /// A record counts as durable when it was written, before the sync.
    DurableBeforeSync,
    /// A failed sync is passed over.
    FailedSyncIgnored,
    /// After a kill, what the page cache had is served without being written again.
    UnprovenNotRewritten,
    /// Borrowed shards go home before their effects are queued.
    LentHomeUnsealed,
    /// The effects of the last borrowed shard are forgotten.
    LentEffectsSkipped,
    /// Tokens begin anew after a restart.
    TokenReused,
    /// A checkpoint trims the log up to its end.
    TrimTooEarly,
    /// After a failed checkpoint nothing is dirty.
    SweepForgotten,
    /// A key that expires is not logged as gone.
    ExpiryNotLogged,
    /// Watchers are not told of an expiry.
    WatchMissesExpiry,
    /// A new deadline of a key is not noted, so that nobody deletes the key.
    DeadlineNotNoted,
    /// The map of databases is not logged.
    DatabasesNotLogged,
    /// Key counts are not logged.
    CountMissing,
    /// A command that is refused keeps what it wrote.
    UndoSkipped,
    /// A key leaves memory before the store has its last change.
    DirtyEvicted,
    /// Nobody hears of the deadlines of keys that hibernate.
    DeadlineRowsIgnored,
    /// CLIENT REPLY does not keep replies back.
    SilenceBroken,
    /// A recovery in place gives a shard tokens that another one has.
    ReloadReusesTokens,
    /// A recovery in place forgets who watches.
    ReloadForgetsWatches,
    /// A reply that comes from another shard overtakes those before it.
    ReplyOvertakes,
    /// A key that would have to be read from the store is taken for a missing one.
    SleeperMissing,
    /// A field that would have to be read from the store is taken for a missing one.
    SleepingFieldMissing,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Fault] = &[
        Fault::ReplyBeforeSync,
        Fault::GateOffForReads,
        Fault::GateOffForRefusals,
        Fault::ChainNotChecked,
        Fault::TornRecordAccepted,
        Fault::WitnessIgnored,
        Fault::RowsBeyondLogIgnored,
        Fault::HeadIgnored,
        Fault::CutSegmentAccepted,
        Fault::DurableBeforeSync,
        Fault::FailedSyncIgnored,
        Fault::UnprovenNotRewritten,
        Fault::LentHomeUnsealed,
        Fault::LentEffectsSkipped,
        Fault::TokenReused,
        Fault::TrimTooEarly,
        Fault::SweepForgotten,
        Fault::ExpiryNotLogged,
        Fault::WatchMissesExpiry,
        Fault::DeadlineNotNoted,
        Fault::DatabasesNotLogged,
        Fault::CountMissing,
        Fault::UndoSkipped,
        Fault::DirtyEvicted,
        Fault::DeadlineRowsIgnored,
        Fault::SilenceBroken,
        Fault::ReloadReusesTokens,
        Fault::ReloadForgetsWatches,
        Fault::ReplyOvertakes,
        Fault::SleeperMissing,
        Fault::SleepingFieldMissing,
    ];
}

#[cfg(feature = "simulation")]
pub use told::*;
#[cfg(not(feature = "simulation"))]
pub use untold::*;

/// As the simulator sees it.
#[cfg(feature = "simulation")]
mod told {
    use std::cell::{Cell, RefCell};
    use std::ops::Range;

    use bytes::Bytes;

    use super::Fault;
    use crate::command::Row;
    use crate::keyspace::txn::{Owners, WatchedKey};
    use crate::resp::decode::{Args, OwnedArgs};
    use crate::shard::{Context, Ended};

    /// Whose request something runs for: client, and number of the request.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Origin {
        /// Client id.
        pub client: u64,
        /// 0 is its first request.
        pub request: u64,
    }

    /// Counts the requests of a connection.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Requests(u64);

    impl Requests {
        /// One more is done with.
        pub fn next(&mut self) {
            self.0 += 1;
        }

        /// The origin of what runs for the current request.
        pub fn origin(self, client: u64) -> Origin {
            let request = self.0;
            Origin { client, request }
        }
    }

    /// The shards that something ran on, by their slots, and their time.
    #[derive(Clone, Debug, Default)]
    pub struct Scene {
        /// Ascending.
        pub slots: Vec<Range<u16>>,
        /// ms since the Unix epoch.
        pub now_ms: u64,
    }

    /// Something that happened. Events come in the order in which they took effect.
    #[derive(Clone)]
    pub enum Event {
        /// A command ran.
        Ran {
            /// Where.
            at: Scene,
            /// For whom, and how.
            context: Context,
            /// What.
            row: Row,
            /// With what.
            args: OwnedArgs,
            /// How it ended.
            ended: Ended,
            /// Its reply.
            reply: Vec<u8>,
        },
        /// A block begins: the commands that follow are its own.
        Block {
            /// Where.
            at: Scene,
            /// For whom.
            context: Context,
            /// What had to be as it was.
            watched: Vec<WatchedKey>,
            /// What had to hold.
            conditions: Vec<crate::session::Condition>,
            /// It does run.
            runs: bool,
        },
        /// The block that ran is over.
        BlockDone(Context, Vec<u8>),
        /// Keys are watched.
        Watched(Scene, Context, Vec<WatchedKey>),
        /// Watches ended.
        Unwatched(Scene, Context, Vec<WatchedKey>),
        /// What of a key of this database was past its deadline is deleted in the background.
        Expired(Scene, u32, Vec<u8>),
        /// A command found these keys past their deadline, and was put off.
        PutOff(Scene, Vec<(u32, Vec<u8>)>),
        /// A batch was queued.
        Appended(u64, Bytes),
        /// The turn of the shard with these slots was queued.
        Sealed(Range<u16>, u64),
        /// The shard with these slots knows that everything up to here is durable.
        Durable(Range<u16>, u64),
        /// A token was handed out for a key.
        Token(Vec<u8>, u64),
        /// The running command gave a database a new id: the map now, and the next unused id.
        Flushed(Vec<u32>, u32),
    }

    thread_local! {
        static EVENTS: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
        static MUTED: Cell<bool> = const { Cell::new(true) };
        static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
        static OVERDUE: RefCell<Vec<(u32, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
    }

    /// Whether this deliberate bug is there.
    pub fn fault(fault: Fault) -> bool {
        !MUTED.get() && FAULT.get() == Some(fault)
    }

    /// Switches a deliberate bug of this thread on.
    pub fn set_fault(fault: Option<Fault>) {
        FAULT.set(fault);
    }

    /// Muted, nothing is told on this thread, and no deliberate bug is there. Returns what was.
    pub fn mute(muted: bool) -> bool {
        MUTED.replace(muted)
    }

    /// What was told since the last call.
    pub fn take_events() -> Vec<Event> {
        EVENTS.with_borrow_mut(std::mem::take)
    }

    fn tell(event: impl FnOnce() -> Event) {
        if !MUTED.get() {
            EVENTS.with_borrow_mut(|events| events.push(event()));
        }
    }

    /// Where a command is about to run.
    pub fn scene(owners: &Owners<'_>) -> Scene {
        if MUTED.get() {
            return Scene::default();
        }
        let (slots, now_ms) = owners.scene();
        Scene { slots, now_ms }
    }

    /// A command ran.
    pub fn ran(
        at: Scene,
        context: Context,
        row: &Row,
        args: Args<'_>,
        (ended, reply): (Ended, &[u8]),
    ) {
        tell(|| Event::Ran {
            at,
            context,
            row: *row,
            args: OwnedArgs::from_slices(args.iter()),
            ended,
            reply: reply.to_vec(),
        });
    }

    /// A block begins, or may not run.
    pub fn block(at: Scene, context: Context, block: &crate::shard::BlockCall, runs: bool) {
        tell(|| Event::Block {
            at,
            context,
            watched: block.watched.clone(),
            conditions: block.conditions.clone(),
            runs,
        });
    }

    /// A block is over.
    pub fn block_done(context: Context, reply: &[u8]) {
        tell(|| Event::BlockDone(context, reply.to_vec()));
    }

    /// Keys are watched.
    pub fn watched(at: Scene, context: Context, watched: &[WatchedKey]) {
        tell(|| Event::Watched(at, context, watched.to_vec()));
    }

    /// Watches ended.
    pub fn unwatched(at: Scene, context: Context, watched: &[WatchedKey]) {
        tell(|| Event::Unwatched(at, context, watched.to_vec()));
    }

    /// Expiry of a key in the background.
    pub fn expired(slots: Range<u16>, now_ms: u64, database: u32, key: &[u8]) {
        let slots = vec![slots];
        tell(|| Event::Expired(Scene { slots, now_ms }, database, key.to_vec()));
    }

    /// A command begins to look at keys.
    pub fn begins() {
        OVERDUE.with_borrow_mut(Vec::clear);
    }

    /// A key is past its deadline, or fields of it are, and is being deleted.
    pub fn overdue(database: u32, key: &[u8]) {
        if !MUTED.get() {
            OVERDUE.with_borrow_mut(|overdue| overdue.push((database, key.to_vec())));
        }
    }

    /// The command is taken back; what it deleted because it was past its deadline is gone.
    pub fn put_off(owners: &Owners<'_>) {
        let overdue = OVERDUE.with_borrow_mut(std::mem::take);
        if !overdue.is_empty() {
            tell(|| Event::PutOff(scene(owners), overdue));
        }
    }

    /// A batch was queued.
    pub fn appended(lsn: u64, payload: Payload) {
        tell(|| Event::Appended(lsn, payload));
    }

    /// A copy of a batch that is about to be queued.
    pub fn payload(parts: &[Bytes]) -> Payload {
        parts.concat().into()
    }

    /// See [`payload`].
    pub type Payload = Bytes;

    /// A turn was queued.
    pub fn sealed(slots: Range<u16>, lsn: u64) {
        tell(|| Event::Sealed(slots, lsn));
    }

    /// A shard was told what is durable.
    pub fn durable(slots: Range<u16>, lsn: u64) {
        tell(|| Event::Durable(slots, lsn));
    }

    /// A database has a new id.
    pub fn flushed(databases: &crate::keyspace::Databases) {
        tell(|| Event::Flushed(databases.ids().to_vec(), databases.next()));
    }

    /// A token was handed out.
    pub fn token(key: &[u8], token: Option<u64>) {
        if let Some(token) = token {
            tell(|| Event::Token(key.to_vec(), token));
        }
    }
}

/// As everybody else has it: nothing.
#[cfg(not(feature = "simulation"))]
mod untold {
    use std::ops::Range;

    use bytes::Bytes;

    use super::Fault;
    use crate::command::Row;
    use crate::keyspace::txn::{Owners, WatchedKey};
    use crate::resp::decode::Args;
    use crate::shard::{BlockCall, Context, Ended};

    /// Nothing.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Origin;

    /// Nothing.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Requests {}

    impl Requests {
        /// Nothing.
        #[inline(always)]
        pub fn next(&mut self) {}

        /// Nothing.
        #[inline(always)]
        pub fn origin(self, _client: u64) -> Origin {
            Origin
        }
    }

    /// Nothing.
    #[derive(Clone, Copy, Debug)]
    pub struct Scene;

    /// Never.
    #[inline(always)]
    pub const fn fault(_fault: Fault) -> bool {
        false
    }

    /// Nothing.
    #[inline(always)]
    pub fn scene(_owners: &Owners<'_>) -> Scene {
        Scene
    }

    /// Nothing.
    #[inline(always)]
    pub fn ran(_: Scene, _: Context, _: &Row, _: Args<'_>, _: (Ended, &[u8])) {}

    /// Nothing.
    #[inline(always)]
    pub fn block(_: Scene, _: Context, _: &BlockCall, _: bool) {}

    /// Nothing.
    #[inline(always)]
    pub fn block_done(_: Context, _: &[u8]) {}

    /// Nothing.
    #[inline(always)]
    pub fn watched(_: Scene, _: Context, _: &[WatchedKey]) {}

    /// Nothing.
    #[inline(always)]
    pub fn unwatched(_: Scene, _: Context, _: &[WatchedKey]) {}

    /// Nothing.
    #[inline(always)]
    pub fn expired(_: Range<u16>, _: u64, _: u32, _: &[u8]) {}

    /// Nothing.
    #[inline(always)]
    pub fn begins() {}

    /// Nothing.
    #[inline(always)]
    pub fn overdue(_: u32, _: &[u8]) {}

    /// Nothing.
    #[inline(always)]
    pub fn put_off(_: &Owners<'_>) {}

    /// Nothing.
    #[inline(always)]
    pub fn appended(_: u64, _: Payload) {}

    /// Nothing.
    #[inline(always)]
    pub fn payload(_: &[Bytes]) -> Payload {
        Payload
    }

    /// Nothing.
    #[derive(Clone, Copy, Debug)]
    pub struct Payload;

    /// Nothing.
    #[inline(always)]
    pub fn sealed(_: Range<u16>, _: u64) {}

    /// Nothing.
    #[inline(always)]
    pub fn durable(_: Range<u16>, _: u64) {}

    /// Nothing.
    #[inline(always)]
    pub fn flushed(_: &crate::keyspace::Databases) {}

    /// Nothing.
    #[inline(always)]
    pub fn token(_: &[u8], _: Option<u64>) {}
}
