//! Session commands, MULTI blocks and watches of a connection.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::command::{RowId, Run, table};
use crate::keyspace::Wait;
use crate::keyspace::txn::Owners;
use crate::limits::WATCHED_KEYS_MAX;
use crate::reply::{Reject, Reply};
use crate::resp::decode::{Args, OwnedArgs};
use crate::route::{Need, ShardSet};
use crate::session::{Condition, Next, ReplyMode, SessionCall};
use crate::shard::mailbox::{ConnId, Work};
use crate::shard::{BlockCall, Context, Ended};
use crate::worker::conn::{Barrier, BlockNeeds, Conn};
use crate::worker::lending::{Job, begin_watches, drop_wanted, end_watches};
use crate::worker::requests::Flow;
use crate::worker::{Control, Worker};

impl Worker {
    /// Runs a command that sees the connection, and does what it asks for next.
    pub(super) fn session_command(&mut self, conn: &mut Conn, id: RowId, args: Args<'_>) -> Flow {
        let Run::Session(run) = table().row(id).run else {
            return Flow::Next;
        };
        if table().row(id).spec.name == "info" {
            self.publish();
        }
        let mut out = Vec::new();
        let before = conn.session.reply_mode;
        let mut call = SessionCall {
            session: &mut conn.session,
            shared: &self.shared,
            in_block: false,
            now_ms: self.now_ms,
            clock: &self.clock,
        };
        let protocol = call.session.protocol;
        let mut reply = Reply::new(&mut out, protocol);
        let result = run(&mut call, args, &mut reply);
        let failed = result.is_err();
        let next = match result {
            Ok(next) => next,
            Err(reject) => {
                let reject = self.refused_exec(conn, id, reject);
                out.clear();
                Reply::new(&mut out, protocol).error(&reject);
                self.metrics.record_error(reject.text());
                Next::Done
            }
        };
        let mode = conn.session.reply_mode;
        let quiet = matches!(before, ReplyMode::Off | ReplyMode::Skip) && mode != ReplyMode::On
            || matches!(mode, ReplyMode::Off | ReplyMode::SkipNext);
        if quiet {
            out.clear();
        }
        if next == Next::WhenQueued && self.wants_seal() {
            // The figures count what this turn has not queued yet. This connection is out of its
            // place meanwhile.
            self.seal();
            conn.sealed(self.log.last_lsn());
            conn.in_turn = false;
        }
        let wait = match next {
            Next::WhenQueued => Wait::lsn(self.log.last_lsn()),
            _ => Wait::NONE,
        };
        if !out.is_empty() {
            conn.reply(wait, |buffer| buffer.extend_from_slice(&out));
        }
        self.record(id, args, failed, Some(&conn.session.client.clone()));
        self.publish_session(conn);
        self.next(conn, next, args)
    }

    /// An EXEC that is refused for its own form ends the block, as in Redis.
    fn refused_exec(&mut self, conn: &mut Conn, id: RowId, reject: Reject) -> Reject {
        if table().row(id).spec.name != "exec" || conn.session.block.take().is_none() {
            return reject;
        }
        self.forget_watches(conn);
        let text = String::from_utf8_lossy(reject.text()).into_owned();
        Reject::new(format!(
            "EXECABORT Transaction discarded because of: {text}"
        ))
    }

    /// Copies what others may see of the session.
    fn publish_session(&mut self, conn: &Conn) {
        let (session, client) = (&conn.session, &conn.session.client);
        let database = session.database as u32;
        client.database.store(database, Ordering::Relaxed);
        let resp = if session.protocol == crate::resp::Protocol::Resp3 {
            3
        } else {
            2
        };
        client.resp.store(resp, Ordering::Relaxed);
        let queued = session
            .block
            .as_ref()
            .map_or(-1, |block| block.calls.len() as i32);
        client.queued.store(queued, Ordering::Relaxed);
        let watching = session.watched.len() as u32;
        client.watching.store(watching, Ordering::Relaxed);
    }

    fn next(&mut self, conn: &mut Conn, next: Next, args: Args<'_>) -> Flow {
        let asker = (self.id, conn.id);
        match next {
            Next::Done | Next::WhenQueued => {}
            Next::Close => conn.closing = true,
            Next::Sleep(us) => self.sleep_us += us,
            Next::WaitDurable {
                local,
                replicas,
                timeout_ms,
            } => {
                let hopeless = replicas > 0;
                self.wait_durable(conn, (local, hopeless, false), timeout_ms);
            }
            Next::WaitReplicas {
                replicas,
                timeout_ms,
            } => {
                self.wait_durable(conn, (0, replicas > 0, true), timeout_ms);
            }
            Next::Checkpoint { wait } => {
                if wait {
                    let place = self.keep_place(conn);
                    conn.barrier = Some(Barrier::Server(place));
                }
                (self.control)(Control::Checkpoint(wait.then_some(asker)));
            }
            Next::Shutdown { no_save } => {
                self.ask_server(conn, Control::Shutdown { no_save, asker });
            }
            Next::Backup(target) => self.ask_server(conn, Control::Backup { target, asker }),
            Next::Reload => self.ask_server(conn, Control::Reload(asker)),
            Next::Monitor => {
                if !conn.session.monitor {
                    conn.session.monitor = true;
                    conn.session.client.monitor.store(true, Ordering::Relaxed);
                    self.monitors.push(conn.id);
                    self.shared.monitors.fetch_add(1, Ordering::SeqCst);
                }
            }
            Next::Multi => conn.begin_block(),
            Next::Exec(conditions) => self.exec(conn, conditions),
            Next::Discard => {
                conn.session.block = None;
                self.forget_watches(conn);
            }
            Next::Watch(words) => {
                let keys = words.each(args, 0).map(Box::from).collect();
                self.watch(conn, keys);
            }
            Next::Unwatch => self.forget_watches(conn),
            Next::Reset => {
                conn.session.block = None;
                self.forget_watches(conn);
                if conn.session.monitor {
                    conn.session.monitor = false;
                    conn.session.client.monitor.store(false, Ordering::Relaxed);
                    self.end_monitor(conn.id);
                }
            }
        }
        self.publish_session(conn);
        Flow::Next
    }

    // ---- waiting -----------------------------------------------------------------------------

    fn wait_durable(
        &mut self,
        conn: &mut Conn,
        (local, hopeless, single): (i64, bool, bool),
        timeout_ms: u64,
    ) {
        let until_ms = if timeout_ms == 0 {
            0
        } else {
            self.now_ms + timeout_ms
        };
        conn.session.client.blocked.store(true, Ordering::Relaxed);
        let place = self.keep_place(conn);
        conn.barrier = Some(Barrier::Durable {
            place,
            lsn: None,
            local,
            single,
            hopeless,
            until_ms,
        });
        self.timed_conns.push(conn.id);
    }

    /// Asks the server for something; the reply comes when it is done, and the connection waits.
    fn ask_server(&mut self, conn: &mut Conn, wish: Control) {
        let place = self.keep_place(conn);
        conn.barrier = Some(Barrier::Server(place));
        (self.control)(wish);
    }

    /// A position that a connection may wait for is durable, or its time is up (`give_up`).
    pub(super) fn finish_wait(&mut self, id: ConnId, give_up: bool) {
        let durable_lsn = self.log.durable_lsn();
        let Some(mut conn) = self.take(id) else {
            return;
        };
        if let Some(Barrier::Durable {
            place,
            lsn,
            local,
            single,
            hopeless,
            ..
        }) = conn.barrier
        {
            let durable = lsn.is_some_and(|lsn| lsn <= durable_lsn);
            let wanted = local > 0 || single;
            if give_up || ((durable || !wanted) && !hopeless) {
                let mut out = Vec::new();
                let mut reply = Reply::new(&mut out, conn.session.protocol);
                if single {
                    reply.integer(0);
                } else {
                    reply.array(2);
                    reply.integer(i64::from(durable));
                    reply.integer(0);
                }
                conn.barrier = None;
                conn.session.client.blocked.store(false, Ordering::Relaxed);
                conn.fill(place, &out, Wait::NONE);
                self.attention.push(id);
            }
        }
        self.put_back(conn);
    }

    /// Looks at the connections that wait for a time.
    pub(super) fn check_timed(&mut self) {
        let mut timed = std::mem::take(&mut self.timed_conns);
        timed.sort_unstable();
        timed.dedup();
        for id in timed {
            let now_ms = self.now_ms;
            let Some(conn) = self.conn(id) else {
                continue;
            };
            let unblock = conn.session.client.unblock.swap(0, Ordering::SeqCst);
            match &conn.barrier {
                Some(Barrier::Durable { until_ms, .. }) => {
                    let late = *until_ms != 0 && *until_ms <= now_ms;
                    match unblock {
                        2 => self.unblock_with_error(id),
                        1 => self.finish_wait(id, true),
                        _ if late => self.finish_wait(id, true),
                        _ => self.timed_conns.push(id),
                    }
                }
                // CLIENT PAUSE: tries its request again.
                _ => self.attention.push(id),
            }
        }
    }

    fn unblock_with_error(&mut self, id: ConnId) {
        if let Some(mut conn) = self.take(id) {
            if let Some(Barrier::Durable { place, .. }) = conn.barrier {
                conn.barrier = None;
                conn.session.client.blocked.store(false, Ordering::Relaxed);
                let reject = Reject::fixed("UNBLOCKED client unblocked via CLIENT UNBLOCK");
                let mut out = Vec::new();
                Reply::new(&mut out, conn.session.protocol).error(&reject);
                conn.fill(place, &out, Wait::NONE);
            }
            self.attention.push(id);
            self.put_back(conn);
        }
    }

    // ---- monitors ----------------------------------------------------------------------------

    pub(super) fn end_monitor(&mut self, id: ConnId) {
        self.monitors.retain(|monitor| *monitor != id);
        self.shared.monitors.fetch_sub(1, Ordering::SeqCst);
    }

    /// Shows a command to the monitors of all threads, once its turn is on disk.
    pub(super) fn monitor_line(&mut self, conn: &Conn, args: Args<'_>) {
        let now_us = self.clock.now_epoch_ns() / 1_000;
        let address = &conn.session.client.address;
        let mut line = format!(
            "+{}.{:06} [{} {address}]",
            now_us / 1_000_000,
            now_us % 1_000_000,
            conn.session.database
        );
        for arg in args.iter() {
            line.push_str(&format!(" \"{}\"", arg.escape_ascii()));
        }
        line.push_str("\r\n");
        self.monitor_lines.push((Bytes::from(line), Wait::TURN));
    }

    // ---- blocks ------------------------------------------------------------------------------

    /// A request was refused while a block is being queued.
    pub(super) fn abort_block(&mut self, conn: &mut Conn) {
        if let Some(block) = &mut conn.session.block {
            block.aborted = true;
        }
    }

    pub(super) fn queue_in_block(&mut self, conn: &mut Conn, id: RowId, args: Args<'_>) -> Flow {
        let row = table().row(id);
        let settings = self.settings.current();
        let (commands_max, bytes_max) = (settings.multi_commands_max, settings.multi_bytes_max);
        let need = self.routes.need(row, args);
        let Some(block) = &mut conn.session.block else {
            return Flow::Next;
        };
        let bytes = args.bytes_total();
        let refusal = if row.has(crate::command::spec::flag::NO_MULTI) {
            Some(Reject::err("Command not allowed inside a transaction"))
        } else if let Err(reject) = &need {
            Some(reject.clone())
        } else if block.calls.len() >= commands_max {
            Some(Reject::err(format!(
                "more than {commands_max} commands in a MULTI block"
            )))
        } else if block.bytes + bytes > bytes_max {
            Some(Reject::err(format!(
                "more than {bytes_max} bytes in a MULTI block"
            )))
        } else {
            None
        };
        match refusal {
            Some(reject) => {
                block.aborted = true;
                self.refuse(conn, &reject);
            }
            None => {
                let needs = &mut conn.block_needs;
                needs.sessions |= matches!(row.run, Run::Session(_));
                match need {
                    Ok(Need::One(shard)) => needs.shards.add(shard),
                    Ok(Need::Several(shards)) => {
                        shards.ids().iter().for_each(|id| needs.shards.add(*id));
                    }
                    Ok(Need::Nothing) | Err(_) => {}
                }
                block.bytes += bytes;
                block.calls.push((id, OwnedArgs::from_slices(args.iter())));
                let protocol = conn.session.protocol;
                if !Worker::is_suppressed(conn) {
                    conn.reply(Wait::NONE, |out| Reply::new(out, protocol).simple("QUEUED"));
                }
            }
        }
        self.publish_session(conn);
        Flow::Next
    }

    /// Runs the queued block where its keys live.
    fn exec(&mut self, conn: &mut Conn, conditions: Vec<Condition>) {
        let Some(block) = conn.session.block.take() else {
            return;
        };
        if block.aborted {
            self.forget_watches(conn);
            self.refuse(conn, &Reject::exec_abort());
            return;
        }
        let watched = std::mem::take(&mut conn.session.watched);
        let block = BlockCall {
            calls: block.calls,
            watched,
            conditions,
        };
        let BlockNeeds {
            mut shards,
            sessions,
        } = std::mem::take(&mut conn.block_needs);
        let watched = block.watched.iter().map(|watched| &watched.key[..]);
        let conditions = block.conditions.iter().map(Condition::key);
        watched
            .chain(conditions)
            .for_each(|key| shards.add(self.routes.of_key(key)));
        let context = self.context(conn);
        let here = match &self.held {
            Some(held) => held.covers(shards.ids()),
            None => {
                matches!(shards.ids(), [] | [_])
                    && shards.ids().first().is_none_or(|shard| *shard == self.id)
            }
        };
        match shards.ids() {
            _ if here => {
                let place = self.keep_place(conn);
                self.exec_here(conn, (block, shards), context, place);
            }
            // This thread's own shard is lent to somebody else: the block must not overtake, nor be
            // overtaken, so it waits as others do that borrow.
            [shard] if *shard != self.id && !sessions && self.credit[*shard] > 0 => {
                let shard = *shard;
                self.send_call(conn, shard, Work::Block(Box::new(block)));
            }
            _ => self.lend_for(conn, shards, Work::Block(Box::new(block))),
        }
    }

    /// Runs a block whose shards are here: this thread's own, or those that are held.
    fn exec_here(
        &mut self,
        conn: &mut Conn,
        (block, mut shards): (BlockCall, ShardSet),
        context: Context,
        place: crate::conn::reply_queue::Place,
    ) {
        let mut out = Vec::new();
        let ended = if let Some(mut held) = self.held.take() {
            let commands = block.calls.len();
            held.commands_left = held.commands_left.saturating_sub(commands);
            let keyspaces = &mut held.keyspaces;
            let ended = self.run_block_with(Some(conn), keyspaces, &block, context, &mut out);
            drop_wanted(keyspaces);
            self.held = Some(held);
            ended
        } else if let Some(mut keyspace) = self.keyspace.take() {
            let keyspaces = std::slice::from_mut(&mut keyspace);
            let ended = self.run_block_with(Some(conn), keyspaces, &block, context, &mut out);
            drop_wanted(keyspaces);
            self.keyspace = Some(keyspace);
            ended
        } else {
            Ended::Later
        };
        match ended {
            Ended::Done { wait, .. } => conn.fill(place, &out, wait),
            // No room in the log yet, or keys that are asleep: a coordinator waits for them.
            Ended::Later | Ended::Asleep => {
                if shards.ids().is_empty() {
                    shards.add(self.id);
                }
                conn.barrier = Some(Barrier::Lending);
                let job = Job::Work(Work::Block(Box::new(block)), place);
                self.coordinate(conn, shards, job);
            }
        }
    }

    /// Runs a session command of a block.
    pub(super) fn session_in_block(
        &mut self,
        conn: &mut Conn,
        id: RowId,
        args: Args<'_>,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Wait {
        let Run::Session(run) = table().row(id).run else {
            return Wait::NONE;
        };
        let mut wait = Wait::NONE;
        let start = out.len();
        let mut call = SessionCall {
            session: &mut conn.session,
            shared: &self.shared,
            in_block: true,
            now_ms: self.now_ms,
            clock: &self.clock,
        };
        let mut reply = Reply::new(out, context.protocol);
        match run(&mut call, args, &mut reply) {
            Ok(Next::Unwatch | Next::Done) => {}
            // It tells of everything that was queued so far.
            Ok(Next::WhenQueued) => wait = Wait::lsn(self.log.last_lsn()),
            Ok(Next::Close) => conn.closing = true,
            // What would wait does not wait inside a block.
            Ok(Next::WaitReplicas { .. }) => reply.integer(0),
            Ok(Next::WaitDurable { .. }) => {
                reply.array(2);
                reply.integer(0);
                reply.integer(0);
            }
            Ok(Next::Checkpoint { wait }) => {
                if wait {
                    reply.ok();
                }
                (self.control)(Control::Checkpoint(None));
            }
            Ok(_) => {
                out.truncate(start);
                let reject = crate::session::not_in_block(table().row(id).spec.name);
                Reply::new(out, context.protocol).error(&reject);
            }
            Err(reject) => {
                out.truncate(start);
                Reply::new(out, context.protocol).error(&reject);
            }
        }
        context.database = conn.session.database;
        context.protocol = conn.session.protocol;
        wait
    }

    // ---- watches -----------------------------------------------------------------------------

    fn watch(&mut self, conn: &mut Conn, mut keys: Vec<Box<[u8]>>) {
        let number = conn.session.database;
        let watched = &conn.session.watched;
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| {
            !watched
                .iter()
                .any(|known| known.number == number && known.key == *key)
        });
        if watched.len() + keys.len() > WATCHED_KEYS_MAX {
            let text = format!("more than {WATCHED_KEYS_MAX} watched keys");
            self.refuse(conn, &Reject::err(text));
            return;
        }
        if keys.is_empty() {
            let protocol = conn.session.protocol;
            if !Worker::is_suppressed(conn) {
                conn.reply(Wait::NONE, |out| Reply::new(out, protocol).ok());
            }
            return;
        }
        let mut shards = ShardSet::default();
        keys.iter()
            .for_each(|key| shards.add(self.routes.of_key(key)));
        let context = self.context(conn);
        let begun = match (shards.ids(), &mut self.keyspace) {
            ([shard], Some(keyspace)) if *shard == self.id => {
                begin_watches(Owners::One(keyspace), &keys, context)
            }
            _ => None,
        };
        let Some((watched, wait)) = begun else {
            let place = self.keep_place(conn);
            conn.barrier = Some(Barrier::Lending);
            return self.coordinate(conn, shards, Job::Watch(keys, place));
        };
        conn.session.watched.extend(watched);
        if !Worker::is_suppressed(conn) {
            conn.reply(wait, |out| Reply::new(out, context.protocol).ok());
        }
    }

    /// Ends all watches of a connection.
    pub(super) fn forget_watches(&mut self, conn: &mut Conn) {
        let watched = std::mem::take(&mut conn.session.watched);
        if watched.is_empty() {
            return;
        }
        let mut shards = ShardSet::default();
        watched
            .iter()
            .for_each(|watched| shards.add(self.routes.of_key(&watched.key)));
        let context = self.context(conn);
        if let ([shard], None, Some(keyspace)) = (shards.ids(), &self.held, &mut self.keyspace)
            && *shard == self.id
        {
            end_watches(std::slice::from_mut(keyspace), &watched, context);
            return;
        }
        self.coordinate(conn, shards, Job::Unwatch(watched));
    }
}
