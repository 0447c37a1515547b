//! What arrives from other threads.
//!
//! Always true: calls run in the order of their arrival; while the shard is lent, or the log has no
//! room, they and everything behind them wait in that order.

use bytes::Bytes;

use crate::command::table;
use crate::keyspace::txn::Owners;
use crate::keyspace::{Keyspace, Wait, Warmed};
use crate::limits::PIPELINED_MAX;
use crate::reply::Reply;
use crate::resp::Protocol;
use crate::resp::decode::Args;
use crate::shard::mailbox::{Answers, Call, Calls, ConnId, Message, ShardId, Work};
use crate::shard::{Ended, execute, execute_block};
use crate::worker::Worker;
use crate::worker::conn::Barrier;
use crate::worker::requests::error_text;

impl Worker {
    /// Takes a message from another thread, or from this one.
    pub fn message(&mut self, message: Message) {
        match message {
            Message::Calls(_)
            | Message::Lend { .. }
            | Message::Sweep(..)
            | Message::Replace(_)
            | Message::Rows(_)
            | Message::Fetch { .. }
            | Message::Here(_)
            | Message::Release(_)
            | Message::Horizon(_)
            | Message::Hints(..) => {
                self.waiting.push_back(message);
                self.drain_waiting();
            }
            Message::Answers {
                from,
                conn,
                answers,
            } => self.answered(from, conn, &answers),
            Message::Lent { ticket, keyspace } => self.lent(ticket, keyspace),
            Message::Fetched {
                ticket,
                shard,
                fetch,
            } => self.errand_fetched(ticket, shard, fetch),
            Message::Home { keyspace } => self.came_home(keyspace),
            Message::Monitor(line, wait) => self.show_monitors(&line, wait),
            Message::Done(id, result) => self.server_done(id, result),
        }
    }

    /// Handles waiting messages in order, as far as the shard is here and the log has room.
    pub(super) fn drain_waiting(&mut self) {
        while self.keyspace.is_some() {
            let Some(message) = self.waiting.pop_front() else {
                break;
            };
            match message {
                Message::Calls(calls) => {
                    if let Some(rest) = self.run_calls(calls, None) {
                        self.waiting.push_front(Message::Calls(rest));
                        self.wants_space = true;
                        break;
                    }
                }
                Message::Lend { to, ticket } => self.lends.push_back((to, ticket)),
                Message::Sweep(step, reply) => self.sweep(step, &reply),
                Message::Replace(keyspace) => self.replace(keyspace),
                Message::Rows(rows) => self.rows(rows),
                Message::Fetch { to, ticket, names } => {
                    self.fetch_for_coordinator(to, ticket, names);
                }
                Message::Here(fetch) => self.fetched(fetch),
                Message::Release(fetch) => self.release(fetch),
                Message::Horizon(horizon_ms) => {
                    if let Some(keyspace) = &mut self.keyspace {
                        keyspace.set_horizon_ms(horizon_ms);
                    }
                }
                Message::Hints(hints, read_ms, reply) => {
                    if let Some(keyspace) = &mut self.keyspace {
                        keyspace.take_hints(&hints, read_ms);
                        // Who does not listen any more needs no answer.
                        let _ = reply.send(keyspace.expiry_late_ms());
                    }
                }
                other => self.message(other),
            }
        }
        self.lend_to_next();
        self.metrics.mailbox_depth.set(self.waiting.len() as u64);
        if self.keyspace.is_some() && self.waiting.is_empty() {
            self.attention.append(&mut self.waiting_conns);
        }
    }

    /// Runs calls; returns those for which the log had no room. `fetch`: what the first of them
    /// waited for.
    pub(super) fn run_calls(&mut self, mut calls: Calls, fetch: Option<u64>) -> Option<Calls> {
        if self.stands_in_line(&mut calls) {
            return None;
        }
        let Calls { from, conn, calls } = calls;
        let mut asleep = false;
        let mut answers = Answers::default();
        let mut left = calls.into_iter();
        let mut rest = Vec::new();
        let mut warmed = Vec::new();
        while !left.as_slice().is_empty() && self.keyspace.is_some() {
            if warmed.is_empty() {
                self.warm_calls(left.as_slice(), &mut warmed);
            }
            let (Some(call), known) = (left.next(), warmed.pop().flatten()) else {
                break;
            };
            let start = answers.bytes.len();
            match self.run_call(&call, known, &mut answers.bytes) {
                ended @ (Ended::Later | Ended::Asleep) => {
                    asleep = ended == Ended::Asleep;
                    rest.push(call);
                    rest.extend(left);
                    break;
                }
                Ended::Done { wait, failed } => {
                    answers.ends.push((call.place, answers.bytes.len(), wait));
                    if failed && !call.part {
                        self.metrics
                            .record_error(error_text(&answers.bytes[start..]));
                    }
                    match &call.work {
                        Work::Command(id, args) if call.part => self.record_part(*id, args.args()),
                        Work::Command(id, args) => self.record(*id, args.args(), failed, None),
                        Work::Block(_) => {}
                    }
                }
            }
        }
        let answered = !answers.ends.is_empty();
        if answered {
            self.answers.push((from, conn, answers));
        }
        let rest = Calls {
            from,
            conn,
            calls: rest,
        };
        if asleep {
            // What the calls needed that were answered may go.
            let fetch = fetch.filter(|_| !answered);
            self.fetch_for_line(rest, fetch);
            return None;
        }
        (!rest.calls.is_empty()).then_some(rest)
    }

    /// Brings near what the first of these calls will look at; puts what was computed of each one's
    /// key into `warmed`, the first behind the others.
    fn warm_calls(&self, calls: &[Call], warmed: &mut Vec<Option<Warmed>>) {
        let calls = &calls[..calls.len().min(PIPELINED_MAX)];
        let keys = calls.iter().map(|call| match &call.work {
            Work::Command(_, args) => args.args().try_get(1),
            Work::Block(_) => None,
        });
        match (&self.keyspace, calls) {
            (Some(keyspace), [first, _, ..]) => {
                keyspace.warm(first.context.database, keys, warmed);
                warmed.reverse();
            }
            _ => warmed.push(None),
        }
    }

    /// Runs a call of another thread. `known`: what was computed of its key.
    fn run_call(&mut self, call: &Call, known: Option<Warmed>, out: &mut Vec<u8>) -> Ended {
        let Some(keyspace) = &mut self.keyspace else {
            return Ended::Later;
        };
        let space = &mut self.allowance;
        match &call.work {
            Work::Command(id, args) => {
                keyspace.set_warmed(known);
                let owners = Owners::One(keyspace);
                let row = table().row(*id);
                let ended = execute(owners, row, args.args(), call.context, space, out);
                keyspace.set_warmed(None);
                ended
            }
            Work::Block(block) => {
                let keyspaces = std::slice::from_mut(keyspace);
                let session = &mut |_, _: Args<'_>, _: &mut _, _: &mut _| Wait::NONE;
                execute_block(keyspaces, block, call.context, space, session, out)
            }
        }
    }

    /// Uses a keyspace that was recovered in place.
    fn replace(&mut self, mut keyspace: Box<Keyspace>) {
        self.seal();
        if let Some(old) = &mut self.keyspace {
            keyspace.inherit(old);
        }
        self.gate_keyspace(&mut keyspace);
        keyspace.set_now_ms(self.now_ms);
        keyspace.durable(self.log.durable_lsn());
        self.keyspace = Some(keyspace);
        self.publish();
    }

    /// Replies came back.
    fn answered(&mut self, from: ShardId, id: ConnId, answers: &Answers) {
        self.credit[from] += answers.ends.len();
        self.attention.append(&mut self.credit_conns);
        let Some(mut conn) = self.take(id) else {
            return;
        };
        let mut start = 0;
        for (place, end, wait) in &answers.ends {
            let reply = &answers.bytes[start..*end];
            start = *end;
            let fan = matches!(&conn.barrier, Some(Barrier::Fan(fan)) if fan.place == *place);
            if fan {
                self.fan_part(&mut conn, from, reply, *wait);
            } else {
                conn.call_returns(from);
                conn.fill(*place, reply, *wait);
            }
        }
        self.go_on_behind(&conn);
        self.watch_gate(&mut conn);
        self.attention.push(id);
        self.wait_for_turn(&mut conn);
        self.put_back(conn);
    }

    /// What a connection asked of the server is done.
    fn server_done(&mut self, id: ConnId, result: Result<(), String>) {
        let Some(mut conn) = self.take(id) else {
            return;
        };
        if let Some(Barrier::Server(place)) = conn.barrier {
            conn.barrier = None;
            let mut out = Vec::new();
            let mut reply = Reply::new(&mut out, conn.session.protocol);
            match result {
                Ok(()) => reply.ok(),
                Err(text) => reply.error(&crate::reply::Reject::err(text)),
            }
            conn.fill(place, &out, Wait::NONE);
        }
        self.attention.push(id);
        self.put_back(conn);
    }

    fn show_monitors(&mut self, line: &Bytes, wait: Wait) {
        for id in self.monitors.clone() {
            let Some(mut conn) = self.take(id) else {
                continue;
            };
            if conn.barrier.is_none() && !conn.closing {
                conn.reply(wait, |out| {
                    Reply::new(out, Protocol::Resp2).raw(line);
                });
                self.watch_gate(&mut conn);
                self.attention.push(id);
            }
            self.put_back(conn);
        }
    }
}
