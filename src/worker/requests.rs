//! From bytes to replies: reads the requests of a connection and runs each where its keys live.
//!
//! Always true: a request is consumed once it was run, sent away, or queued; one that has to wait
//! is left where it is and looked at again. Calls for one shard leave in request order.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use crate::command::spec::{Across, flag};
use crate::command::{Row, RowId, Run, table};
use crate::conn::reply_queue::Place;
use crate::keyspace::Wait;
use crate::keyspace::txn::Owners;
use crate::limits::{HELD_BYTES_MAX, PLACES_MAX, TURN_BYTES_MAX, TURN_COMMANDS_MAX};
use crate::metrics::{SlowEntry, is_slow};
use crate::reply::{Reject, Reply};
use crate::resp::decode::{Args, DecodeLimits, Decoded, OwnedArgs};
use crate::resp::pipeline::Pipeline;
use crate::route::{Need, ShardSet, merge};
use crate::session::{ReplyMode, permitted, redacted};
use crate::shard::mailbox::{Call, Calls, ConnId, Message, ShardId, Work};
use crate::shard::{Context, Ended, execute};
use crate::sim::{self, Fault};
use crate::worker::Worker;
use crate::worker::conn::{Barrier, Conn, Fan};
use crate::worker::lending::{drop_wanted, runs_while_held};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is done with.
    Next,
    /// It has to wait; look again.
    Again,
}

impl Worker {
    /// Bytes arrived on a connection.
    pub fn receive(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(mut conn) = self.take(id) else {
            return;
        };
        self.metrics.net_input_bytes.add(bytes.len() as u64);
        let client = &conn.session.client;
        client
            .received_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if conn.input.is_empty() && !conn.closing {
            let used = self.run_requests(&mut conn, bytes);
            conn.input.extend_from_slice(&bytes[used..]);
        } else {
            conn.input.extend_from_slice(bytes);
            self.run_input(&mut conn);
        }
        self.after(conn);
    }

    /// Runs what was read and has not been run.
    pub fn resume(&mut self, id: ConnId) {
        let Some(mut conn) = self.take(id) else {
            return;
        };
        if conn.more {
            self.run_input(&mut conn);
        }
        self.after(conn);
    }

    fn run_input(&mut self, conn: &mut Conn) {
        let mut input = std::mem::take(&mut conn.input);
        let used = self.run_requests(conn, &input);
        if used == input.len() {
            input = Vec::new();
        } else {
            input.drain(..used);
        }
        conn.input = input;
    }

    /// What has to happen after requests of a connection were run.
    fn after(&mut self, mut conn: Box<Conn>) {
        self.send_outgoing(&mut conn);
        self.wait_for_turn(&mut conn);
        if let Some(Barrier::Fan(fan)) = &conn.barrier
            && fan.wait == Wait::TURN
            && !conn.in_turn
        {
            conn.in_turn = true;
            self.turn_conns.push(conn.id);
        }
        self.watch_gate(&mut conn);
        let limit = self.settings.current().client_query_buffer_bytes;
        if conn.input.len() > limit {
            self.metrics.query_buffer_disconnections.add(1);
            conn.closing = true;
            conn.input = Vec::new();
        }
        let wanted = match &mut conn.barrier {
            Some(Barrier::Durable {
                lsn: lsn @ None, ..
            }) => Some(lsn),
            _ => None,
        };
        if let Some(lsn) = wanted {
            // Everything before it on this connection: what this turn wrote included.
            *lsn = Some(u64::MAX);
            let id = conn.id;
            self.put_back(conn);
            self.seal();
            let last_lsn = self.log.last_lsn();
            if let Some(Barrier::Durable { lsn, .. }) =
                self.conn(id).and_then(|conn| conn.barrier.as_mut())
            {
                *lsn = Some(last_lsn);
            }
            self.log.request_sync();
            self.durable_waits.push(Reverse((last_lsn, id)));
            return;
        }
        self.put_back(conn);
    }

    fn decode_limits(&mut self, conn: &Conn) -> DecodeLimits {
        let settings = self.settings.current();
        DecodeLimits {
            args_max: settings.arguments_max,
            bulk_bytes_max: settings.proto_max_bulk_bytes,
            request_bytes_max: settings
                .client_query_buffer_bytes
                .min(crate::limits::REQUEST_BYTES_MAX),
            authenticated: conn.session.authenticated,
        }
    }

    /// Runs requests from `buffer` until it ends, something has to wait, or the budget is used up.
    /// Returns the bytes that are done with.
    fn run_requests(&mut self, conn: &mut Conn, buffer: &[u8]) -> usize {
        let limits = self.decode_limits(conn);
        let mut decoder = std::mem::take(&mut conn.decoder);
        let mut pipeline = std::mem::take(&mut self.pipeline);
        // Where the pipeline begins, and where the next request does.
        let (mut from, mut at) = (0, 0);
        let mut commands = 0;
        let unread = conn.queue.unread_bytes();
        pipeline.clear();
        conn.more = false;
        while at < buffer.len() && !conn.closing {
            let built = conn.queue.unread_bytes().saturating_sub(unread);
            if commands >= TURN_COMMANDS_MAX || at >= TURN_BYTES_MAX || built >= HELD_BYTES_MAX {
                conn.more = true;
                self.attention.push(conn.id);
                break;
            }
            if !self.may_run(conn) {
                conn.more = true;
                break;
            }
            if pipeline.is_used_up() && limits.authenticated && decoder.is_at_start() {
                from = at;
                pipeline.read(&buffer[from..], &limits);
                self.warm(conn, &pipeline, &buffer[from..]);
            }
            let number = pipeline.taken();
            let (args, end) = if let Some((args, end)) = pipeline.take(&buffer[from..]) {
                self.next_warmed = self.warmed.get(number).copied().flatten();
                (args, from + end)
            } else {
                self.next_warmed = None;
                match decoder.decode(&buffer[at..], &limits) {
                    Ok(Decoded::Incomplete { want }) => {
                        conn.input_wanted = buffer.len() - at + want;
                        break;
                    }
                    Ok(Decoded::Empty { consumed }) => {
                        at += consumed;
                        continue;
                    }
                    Ok(Decoded::Request { consumed }) => {
                        (decoder.args(&buffer[at..]), at + consumed)
                    }
                    Err(error) => {
                        self.metrics.protocol_errors.add(1);
                        let reject = Reject::err(error.text());
                        self.refuse(conn, &reject);
                        conn.closing = true;
                        break;
                    }
                }
            };
            if self.request(conn, args) == Flow::Again {
                conn.more = true;
                if matches!(conn.barrier, Some(Barrier::Reading)) {
                    self.fetch_ahead(conn, &buffer[at..], &limits);
                }
                break;
            }
            at = end;
            commands += 1;
        }
        conn.decoder = decoder;
        self.pipeline = pipeline;
        self.next_warmed = None;
        self.note_requests(conn, commands, buffer.len() - at);
        if conn.closing { buffer.len() } else { at }
    }

    /// Tells what CLIENT LIST shows of a connection.
    fn note_requests(&self, conn: &Conn, commands: usize, unread_bytes: usize) {
        let client = &conn.session.client;
        client.active_ms.store(self.now_ms, Ordering::Relaxed);
        client
            .commands
            .fetch_add(commands as u64, Ordering::Relaxed);
        client.query_bytes.store(unread_bytes, Ordering::Relaxed);
        client
            .output_bytes
            .store(conn.queue.unread_bytes(), Ordering::Relaxed);
    }

    /// Brings near what a pipeline will look at. Most commands have one key, behind their name;
    /// to look for another word there does no harm.
    fn warm(&mut self, conn: &Conn, pipeline: &Pipeline, buffer: &[u8]) {
        self.warmed.clear();
        if let Some(keyspace) = &self.keyspace
            && pipeline.len() > 1
        {
            let keys = pipeline.requests(buffer).map(|request| request.try_get(1));
            keyspace.warm(conn.session.database, keys, &mut self.warmed);
        }
    }

    /// Whether the next request of a connection may run; if not, it is noted where it will be
    /// woken.
    fn may_run(&mut self, conn: &mut Conn) -> bool {
        if conn.barrier.is_some() || self.shared.stopping.load(Ordering::Relaxed) {
            return false;
        }
        match &self.held {
            // It is looked at again when the shards are home.
            Some(held) if held.commands_left == 0 => return false,
            Some(_) => {}
            None if self.keyspace.is_none() || !self.waiting.is_empty() => {
                self.waiting_conns.push(conn.id);
                return false;
            }
            None => {}
        }
        if conn.queue.places() >= PLACES_MAX {
            return false;
        }
        let held_bytes = conn.queue.held_bytes();
        // What is held goes by itself, and wakes the connection then.
        held_bytes < HELD_BYTES_MAX && (held_bytes == 0 || !self.log.queue_full())
    }

    /// Answers with an error.
    pub(super) fn refuse(&mut self, conn: &mut Conn, reject: &Reject) {
        self.metrics.record_error(reject.text());
        let protocol = conn.session.protocol;
        if !Worker::is_suppressed(conn) {
            conn.reply(Wait::NONE, |out| Reply::new(out, protocol).error(reject));
        }
    }

    fn request(&mut self, conn: &mut Conn, args: Args<'_>) -> Flow {
        if conn.session.reply_mode == ReplyMode::SkipNext {
            conn.session.reply_mode = ReplyMode::Skip;
        }
        let flow = self.route_request(conn, args);
        if flow == Flow::Next {
            conn.requests.next();
            if let Some(fetch) = conn.fetch.take() {
                self.release(fetch);
            }
            if conn.session.reply_mode == ReplyMode::Skip {
                conn.session.reply_mode = ReplyMode::On;
            }
        }
        flow
    }

    fn route_request(&mut self, conn: &mut Conn, args: Args<'_>) -> Flow {
        let id = match table().find_again(&mut conn.last_found, args) {
            Ok(id) => id,
            Err(reject) => {
                self.abort_block(conn);
                let reject = if conn.session.authenticated {
                    reject
                } else {
                    Reject::authentication_required()
                };
                self.refuse(conn, &reject);
                return Flow::Next;
            }
        };
        let row = table().row(id);
        if !conn.session.authenticated && !row.has(flag::NO_AUTH) {
            self.metrics.record_rejected(id.0 as usize);
            self.refuse(conn, &Reject::authentication_required());
            return Flow::Next;
        }
        let refused = row.has(flag::PROTECTED).then(|| {
            let allowed = self.settings.current().enable_debug_command;
            permitted(row, &conn.session.client, allowed)
        });
        if let Some(Err(reject)) = refused {
            self.metrics.record_rejected(id.0 as usize);
            self.abort_block(conn);
            self.refuse(conn, &reject);
            return Flow::Next;
        }
        if self.is_paused(row) {
            self.timed_conns.push(conn.id);
            return Flow::Again;
        }
        conn.session
            .client
            .last_row
            .store(u32::from(id.0), Ordering::Relaxed);
        if conn.session.block.is_some() && !row.has(flag::IMMEDIATE) {
            return self.queue_in_block(conn, id, args);
        }
        if row.spec.name == "exec" && self.block_waits_for_memory(conn) {
            self.timed_conns.push(conn.id);
            return Flow::Again;
        }
        if self.held.is_some() && !runs_while_held(row) {
            return Flow::Again;
        }
        // These speak of everything before them, which has to have arrived.
        if matches!(row.spec.name, "wait" | "waitaof") && conn.queue.places() > 0 {
            self.send_outgoing(conn);
            return Flow::Again;
        }
        let hidden = row.has(flag::SKIP_MONITOR) || row.has(flag::ADMIN);
        let flow = match row.run {
            Run::Session(_) => self.session_command(conn, id, args),
            _ => self.key_command(conn, id, args),
        };
        let watched = self.shared.monitors.load(Ordering::Relaxed) > 0 && !hidden;
        if watched && flow == Flow::Next {
            match redacted(row, args) {
                Some(shown) => self.monitor_line(conn, shown.args()),
                None => self.monitor_line(conn, args),
            }
        }
        flow
    }

    fn is_paused(&self, row: &Row) -> bool {
        let clients = &self.shared.clients;
        let until_ms = clients.paused_until_ms.load(Ordering::Relaxed);
        if until_ms <= self.now_ms {
            return false;
        }
        let all = clients.paused_all.load(Ordering::Relaxed);
        let exempt = row.spec.name.starts_with("client|") || row.has(flag::NO_AUTH);
        !exempt && (all || row.has(flag::WRITE) || row.spec.name == "exec")
    }

    fn key_command(&mut self, conn: &mut Conn, id: RowId, args: Args<'_>) -> Flow {
        let row = table().row(id);
        let need = self.routes.need(row, args);
        let short = self.held.is_none()
            && match &need {
                Ok(Need::One(shard)) => self.waits_for_memory(row, *shard),
                Ok(Need::Several(shards)) => {
                    let mut shards = shards.ids().iter();
                    shards.any(|shard| self.waits_for_memory(row, *shard))
                }
                _ => false,
            };
        if short {
            self.timed_conns.push(conn.id);
            return Flow::Again;
        }
        if let (Some(held), Ok(need)) = (&self.held, &need) {
            let covered = match need {
                Need::Nothing => false,
                Need::One(shard) => held.covers(&[*shard]),
                Need::Several(shards) => held.covers(shards.ids()),
            };
            return if covered {
                self.run_here(conn, id, args)
            } else {
                Flow::Again
            };
        }
        match need {
            Err(reject) => {
                self.metrics.record_rejected(id.0 as usize);
                self.refuse(conn, &reject);
                Flow::Next
            }
            Ok(Need::One(shard)) if shard != self.id => {
                let work = Work::Command(id, OwnedArgs::from_slices(args.iter()));
                self.send_call(conn, shard, work)
            }
            Ok(Need::One(_) | Need::Nothing) => self.run_here(conn, id, args),
            Ok(Need::Several(shards)) if row.spec.across == Across::Atomic => {
                let work = Work::Command(id, OwnedArgs::from_slices(args.iter()));
                self.lend_for(conn, shards, work);
                Flow::Next
            }
            Ok(Need::Several(shards)) => self.fan_out(conn, id, args, &shards),
        }
    }

    pub(super) fn context(&self, conn: &Conn) -> Context {
        Context {
            database: conn.session.database,
            protocol: conn.session.protocol,
            origin: conn.requests.origin(conn.id.client),
        }
    }

    /// Whether the reply of the current command is sent.
    pub(super) fn is_suppressed(conn: &Conn) -> bool {
        let silent = matches!(conn.session.reply_mode, ReplyMode::Off | ReplyMode::Skip);
        silent && !sim::fault(Fault::SilenceBroken)
    }

    fn run_here(&mut self, conn: &mut Conn, id: RowId, args: Args<'_>) -> Flow {
        let context = self.context(conn);
        let suppressed = Worker::is_suppressed(conn);
        let owners = match (&mut self.held, &mut self.keyspace) {
            (Some(held), _) => {
                held.commands_left = held.commands_left.saturating_sub(1);
                Owners::Several(&mut held.keyspaces)
            }
            (None, Some(keyspace)) => {
                keyspace.set_warmed(self.next_warmed);
                Owners::One(keyspace)
            }
            (None, None) => return Flow::Again,
        };
        let allowance = &mut self.allowance;
        let ended = conn.queue.reply(|out| {
            let start = out.len();
            let ended = execute(owners, table().row(id), args, context, allowance, out);
            let wait = match ended {
                Ended::Done { wait, failed } => {
                    if failed {
                        self.metrics.record_error(error_text(&out[start..]));
                    }
                    wait
                }
                Ended::Later | Ended::Asleep => Wait::NONE,
            };
            if suppressed {
                out.truncate(start);
            }
            (wait, ended)
        });
        if let Some(keyspace) = &mut self.keyspace {
            keyspace.set_warmed(None);
        }
        match ended {
            Ended::Later => {
                self.wants_space = true;
                self.waiting_conns.push(conn.id);
                Flow::Again
            }
            Ended::Asleep => {
                match &mut self.held {
                    // It is looked at again when the shards are home, and waits for its keys then.
                    Some(held) => drop_wanted(&mut held.keyspaces),
                    None => self.fetch_for_request(conn),
                }
                Flow::Again
            }
            Ended::Done { failed, .. } => {
                self.record(id, args, failed, Some(&conn.session.client));
                Flow::Next
            }
        }
    }

    /// Counts a command that has just run.
    pub(super) fn record(
        &mut self,
        id: RowId,
        args: Args<'_>,
        failed: bool,
        client: Option<&crate::session::Client>,
    ) {
        let took_ns = self.took_ns();
        let tracking = self.settings.current().latency_tracking;
        self.metrics
            .record_call(id.0 as usize, took_ns, failed, tracking);
        self.record_if_slow(id, args, took_ns, client);
    }

    /// Counts the time of a part of a command that has just run; whoever sent it counts the rest.
    pub(super) fn record_part(&mut self, id: RowId, args: Args<'_>) {
        let took_ns = self.took_ns();
        self.metrics.record_part(id.0 as usize, took_ns);
        self.record_if_slow(id, args, took_ns, None);
    }

    /// Time since the last command.
    fn took_ns(&mut self) -> u64 {
        let now_ns = self.clock.now_ns();
        let took_ns = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        took_ns
    }

    fn record_if_slow(
        &mut self,
        id: RowId,
        args: Args<'_>,
        took_ns: u64,
        client: Option<&crate::session::Client>,
    ) {
        let settings = self.settings.current();
        let row = table().row(id);
        if is_slow(took_ns, settings.slowlog_slower_than_us) && !row.has(flag::SKIP_SLOWLOG) {
            let (address, name) = client.map_or_else(Default::default, |client| {
                (client.address.to_string(), client.names().name)
            });
            let shown = redacted(row, args);
            let shown = shown.as_ref().map_or(args, |shown| shown.args());
            let words: Vec<&[u8]> = shown.iter().collect();
            let us = took_ns / 1_000;
            let entry = SlowEntry::new(
                self.now_ms,
                us,
                words.into_iter(),
                &address,
                name.as_bytes(),
            );
            self.shared
                .metrics
                .slow_log
                .record(entry, settings.slowlog_entries_max);
        }
        let threshold_ms = settings.latency_monitor_threshold_ms;
        if threshold_ms > 0 && took_ns >= threshold_ms as u64 * 1_000_000 {
            let event = if row.has(flag::FAST) {
                "fast-command"
            } else {
                "command"
            };
            self.shared
                .metrics
                .latency
                .record(event, self.now_ms, took_ns, threshold_ms);
        }
    }

    // ---- calls to other shards ---------------------------------------------------------------

    /// Keeps a place for a reply, and notes if it will not be sent.
    pub(super) fn keep_place(&mut self, conn: &mut Conn) -> Place {
        let place = conn.queue.keep_place();
        if Worker::is_suppressed(conn) {
            conn.suppressed.push(place);
        }
        place
    }

    /// Puts a call for another shard into the connection's next message to it.
    pub(super) fn send_call(&mut self, conn: &mut Conn, shard: ShardId, work: Work) -> Flow {
        if self.credit[shard] == 0 {
            self.send_outgoing(conn);
            self.credit_conns.push(conn.id);
            return Flow::Again;
        }
        self.credit[shard] -= 1;
        self.metrics.hops.add(1);
        conn.call_leaves(shard);
        let place = self.keep_place(conn);
        let call = Call {
            place,
            context: self.context(conn),
            work,
            part: false,
        };
        match conn.outgoing.iter_mut().find(|(to, _)| *to == shard) {
            Some((_, calls)) => calls.push(call),
            None => conn.outgoing.push((shard, vec![call])),
        }
        Flow::Next
    }

    pub(super) fn send_outgoing(&mut self, conn: &mut Conn) {
        for (shard, calls) in conn.outgoing.drain(..) {
            let calls = Calls {
                from: self.id,
                conn: conn.id,
                calls,
            };
            self.outbox.push((shard, Message::Calls(calls)));
        }
    }

    /// Sends each shard its part of a call; the parts' replies become one.
    fn fan_out(&mut self, conn: &mut Conn, id: RowId, args: Args<'_>, shards: &ShardSet) -> Flow {
        let row = table().row(id);
        let others = shards.ids().iter().filter(|shard| **shard != self.id);
        if others.clone().any(|shard| self.credit[*shard] == 0) {
            self.send_outgoing(conn);
            self.credit_conns.push(conn.id);
            return Flow::Again;
        }
        let parts = self.routes.parts(row, args, shards);
        let context = self.context(conn);
        let mut here = None;
        // The part of this shard first: it is the only one that may have to be asked again.
        if let Some(part) = parts.iter().find(|part| part.shard == self.id)
            && let Some(keyspace) = &mut self.keyspace
        {
            let mut reply = Vec::new();
            let owners = Owners::One(keyspace);
            let space = &mut self.allowance;
            match execute(owners, row, part.args.args(), context, space, &mut reply) {
                Ended::Later => {
                    self.wants_space = true;
                    self.waiting_conns.push(conn.id);
                    return Flow::Again;
                }
                Ended::Asleep => {
                    self.fetch_for_request(conn);
                    return Flow::Again;
                }
                Ended::Done { wait, .. } => here = Some((reply, wait)),
            }
        }
        let place = self.keep_place(conn);
        self.send_outgoing(conn);
        self.record(id, args, false, Some(&conn.session.client));
        let mut fan = Fan {
            place,
            row: id,
            across: row.spec.across,
            protocol: context.protocol,
            parts: Vec::new(),
            wait: Wait::NONE,
        };
        for part in parts {
            if part.shard == self.id {
                let (reply, wait) = here.take().unwrap_or_default();
                fan.wait = fan.wait.max(wait);
                fan.parts.push((part.shard, part.keys, Some(reply)));
                continue;
            }
            self.credit[part.shard] -= 1;
            self.metrics.hops.add(1);
            let call = Call {
                place,
                context,
                work: Work::Command(id, part.args),
                part: true,
            };
            let calls = Calls {
                from: self.id,
                conn: conn.id,
                calls: vec![call],
            };
            self.outbox.push((part.shard, Message::Calls(calls)));
            fan.parts.push((part.shard, part.keys, None));
        }
        conn.barrier = Some(Barrier::Fan(fan));
        Flow::Next
    }

    /// A part of a fan-out is here.
    pub(super) fn fan_part(&mut self, conn: &mut Conn, from: ShardId, reply: &[u8], wait: Wait) {
        let Some(Barrier::Fan(fan)) = &mut conn.barrier else {
            return;
        };
        fan.wait = fan.wait.max(wait);
        for (shard, _, part) in &mut fan.parts {
            if *shard == from {
                *part = Some(reply.to_vec());
            }
        }
        if fan.parts.iter().any(|(_, _, part)| part.is_none()) {
            return;
        }
        let parts: Vec<(Vec<u32>, Vec<u8>)> = fan
            .parts
            .drain(..)
            .map(|(_, keys, part)| (keys, part.unwrap_or_default()))
            .collect();
        let (place, row, wait) = (fan.place, fan.row, fan.wait);
        let mut out = Vec::new();
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        merge(
            fan.across,
            &parts,
            fan.protocol,
            self.random >> 33,
            &mut out,
        );
        if out.starts_with(b"-") {
            self.metrics.record_failed(row.0 as usize);
            self.metrics.record_error(error_text(&out));
        }
        conn.barrier = None;
        conn.fill(place, &out, wait);
    }
}

/// The text of an encoded error reply.
pub(super) fn error_text(reply: &[u8]) -> &[u8] {
    let text = reply.strip_prefix(b"-").unwrap_or(reply);
    text.strip_suffix(b"\r\n").unwrap_or(text)
}
