//! Lending: a command or block that needs several shards at once borrows them in ascending order,
//! runs once, queues one batch, and sends them home.
//!
//! Always true: shards are asked for in ascending order, so two coordinators never wait for each
//! other; an owner seals before it lends; a coordinator belongs to its thread, not to the
//! connection that asked; every shard that was lent is sent home.

use crate::command::{RowId, Run, table};
use crate::conn::reply_queue::Place;
use crate::keyspace::codec::BatchBuilder;
use crate::keyspace::txn::{Owners, Txn, WatchedKey};
use crate::keyspace::{Keyspace, Wait};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::route::ShardSet;
use crate::shard::mailbox::{ConnId, Message, ShardId, Work};
use crate::shard::{BlockCall, Context, Ended, execute, execute_block};
use crate::sim::{self, Fault};
use crate::worker::conn::{Barrier, Conn};
use crate::worker::{Worker, append};

/// What is done with the borrowed shards.
pub(super) enum Job {
    /// A command or block, and the place of its reply.
    Work(Work, Place),
    /// WATCH.
    Watch(Vec<Box<[u8]>>, Place),
    /// Watches of a connection end.
    Unwatch(Vec<WatchedKey>),
}

/// A borrower of shards.
pub(super) struct Coordinator {
    conn: ConnId,
    context: Context,
    shards: ShardSet,
    borrowed: Vec<Box<Keyspace>>,
    job: Job,
}

impl Worker {
    /// Borrows `shards` and runs `work` for a connection, whose later requests wait.
    pub(super) fn lend_for(&mut self, conn: &mut Conn, shards: ShardSet, work: Work) {
        let place = self.keep_place(conn);
        conn.barrier = Some(Barrier::Lending);
        self.coordinate(conn, shards, Job::Work(work, place));
    }

    /// Borrows `shards` for a job.
    pub(super) fn coordinate(&mut self, conn: &mut Conn, shards: ShardSet, job: Job) {
        // What this connection sent before has to be in line before the shards are asked for.
        self.send_outgoing(conn);
        self.next_ticket += 1;
        let coordinator = Coordinator {
            conn: conn.id,
            context: self.context(conn),
            shards,
            borrowed: Vec::new(),
            job,
        };
        self.coordinators.insert(self.next_ticket, coordinator);
        self.ask_next(self.next_ticket);
    }

    /// Asks for the next shard, or runs the job when all are here.
    fn ask_next(&mut self, ticket: u64) {
        let Some(coordinator) = self.coordinators.get(&ticket) else {
            return;
        };
        match coordinator.shards.ids().get(coordinator.borrowed.len()) {
            Some(&shard) => {
                self.outbox.push((
                    shard,
                    Message::Lend {
                        to: self.id,
                        ticket,
                    },
                ));
            }
            None => self.run_coordinator(ticket),
        }
    }

    /// Lends this thread's shard; it is at home.
    pub(super) fn lend(&mut self, to: ShardId, ticket: u64) {
        self.seal();
        if let Some(keyspace) = self.keyspace.take() {
            self.outbox.push((to, Message::Lent { ticket, keyspace }));
        }
    }

    /// A shard that was asked for is here.
    pub(super) fn lent(&mut self, ticket: u64, keyspace: Box<Keyspace>) {
        match self.coordinators.get_mut(&ticket) {
            Some(coordinator) => {
                coordinator.borrowed.push(keyspace);
                self.ask_next(ticket);
            }
            None => self.send_home(keyspace),
        }
    }

    fn send_home(&mut self, keyspace: Box<Keyspace>) {
        let home = self.routes.of_slot(keyspace.slots().start);
        self.outbox.push((home, Message::Home { keyspace }));
    }

    /// This thread's shard is home again.
    pub(super) fn came_home(&mut self, mut keyspace: Box<Keyspace>) {
        keyspace.set_now_ms(self.now_ms);
        keyspace.durable(self.log.durable_lsn());
        self.keyspace = Some(keyspace);
        self.publish();
        let waiting = std::mem::take(&mut self.waiting_conns);
        for id in waiting {
            self.resume_held(id);
        }
        self.go_on();
    }

    /// A connection that waited for the shard has its turn before the next lending.
    fn resume_held(&mut self, id: ConnId) {
        // `may_run` looks at the line of messages; it stands behind this connection now.
        let line = std::mem::take(&mut self.waiting);
        self.resume(id);
        let mut line = line;
        line.append(&mut self.waiting);
        self.waiting = line;
        self.attention.push(id);
    }

    /// Runs a coordinator that has all its shards.
    pub(super) fn run_coordinator(&mut self, ticket: u64) {
        let Some(mut coordinator) = self.coordinators.remove(&ticket) else {
            return;
        };
        for keyspace in &mut coordinator.borrowed {
            keyspace.set_now_ms(self.now_ms);
            keyspace.durable(self.log.durable_lsn());
        }
        // All of them live at the latest time that one of them has seen.
        let now_ms = coordinator
            .borrowed
            .iter()
            .map(|keyspace| keyspace.now_ms())
            .max();
        for keyspace in &mut coordinator.borrowed {
            keyspace.set_now_ms(now_ms.unwrap_or(self.now_ms));
        }
        let mut reply = Vec::new();
        let Some(wait) = self.run_job(&mut coordinator, &mut reply) else {
            self.coordinators.insert(ticket, coordinator);
            self.stalled.push(ticket);
            self.wants_space = true;
            return;
        };
        let wait = self.seal_borrowed(&mut coordinator.borrowed, wait);
        for keyspace in std::mem::take(&mut coordinator.borrowed) {
            self.send_home(keyspace);
        }
        let place = match coordinator.job {
            Job::Work(_, place) | Job::Watch(_, place) => place,
            Job::Unwatch(_) => return,
        };
        if let Some(mut conn) = self.take(coordinator.conn) {
            conn.barrier = None;
            conn.fill(place, &reply, wait);
            self.watch_gate(&mut conn);
            self.attention.push(conn.id);
            self.put_back(conn);
        }
    }

    /// Queues the effects of all borrowed shards as one batch.
    fn seal_borrowed(&mut self, borrowed: &mut [Box<Keyspace>], wait: Wait) -> Wait {
        let mut batch = BatchBuilder::default();
        let mut changed: Vec<&mut Box<Keyspace>> = borrowed
            .iter_mut()
            .filter(|keyspace| keyspace.has_effects())
            .collect();
        if changed.is_empty() || sim::fault(Fault::LentHomeUnsealed) {
            return wait;
        }
        let last = changed.len() - 1;
        for (index, keyspace) in changed.iter_mut().enumerate() {
            if index > 0 && index == last && sim::fault(Fault::LentEffectsSkipped) {
                continue;
            }
            keyspace.seal(&mut batch);
        }
        let now_ms = changed
            .iter()
            .map(|keyspace| keyspace.now_ms())
            .max()
            .unwrap_or(self.now_ms);
        let lsn = append(&self.log, batch.finish(), now_ms, &mut self.allowance);
        for keyspace in &mut changed {
            keyspace.sealed(lsn);
            if keyspace.sync_wanted() {
                self.log.request_sync();
            }
        }
        self.metrics.batches.add(1);
        Wait::lsn(wait.sealed_at(lsn))
    }

    /// Runs the job; nothing if the log had no room for it yet.
    fn run_job(&mut self, coordinator: &mut Coordinator, out: &mut Vec<u8>) -> Option<Wait> {
        let context = coordinator.context;
        let keyspaces = &mut coordinator.borrowed[..];
        match &coordinator.job {
            Job::Work(Work::Command(id, args), _) => {
                let row = table().row(*id);
                let owners = Owners::Several(keyspaces);
                let space = &mut self.allowance;
                match execute(owners, row, args.args(), context, space, out) {
                    Ended::Later => None,
                    Ended::Done { wait, failed } => {
                        self.record(*id, args.args(), failed, None);
                        Some(wait)
                    }
                }
            }
            Job::Work(Work::Block(block), _) => {
                self.run_block(coordinator.conn, keyspaces, block, context, out)
            }
            Job::Watch(keys, _) => {
                let owners = Owners::Several(keyspaces);
                let scene = sim::scene(&owners);
                let mut txn = Txn::new(owners, context.database);
                let watched: Vec<WatchedKey> =
                    keys.iter().map(|key| txn.watch(&txn.key(key))).collect();
                let wait = txn.commit();
                sim::watched(scene, context, &watched);
                match self.conn(coordinator.conn) {
                    Some(conn) => conn.session.watched.extend(watched),
                    None => end_watches(keyspaces, &watched, context),
                }
                Reply::new(out, context.protocol).ok();
                Some(wait)
            }
            Job::Unwatch(watched) => {
                end_watches(keyspaces, watched, context);
                Some(Wait::NONE)
            }
        }
    }

    /// Runs a block on borrowed shards; its session commands see the connection.
    pub(super) fn run_block(
        &mut self,
        conn: ConnId,
        keyspaces: &mut [Box<Keyspace>],
        block: &BlockCall,
        context: Context,
        out: &mut Vec<u8>,
    ) -> Option<Wait> {
        let mut conn = self.take(conn);
        let sees_session = |(id, _): &(RowId, _)| matches!(table().row(*id).run, Run::Session(_));
        if conn.is_none() && block.calls.iter().any(sees_session) {
            // The client is gone, and with it the database that a SELECT would change.
            end_watches(keyspaces, &block.watched, context);
            return Some(Wait::NONE);
        }
        let wait = self.run_block_with(conn.as_deref_mut(), keyspaces, block, context, out);
        if let Some(conn) = conn {
            self.put_back(conn);
        }
        wait
    }

    /// Runs a block on shards that are here; its session commands see `conn`.
    pub(super) fn run_block_with(
        &mut self,
        mut conn: Option<&mut Conn>,
        keyspaces: &mut [Box<Keyspace>],
        block: &BlockCall,
        context: Context,
        out: &mut Vec<u8>,
    ) -> Option<Wait> {
        let mut allowance = std::mem::replace(
            &mut self.allowance,
            super::Allowance {
                log: self.log.clone(),
                left: 0,
                used: 0,
            },
        );
        let mut session =
            |id, args: Args<'_>, context: &mut Context, out: &mut Vec<u8>| match &mut conn {
                Some(conn) => self.session_in_block(conn, id, args, context, out),
                None => Reply::new(out, context.protocol).error(&Reject::err("the client is gone")),
            };
        let ended = execute_block(keyspaces, block, context, &mut allowance, &mut session, out);
        self.allowance = allowance;
        match ended {
            Ended::Later => None,
            Ended::Done { wait, .. } => Some(wait),
        }
    }
}

/// Ends watches on borrowed shards.
fn end_watches(keyspaces: &mut [Box<Keyspace>], watched: &[WatchedKey], context: Context) {
    let owners = Owners::Several(keyspaces);
    let scene = sim::scene(&owners);
    let mut txn = Txn::new(owners, context.database);
    for watched in watched {
        txn.unwatch(watched);
    }
    txn.commit();
    sim::unwatched(scene, context, watched);
}
