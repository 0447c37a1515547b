//! Lending: commands and blocks that need several shards at once borrow them in ascending order,
//! run, queue one batch, and send them home.
//!
//! What the connections of a thread ask for in one turn, and needs the same shards, borrows them
//! together; and a pipeline goes on while they are here.
//!
//! Always true: shards are asked for in ascending order, so two coordinators never wait for each
//! other; an owner seals before it lends; a coordinator belongs to its thread, not to the
//! connections that asked; every shard that was lent is sent home. A thread's own shard is only set
//! aside for its own coordinator, and goes on serving until the others are here.

use std::collections::VecDeque;

use crate::command::{Row, RowId, Run, table};
use crate::conn::reply_queue::Place;
use crate::keyspace::codec::BatchBuilder;
use crate::keyspace::cold::Unreadable;
use crate::keyspace::txn::{Owners, Txn, WatchedKey};
use crate::keyspace::{Keyspace, Wait};
use crate::limits::{GATHERED_SETS_MAX, LENT_COMMANDS_MAX};
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

impl Job {
    fn commands(&self) -> usize {
        match self {
            Job::Work(Work::Block(block), _) => block.calls.len().max(1),
            _ => 1,
        }
    }
}

/// A job, and whose it is.
pub(super) struct Errand {
    pub(super) conn: ConnId,
    context: Context,
    pub(super) job: Job,
    /// Keys that their owners keep in memory for it: the shard, and what it calls them.
    pub(super) fetched: Vec<(ShardId, u64)>,
}

/// A borrower of shards.
pub(super) struct Coordinator {
    shards: ShardSet,
    /// So many of them are here, or set aside.
    granted: usize,
    /// Those of other threads.
    borrowed: Vec<Box<Keyspace>>,
    errands: VecDeque<Errand>,
    /// Commands of all errands.
    commands: usize,
}

/// Shards that are here while a coordinator runs; nothing else runs on this thread meanwhile.
pub(super) struct Held {
    shards: ShardSet,
    /// Ascending.
    pub(super) keyspaces: Vec<Box<Keyspace>>,
    /// So many commands of pipelines may still run before the shards go home.
    pub(super) commands_left: usize,
}

impl Held {
    /// Whether all of these shards are here.
    pub(super) fn covers(&self, shards: &[ShardId]) -> bool {
        shards
            .iter()
            .all(|shard| self.shards.ids().binary_search(shard).is_ok())
    }
}

/// Whether a session command may run while shards are here that its connection borrowed: it must
/// not look at a turn or a position.
pub(super) fn runs_while_held(row: &Row) -> bool {
    matches!(row.run, Run::Keys(_)) || matches!(row.spec.name, "multi" | "exec" | "discard")
}

impl Worker {
    /// Borrows `shards` and runs `work` for a connection, whose later requests wait.
    pub(super) fn lend_for(&mut self, conn: &mut Conn, shards: ShardSet, work: Work) {
        let place = self.keep_place(conn);
        conn.barrier = Some(Barrier::Lending);
        self.coordinate(conn, shards, Job::Work(work, place));
    }

    /// Borrows `shards` for a job, once the turn ends.
    pub(super) fn coordinate(&mut self, conn: &mut Conn, shards: ShardSet, job: Job) {
        // What this connection sent before has to be in line before the shards are asked for.
        self.send_outgoing(conn);
        let errand = Errand {
            conn: conn.id,
            context: self.context(conn),
            job,
            fetched: Vec::new(),
        };
        self.gather(errand, shards);
    }

    /// Puts an errand to those of this turn that need the same shards.
    pub(super) fn gather(&mut self, errand: Errand, shards: ShardSet) {
        let commands = errand.job.commands();
        let mut gathered = self.gathered.iter_mut().rev().take(GATHERED_SETS_MAX);
        let same = gathered.find(|coordinator| {
            coordinator.shards == shards && coordinator.commands < LENT_COMMANDS_MAX
        });
        match same {
            Some(coordinator) => {
                coordinator.commands += commands;
                coordinator.errands.push_back(errand);
            }
            None => self.gathered.push(Coordinator {
                shards,
                granted: 0,
                borrowed: Vec::new(),
                errands: VecDeque::from([errand]),
                commands,
            }),
        }
    }

    /// The turn ends: what was gathered in it asks for its shards.
    pub(super) fn ask_for_shards(&mut self) {
        for coordinator in std::mem::take(&mut self.gathered) {
            self.next_ticket += 1;
            self.coordinators.insert(self.next_ticket, coordinator);
            self.ask_next(self.next_ticket);
        }
    }

    /// Asks for the next shard, or runs the errands when all are here.
    fn ask_next(&mut self, ticket: u64) {
        let Some(coordinator) = self.coordinators.get(&ticket) else {
            return;
        };
        match coordinator.shards.ids().get(coordinator.granted) {
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

    /// Lends this thread's shard to those who asked for it, in the order of their asking.
    pub(super) fn lend_to_next(&mut self) {
        while !self.set_aside && self.keyspace.is_some() {
            let Some((to, ticket)) = self.lends.pop_front() else {
                return;
            };
            if to == self.id {
                self.set_aside = true;
                self.granted(ticket);
                continue;
            }
            self.seal();
            if let Some(keyspace) = self.keyspace.take() {
                self.outbox.push((to, Message::Lent { ticket, keyspace }));
            }
        }
    }

    /// A shard that was asked for is here.
    pub(super) fn lent(&mut self, ticket: u64, keyspace: Box<Keyspace>) {
        match self.coordinators.get_mut(&ticket) {
            Some(coordinator) => {
                coordinator.borrowed.push(keyspace);
                self.granted(ticket);
                self.lend_to_next();
            }
            None => self.send_home(keyspace),
        }
    }

    fn granted(&mut self, ticket: u64) {
        if let Some(coordinator) = self.coordinators.get_mut(&ticket) {
            coordinator.granted += 1;
        }
        self.ask_next(ticket);
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
    pub(super) fn resume_held(&mut self, id: ConnId) {
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
        if self.wants_seal() {
            // What this thread's turn wrote is a batch of its own.
            self.seal();
        }
        let mut keyspaces = std::mem::take(&mut coordinator.borrowed);
        let own = coordinator.shards.ids().binary_search(&self.id).ok();
        if let Some(index) = own {
            let keyspace = self.keyspace.take();
            keyspaces.insert(
                index,
                keyspace.expect("a shard that is set aside stays at home"),
            );
        }
        self.agree_on_time(&mut keyspaces);
        let mut held = Held {
            shards: coordinator.shards.clone(),
            keyspaces,
            commands_left: LENT_COMMANDS_MAX.saturating_sub(coordinator.commands),
        };
        let answered = self.run_errands(&mut coordinator, &mut held.keyspaces);
        let stalled = !coordinator.errands.is_empty();
        let mut keyspaces = self.go_on_with(held, if stalled { &[] } else { &answered });
        self.seal_borrowed(&mut keyspaces);
        if let Some(index) = own {
            self.keyspace = Some(keyspaces.remove(index));
            self.set_aside = stalled;
        }
        if stalled {
            coordinator.borrowed = keyspaces;
            self.coordinators.insert(ticket, coordinator);
            self.stalled.push(ticket);
            self.wants_space = true;
            return;
        }
        for keyspace in keyspaces {
            self.send_home(keyspace);
        }
    }

    /// All of them live at the latest time that one of them has seen.
    fn agree_on_time(&self, keyspaces: &mut [Box<Keyspace>]) {
        let durable_lsn = self.log.durable_lsn();
        let seen = keyspaces.iter().map(|keyspace| keyspace.now_ms()).max();
        let now_ms = seen.map_or(self.now_ms, |seen| seen.max(self.now_ms));
        for keyspace in keyspaces {
            keyspace.durable(durable_lsn);
            keyspace.set_now_ms(now_ms);
        }
    }

    /// Runs errands until the log has no room for one; returns the connections that got a reply.
    /// One whose keys are asleep borrows the shards once more, when they are awake.
    fn run_errands(
        &mut self,
        coordinator: &mut Coordinator,
        keyspaces: &mut [Box<Keyspace>],
    ) -> Vec<ConnId> {
        let mut answered = Vec::new();
        while let Some(errand) = coordinator.errands.pop_front() {
            let Some(errand) = self.stays_behind(errand, &coordinator.shards) else {
                continue;
            };
            let mut reply = Vec::new();
            let wait = match self.run_errand(&errand, keyspaces, &mut reply) {
                Ended::Done { wait, .. } => wait,
                Ended::Later => {
                    coordinator.errands.push_front(errand);
                    break;
                }
                Ended::Asleep => {
                    self.fetch_for_errand(errand, &coordinator.shards, keyspaces);
                    continue;
                }
            };
            self.release_fetched(&errand);
            let (Job::Work(_, place) | Job::Watch(_, place)) = errand.job else {
                continue;
            };
            if let Some(mut conn) = self.take(errand.conn) {
                conn.barrier = None;
                conn.fill(place, &reply, wait);
                self.wait_for_turn(&mut conn);
                self.watch_gate(&mut conn);
                self.attention.push(conn.id);
                answered.push(conn.id);
                self.put_back(conn);
            }
        }
        answered
    }

    /// Lets the pipelines of these connections go on while the shards are here.
    fn go_on_with(&mut self, held: Held, conns: &[ConnId]) -> Vec<Box<Keyspace>> {
        self.held = Some(held);
        for id in conns {
            if self
                .held
                .as_ref()
                .is_none_or(|held| held.commands_left == 0)
            {
                break;
            }
            if self.conn(*id).is_some_and(|conn| conn.has_input()) {
                self.resume(*id);
            }
        }
        self.held
            .take()
            .map_or_else(Vec::new, |held| held.keyspaces)
    }

    /// Queues the effects of all borrowed shards as one batch, for which the replies wait.
    fn seal_borrowed(&mut self, borrowed: &mut [Box<Keyspace>]) {
        let mut batch = BatchBuilder::default();
        let mut changed: Vec<&mut Box<Keyspace>> = borrowed
            .iter_mut()
            .filter(|keyspace| keyspace.has_effects())
            .collect();
        if changed.is_empty() || sim::fault(Fault::LentHomeUnsealed) {
            return;
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
        self.sealed(lsn);
    }

    /// Runs one errand.
    fn run_errand(
        &mut self,
        errand: &Errand,
        keyspaces: &mut [Box<Keyspace>],
        out: &mut Vec<u8>,
    ) -> Ended {
        let context = errand.context;
        let done = |wait| Ended::Done {
            wait,
            failed: false,
        };
        match &errand.job {
            Job::Work(Work::Command(id, args), _) => {
                let row = table().row(*id);
                let owners = Owners::Several(keyspaces);
                let space = &mut self.allowance;
                let ended = execute(owners, row, args.args(), context, space, out);
                if let Ended::Done { failed, .. } = ended {
                    self.record(*id, args.args(), failed, None);
                }
                ended
            }
            Job::Work(Work::Block(block), _) => {
                self.run_block(errand.conn, keyspaces, block, context, out)
            }
            Job::Watch(keys, _) => {
                let owners = Owners::Several(keyspaces);
                let Some((watched, wait)) = begin_watches(owners, keys, context) else {
                    return Ended::Asleep;
                };
                match self.conn(errand.conn) {
                    Some(conn) => conn.session.watched.extend(watched),
                    None => end_watches(keyspaces, &watched, context),
                }
                Reply::new(out, context.protocol).ok();
                done(wait)
            }
            Job::Unwatch(watched) => {
                end_watches(keyspaces, watched, context);
                done(Wait::NONE)
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
    ) -> Ended {
        let mut conn = self.take(conn);
        let sees_session = |(id, _): &(RowId, _)| matches!(table().row(*id).run, Run::Session(_));
        if conn.is_none() && block.calls.iter().any(sees_session) {
            // The client is gone, and with it the database that a SELECT would change.
            end_watches(keyspaces, &block.watched, context);
            return Ended::Done {
                wait: Wait::NONE,
                failed: false,
            };
        }
        let ended = self.run_block_with(conn.as_deref_mut(), keyspaces, block, context, out);
        if let Some(conn) = conn {
            self.put_back(conn);
        }
        ended
    }

    /// Runs a block on shards that are here; its session commands see `conn`.
    pub(super) fn run_block_with(
        &mut self,
        mut conn: Option<&mut Conn>,
        keyspaces: &mut [Box<Keyspace>],
        block: &BlockCall,
        context: Context,
        out: &mut Vec<u8>,
    ) -> Ended {
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
                None => {
                    Reply::new(out, context.protocol).error(&Reject::err("the client is gone"));
                    Wait::NONE
                }
            };
        let ended = execute_block(keyspaces, block, context, &mut allowance, &mut session, out);
        self.allowance = allowance;
        ended
    }
}

/// Forgets what a command wanted that is going to want it again.
pub(super) fn drop_wanted(keyspaces: &mut [Box<Keyspace>]) {
    for keyspace in keyspaces {
        keyspace.take_wanted();
    }
}

/// Watches keys, and says what the reply has to wait for; nothing where some are asleep.
pub(super) fn begin_watches(
    owners: Owners<'_>,
    keys: &[Box<[u8]>],
    context: Context,
) -> Option<(Vec<WatchedKey>, Wait)> {
    let scene = sim::scene(&owners);
    let mut txn = Txn::patient(owners, context.database);
    let watched: Vec<WatchedKey> = keys.iter().map(|key| txn.watch(&txn.key(key))).collect();
    if txn.unreadable() == Some(Unreadable::Asleep) {
        for watched in &watched {
            txn.unwatch(watched);
        }
        txn.put_off();
        return None;
    }
    let wait = txn.commit();
    sim::watched(scene, context, &watched);
    Some((watched, wait))
}

/// Ends watches on these shards.
pub(super) fn end_watches(
    keyspaces: &mut [Box<Keyspace>],
    watched: &[WatchedKey],
    context: Context,
) {
    let owners = Owners::Several(keyspaces);
    let scene = sim::scene(&owners);
    let mut txn = Txn::new(owners, context.database);
    for watched in watched {
        txn.unwatch(watched);
    }
    txn.commit();
    sim::unwatched(scene, context, watched);
}
