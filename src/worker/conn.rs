//! One connection as its thread sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::spec::Across;
use crate::command::{LastFound, RowId};
use crate::conn::reply_queue::{Place as ReplyPlace, ReplyQueue};
use crate::keyspace::Wait;
use crate::resp::Protocol;
use crate::resp::decode::Decoder;
use crate::route::ShardSet;
use crate::session::{Block, Client, ReplyMode, Session};
use crate::shard::mailbox::{Call, ConnId, ShardId};
use crate::sim;

/// Why a connection's next requests have to wait.
#[derive(Debug)]
pub enum Barrier {
    /// Shards are being borrowed for it.
    Lending,
    /// Keys of its request are being read.
    Reading,
    /// Parts of a fan-out are on their way.
    Fan(Fan),
    /// WAIT or WAITAOF.
    Durable {
        /// Place of the reply.
        place: ReplyPlace,
        /// Position to wait for.
        lsn: Option<u64>,
        /// The reply's first element when it is reached.
        local: i64,
        /// Reply is one integer (WAIT) instead of two (WAITAOF).
        single: bool,
        /// Never reached: wait out the time.
        hopeless: bool,
        /// End of the wait, ms since the Unix epoch; 0: none.
        until_ms: u64,
    },
    /// The server does something for it; the reply's place.
    Server(ReplyPlace),
}

/// A fan-out whose parts come in.
#[derive(Debug)]
pub struct Fan {
    /// Place of the reply.
    pub place: ReplyPlace,
    /// The command.
    pub row: RowId,
    /// How parts become one.
    pub across: Across,
    /// Protocol of the reply.
    pub protocol: Protocol,
    /// Shard, places of its keys, and its reply.
    pub parts: Vec<(ShardId, Vec<u32>, Option<Vec<u8>>)>,
    /// What the whole reply has to wait for.
    pub wait: Wait,
}

/// What the commands of a block need.
#[derive(Debug, Default)]
pub(super) struct BlockNeeds {
    /// Shards of their keys.
    pub(super) shards: ShardSet,
    /// One of them sees the session.
    pub(super) sessions: bool,
}

/// A connection.
pub struct Conn {
    /// Its place and client id.
    pub id: ConnId,
    /// What commands see of it.
    pub session: Session,
    /// Reads requests.
    pub(super) decoder: Decoder,
    /// The command of the request before.
    pub(super) last_found: LastFound,
    /// Bytes that were read and not yet run.
    pub(super) input: Vec<u8>,
    /// The decoder needs so many bytes to go on.
    pub(super) input_wanted: usize,
    /// Replies in order.
    pub queue: ReplyQueue,
    /// Why the next request waits.
    pub(super) barrier: Option<Barrier>,
    /// What keeps the keys of the next request in memory.
    pub(super) fetch: Option<u64>,
    /// What the commands of a block that is being queued need.
    pub(super) block_needs: BlockNeeds,
    /// Calls for other shards that were not sent yet.
    pub(super) outgoing: Vec<(ShardId, Vec<Call>)>,
    /// How many calls each shard has not answered yet; those of a fan-out do not count.
    calls_away: Vec<(ShardId, usize)>,
    /// Places of replies that CLIENT REPLY suppresses.
    pub(super) suppressed: Vec<ReplyPlace>,
    /// Nothing more is read or run; closed when everything is sent.
    pub closing: bool,
    /// The client will send nothing more; closed when what it sent is answered.
    pub eof: bool,
    /// In the list of those that wait for the running turn.
    pub(super) in_turn: bool,
    /// Position that it waits for at the gate; 0: none.
    pub(super) gate_lsn: u64,
    pub(super) held_since_ns: u64,
    /// The next request may be there already.
    pub(super) more: bool,
    /// Told to the simulator alone.
    pub(super) requests: sim::Requests,
}

/// A connection that has nothing but its client's choices: most connections, most of the time.
pub struct Resting {
    client: Arc<Client>,
    database: u32,
    protocol: Protocol,
    authenticated: bool,
    requests: sim::Requests,
}

/// A place for a connection.
#[derive(Default)]
pub(super) enum Place {
    /// Nobody's.
    #[default]
    Free,
    /// A connection in use.
    Busy(Box<Conn>),
    /// One that takes less memory until it is used.
    Resting(Resting),
}

impl Resting {
    /// A fresh connection.
    pub(super) fn new(session: &Session) -> Resting {
        Resting {
            client: session.client.clone(),
            database: session.database as u32,
            protocol: session.protocol,
            authenticated: session.authenticated,
            requests: sim::Requests::default(),
        }
    }

    /// The same at its place, to be used.
    fn wake(self, index: u32) -> Box<Conn> {
        let client = self.client.id;
        let mut session = Session::new(self.client, self.authenticated);
        session.database = self.database as usize;
        session.protocol = self.protocol;
        let mut conn = Conn::new(ConnId { index, client }, session);
        conn.requests = self.requests;
        Box::new(conn)
    }
}

impl Place {
    /// Whose it is: the client's id.
    pub(super) fn client_id(&self) -> Option<u64> {
        match self {
            Place::Free => None,
            Place::Busy(conn) => Some(conn.id.client),
            Place::Resting(resting) => Some(resting.client.id),
        }
    }

    /// The client's record.
    pub(super) fn client(&self) -> Option<&Arc<Client>> {
        match self {
            Place::Free => None,
            Place::Busy(conn) => Some(&conn.session.client),
            Place::Resting(resting) => Some(&resting.client),
        }
    }

    /// The connection, unless it rests.
    pub(super) fn busy(&mut self) -> Option<&mut Conn> {
        match self {
            Place::Busy(conn) => Some(conn),
            _ => None,
        }
    }

    /// Ends the connection's rest at its place `index`; whether it did rest.
    pub(super) fn wake(&mut self, index: u32) -> bool {
        if !matches!(self, Place::Resting(_)) {
            return false;
        }
        if let Place::Resting(resting) = std::mem::take(self) {
            *self = Place::Busy(resting.wake(index));
        }
        true
    }

    /// Takes the connection out, unless it rests.
    pub(super) fn take_busy(&mut self) -> Option<Box<Conn>> {
        match std::mem::take(self) {
            Place::Busy(conn) => Some(conn),
            place => {
                *self = place;
                None
            }
        }
    }

    /// Lets the connection rest if it was not used since `since_ms` and has nothing to remember;
    /// whether it is still in use.
    pub(super) fn rest(&mut self, since_ms: u64) -> bool {
        let Place::Busy(conn) = self else {
            return false;
        };
        let active_ms = conn.session.client.active_ms.load(Ordering::Relaxed);
        if active_ms > since_ms || !conn.can_rest() {
            return true;
        }
        let mut resting = Resting::new(&conn.session);
        resting.requests = conn.requests;
        *self = Place::Resting(resting);
        false
    }
}

/// So many bytes are read ahead of a request that has to wait.
const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;

impl Conn {
    /// A fresh connection.
    pub fn new(id: ConnId, session: Session) -> Conn {
        Conn {
            id,
            session,
            decoder: Decoder::new(),
            last_found: LastFound::default(),
            input: Vec::new(),
            input_wanted: 0,
            queue: ReplyQueue::default(),
            barrier: None,
            fetch: None,
            block_needs: BlockNeeds::default(),
            outgoing: Vec::new(),
            calls_away: Vec::new(),
            suppressed: Vec::new(),
            closing: false,
            eof: false,
            in_turn: false,
            gate_lsn: 0,
            held_since_ns: 0,
            more: false,
            requests: sim::Requests::default(),
        }
    }

    /// MULTI.
    pub(super) fn begin_block(&mut self) {
        self.session.block = Some(Block::default());
        self.block_needs = BlockNeeds::default();
    }

    /// Whether more bytes should be read.
    pub fn may_read(&self) -> bool {
        !self.closing
            && !self.eof
            && !self.more
            && self.input.len() < READ_AHEAD_BYTES_MAX.max(self.input_wanted)
    }

    /// Whether it can be closed: it is closing, and everything was sent.
    pub fn is_done(&self) -> bool {
        let answered = self.closing || (self.eof && !self.more && !self.is_waiting());
        (answered && self.queue.is_empty()) || self.waits_in_vain()
    }

    /// Nobody is left to hear of a wait that never ends.
    fn waits_in_vain(&self) -> bool {
        let endless = matches!(
            self.barrier,
            Some(Barrier::Durable {
                hopeless: true,
                until_ms: 0,
                ..
            })
        );
        let queue = &self.queue;
        let nothing_else = queue.places() == 1 && queue.held_bytes() + queue.unread_bytes() == 0;
        self.eof && endless && nothing_else
    }

    /// Whether there is nothing to do before its client sends more, or the disk releases more.
    pub fn is_idle(&self) -> bool {
        self.may_read() && !self.is_done() && self.barrier.is_none()
    }

    /// Whether nothing but its client's choices would be lost with it.
    fn can_rest(&self) -> bool {
        let session = &self.session;
        let plain = session.block.is_none()
            && session.watched.is_empty()
            && session.reply_mode == ReplyMode::On
            && !session.monitor;
        let unused = self.decoder.is_at_start()
            && self.input.is_empty()
            && self.queue.is_empty()
            && self.outgoing.is_empty()
            && self.suppressed.is_empty()
            && self.calls_away.iter().all(|(_, calls)| *calls == 0);
        let expected = self.in_turn || self.gate_lsn != 0 || self.more || self.fetch.is_some();
        plain && unused && !expected && self.barrier.is_none() && !self.closing && !self.eof
    }

    /// Whether it waits for something that is under way.
    pub fn is_busy(&self) -> bool {
        self.barrier.is_some()
    }

    /// Whether something is under way for it that a closed connection would still see the end of.
    pub(super) fn is_waiting(&self) -> bool {
        !matches!(self.barrier, None | Some(Barrier::Durable { .. }))
    }

    /// Whether a request that was read waits to be run.
    pub fn has_input(&self) -> bool {
        self.more
    }

    /// The running turn was queued at `lsn`.
    pub(super) fn sealed(&mut self, lsn: u64) {
        self.queue.sealed(lsn);
        if let Some(Barrier::Fan(fan)) = &mut self.barrier {
            fan.wait = Wait::lsn(fan.wait.sealed_at(lsn));
        }
    }

    /// A call goes to a shard.
    pub(super) fn call_leaves(&mut self, shard: ShardId) {
        match self.calls_away.iter_mut().find(|(to, _)| *to == shard) {
            Some((_, calls)) => *calls += 1,
            None => self.calls_away.push((shard, 1)),
        }
    }

    /// A shard has answered a call.
    pub(super) fn call_returns(&mut self, shard: ShardId) {
        if let Some((_, calls)) = self.calls_away.iter_mut().find(|(to, _)| *to == shard) {
            *calls -= 1;
        }
    }

    /// Whether one of these shards has a call that it has not answered yet.
    pub(super) fn has_calls_at(&self, shards: &ShardSet) -> bool {
        let mut away = self.calls_away.iter().filter(|(_, calls)| *calls > 0);
        away.any(|(shard, _)| shards.ids().contains(shard))
    }

    /// Appends a reply that is made here.
    pub(super) fn reply(&mut self, wait: Wait, write: impl FnOnce(&mut Vec<u8>)) {
        self.queue.reply(|out| {
            write(out);
            (wait, ())
        });
    }

    /// The reply for a place is here.
    pub(super) fn fill(&mut self, place: ReplyPlace, bytes: &[u8], wait: Wait) {
        match self
            .suppressed
            .iter()
            .position(|suppressed| *suppressed == place)
        {
            Some(index) => {
                self.suppressed.swap_remove(index);
                self.queue.fill(place, &[], wait);
            }
            None => self.queue.fill(place, bytes, wait),
        }
    }
}

#[cfg(all(test, not(feature = "simulation")))]
mod tests {
    use super::*;

    #[test]
    fn a_resting_connection_is_its_place_and_its_client() {
        assert_eq!(size_of::<Place>(), 16);
    }
}
