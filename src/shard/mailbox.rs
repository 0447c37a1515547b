//! What shard threads send each other.
//!
//! Always true: what one thread may have on its way to another is bounded: calls by the credit that
//! the sender holds for each receiver, the rest by the number of connections and shards. So a send
//! never waits, and mailboxes cannot block each other in a circle.

use bytes::Bytes;

use crate::command::RowId;
use crate::conn::reply_queue::Place;
use crate::keyspace::deadlines::Hint;
use crate::keyspace::input_gate::{Name, Rows};
use crate::keyspace::{Keyspace, Wait};
use crate::resp::decode::OwnedArgs;
use crate::shard::{BlockCall, Context};

/// The number of a shard and of its thread.
pub type ShardId = usize;

/// A connection of a thread: its place and a number that is never used twice there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Place in the thread's list.
    pub index: u32,
    /// Client id.
    pub client: u64,
}

/// Something to run on the shard of its keys.
#[derive(Debug)]
pub enum Work {
    /// One command.
    Command(RowId, OwnedArgs),
    /// A MULTI block of commands on keys.
    Block(Box<BlockCall>),
}

/// One call on its way.
#[derive(Debug)]
pub struct Call {
    /// Where its reply belongs.
    pub place: Place,
    /// Where and how it runs.
    pub context: Context,
    /// What to run.
    pub work: Work,
    /// It is a part of a command, which is counted where it comes from.
    pub part: bool,
}

/// The calls of one connection's pipeline for one shard.
#[derive(Debug)]
pub struct Calls {
    /// Thread of the connection.
    pub from: ShardId,
    /// The connection.
    pub conn: ConnId,
    /// In request order.
    pub calls: Vec<Call>,
}

/// Replies on their way back.
#[derive(Debug, Default)]
pub struct Answers {
    /// All replies, one behind the other.
    pub bytes: Vec<u8>,
    /// Of each reply: its place, the end of its bytes, and what it has to wait for.
    pub ends: Vec<(Place, usize, Wait)>,
}

/// A slice of a checkpoint's sweep.
#[derive(Debug)]
pub enum SweepStep {
    /// Begin.
    Begin,
    /// Give the next slice.
    Next,
    /// It ended; `true`: everything is stored.
    Finished(bool),
}

/// Rows of a slice, and whether the sweep of this shard is complete.
#[derive(Debug, Default)]
pub struct SweepSlice {
    /// Rows in ascending order, and deadline rows.
    pub slice: crate::store::checkpoint::Slice,
    /// Nothing follows.
    pub complete: bool,
    /// Rows of hashes that are gone are among them.
    pub retired: bool,
    /// At the beginning: everything that was due before this has expired.
    pub expired_until_ms: u64,
    /// But for this, which could not be read.
    pub stuck: Vec<Hint>,
    /// At the beginning: the shard's map of databases, and the next unused id.
    pub databases: Option<(Vec<u32>, u32)>,
}

/// A message to a shard thread.
pub enum Message {
    /// Calls to run.
    Calls(Calls),
    /// Replies to calls of this thread's connection; so many calls' credit comes back.
    Answers {
        /// The shard that answers.
        from: ShardId,
        /// The connection.
        conn: ConnId,
        /// The replies.
        answers: Answers,
    },
    /// Lend your shard to the coordinator `ticket` on thread `to`.
    Lend {
        /// Thread of the coordinator.
        to: ShardId,
        /// The coordinator.
        ticket: u64,
    },
    /// A shard that was asked for.
    Lent {
        /// The coordinator.
        ticket: u64,
        /// The shard.
        keyspace: Box<Keyspace>,
    },
    /// Your shard comes home; its last write is at `lsn`.
    Home {
        /// The shard.
        keyspace: Box<Keyspace>,
    },
    /// A line for this thread's monitors; it waits for `wait`.
    Monitor(Bytes, Wait),
    /// Use this keyspace from now on: what was recovered in place.
    Replace(Box<Keyspace>),
    /// Part of a checkpoint.
    Sweep(SweepStep, std::sync::mpsc::Sender<SweepSlice>),
    /// The store's deadline rows before this are going to be read.
    Horizon(u64),
    /// Hints from the store's deadline rows; all that is due before this was read. The answer says
    /// by how many ms the expiry here is behind.
    Hints(Vec<Hint>, u64, std::sync::mpsc::Sender<u64>),
    /// What was read from the store.
    Rows(Rows),
    /// The coordinator `ticket` on thread `to` needs these keys, soon.
    Fetch {
        /// Thread of the coordinator.
        to: ShardId,
        /// What it calls this.
        ticket: u64,
        /// The keys, of this shard.
        names: Vec<Name>,
    },
    /// The keys that the coordinator `ticket` asked for are here, until it releases them.
    Fetched {
        /// What the coordinator calls it.
        ticket: u64,
        /// The shard that has them.
        shard: ShardId,
        /// What that shard calls it.
        fetch: u64,
    },
    /// The keys of this fetch are here: there was nothing left to read.
    Here(u64),
    /// Keys that were fetched are not needed any more.
    Release(u64),
    /// What a connection asked of the server is done; an error text if it failed.
    Done(ConnId, Result<(), String>),
}

impl Message {
    /// How much there is to do for it, in calls; `None`: somebody stands still until it arrives.
    pub fn calls(&self) -> Option<usize> {
        match self {
            Message::Calls(calls) => Some(calls.calls.len()),
            Message::Answers { answers, .. } => Some(answers.ends.len()),
            Message::Lend { .. } | Message::Lent { .. } | Message::Home { .. } => None,
            _ => Some(1),
        }
    }
}
