//! Running commands on keyspaces: the plain core of a shard, without I/O, clock or locks.
//!
//! Always true: a command's writes are kept whole or dropped whole; nothing is kept whose bytes the
//! log could not take.

pub mod mailbox;

use crate::command::spec::{Needs, flag};
use crate::command::{Row, RowId, Run, table};
use crate::keyspace::cold::Unreadable;
use crate::keyspace::txn::{Owners, Txn, WatchedKey};
use crate::keyspace::{Keyspace, Wait};
use crate::reply::{Reject, Reply};
use crate::resp::Protocol;
use crate::resp::decode::{Args, OwnedArgs};
use crate::session::Condition;
use crate::sim;

/// What the log says when room for effects is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It is there.
    Granted,
    /// It is being made; ask again.
    Later,
    /// The disk is full.
    None,
}

/// Where room for effects is asked for.
pub trait Space {
    /// Asks for `bytes`; `urgent` for what frees space.
    fn take(&mut self, bytes: u64, urgent: bool) -> Room;

    /// Gives back what was taken and is not needed.
    fn give_back(&mut self, bytes: u64);
}

/// Room without end.
pub struct Endless;

impl Space for Endless {
    fn take(&mut self, _bytes: u64, _urgent: bool) -> Room {
        Room::Granted
    }

    fn give_back(&mut self, _bytes: u64) {}
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The reply is written and has to wait for this; `failed`: it is an error.
    Done {
        /// What the reply has to wait for.
        wait: Wait,
        /// The reply is an error.
        failed: bool,
    },
    /// Nothing happened: the log has no room yet. Call again.
    Later,
    /// Nothing happened: keys have to be read first. The keyspaces say which are wanted.
    Asleep,
}

/// Where and how a call runs.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Database number.
    pub database: usize,
    /// RESP2 or RESP3.
    pub protocol: Protocol,
    /// For whom: told to the simulator alone.
    pub origin: sim::Origin,
}

/// Runs one command of the table and appends its reply. It may end as asleep.
pub fn execute(
    owners: Owners<'_>,
    row: &Row,
    args: Args<'_>,
    context: Context,
    space: &mut dyn Space,
    out: &mut Vec<u8>,
) -> Ended {
    let txn = Txn::patient(owners, context.database);
    execute_in(txn, row, args, context, space, out)
}

fn execute_in(
    txn: Txn<'_>,
    row: &Row,
    args: Args<'_>,
    context: Context,
    space: &mut dyn Space,
    out: &mut Vec<u8>,
) -> Ended {
    let start = out.len();
    let scene = sim::scene(txn.owners());
    let ended = run_command(txn, row, args, context, space, out);
    if ended != Ended::Asleep {
        sim::ran(scene, context, row, args, (ended, &out[start..]));
    }
    ended
}

fn run_command(
    mut txn: Txn<'_>,
    row: &Row,
    args: Args<'_>,
    context: Context,
    space: &mut dyn Space,
    out: &mut Vec<u8>,
) -> Ended {
    let start = out.len();
    let mut reply = Reply::new(out, context.protocol);
    let Run::Keys(run) = row.run else {
        let text = format!("ERR {} cannot run here", row.spec.name);
        reply.error(&Reject::new(text));
        return Ended::Done {
            wait: Wait::NONE,
            failed: true,
        };
    };
    let result = run(&mut txn, args, &mut reply);
    let result = match txn.unreadable() {
        None => result,
        Some(Unreadable::Failed(text)) => Err(Reject::new(text)),
        Some(Unreadable::Asleep) => {
            txn.put_off();
            out.truncate(start);
            return Ended::Asleep;
        }
    };
    let reject = match result {
        Ok(()) => match room(&txn, row, space) {
            Room::Granted => {
                return Ended::Done {
                    wait: txn.commit(),
                    failed: false,
                };
            }
            Room::Later => {
                txn.take_back();
                out.truncate(start);
                return Ended::Later;
            }
            Room::None => Reject::no_space(),
        },
        Err(reject) => reject,
    };
    let wait = txn.roll_back();
    out.truncate(start);
    Reply::new(out, context.protocol).error(&reject);
    Ended::Done { wait, failed: true }
}

fn room(txn: &Txn<'_>, row: &Row, space: &mut dyn Space) -> Room {
    match txn.effect_bytes() {
        0 => Room::Granted,
        bytes => space.take(bytes, row.has(flag::FREES)),
    }
}

/// A MULTI block on its way to the owners of its keys.
#[derive(Clone, Debug, Default)]
pub struct BlockCall {
    /// The queued commands.
    pub calls: Vec<(RowId, OwnedArgs)>,
    /// What must not have changed.
    pub watched: Vec<WatchedKey>,
    /// What must hold.
    pub conditions: Vec<Condition>,
}

/// Whether a block may run, and what its reply depends on by then.
///
/// # Errors
/// Something that it depends on cannot be read.
pub fn block_may_run(
    owners: Owners<'_>,
    block: &BlockCall,
    context: Context,
) -> (Result<bool, Reject>, Wait) {
    let mut txn = Txn::new(owners, context.database);
    // Every watch is looked at, so that a refusal waits for the write that caused it.
    let unchanged = block
        .watched
        .iter()
        .filter(|watched| txn.unchanged(watched))
        .count();
    let mut run = unchanged == block.watched.len();
    for condition in &block.conditions {
        let key = txn.key(condition.key());
        let equal = |txn: &mut Txn<'_>, wanted: &[u8]| {
            let text = txn.string(&key).ok().flatten();
            text.is_some_and(|text| text.with(|bytes| bytes == wanted))
        };
        run &= match condition {
            Condition::Equal(_, wanted) => equal(&mut txn, wanted),
            Condition::NotEqual(_, wanted) => !equal(&mut txn, wanted),
            Condition::Missing(_) => !txn.exists(&key),
            Condition::Exists(_) => txn.exists(&key),
        };
    }
    // EXEC ends all watches, whether it runs the block or not.
    for watched in &block.watched {
        txn.unwatch(watched);
    }
    let run = match txn.unreadable() {
        None => Ok(run),
        Some(error) => Err(Reject::new(error.to_string())),
    };
    (run, txn.commit())
}

/// Whether the keys that a block names are here. It cannot be taken back, so it does not begin
/// before; what it finds to need besides (in another database, beside a key) is read at once.
fn is_awake(keyspaces: &mut [Box<Keyspace>], block: &BlockCall, context: Context) -> bool {
    if !keyspaces.iter().any(|keyspace| keyspace.may_want()) {
        return true;
    }
    let mut txn = Txn::patient(Owners::Several(keyspaces), context.database);
    for (id, args) in &block.calls {
        let (row, args) = (table().row(*id), args.args());
        let places = row.key_places(args).unwrap_or_default();
        for key in places.each(args) {
            txn.exists(&txn.key(key));
        }
        if let Some(key) = places.each(args).next() {
            wake_fields(&mut txn, key, (row.needs)(args), args);
        }
    }
    for condition in &block.conditions {
        txn.exists(&txn.key(condition.key()));
    }
    for watched in &block.watched {
        // A number that was watched was one.
        if txn.select(watched.number as i64).is_ok() {
            txn.exists(&txn.key(&watched.key));
        }
    }
    let asleep = txn.unreadable() == Some(Unreadable::Asleep);
    txn.put_off();
    !asleep
}

/// Sees that what a call needs of the hash at its first key is here.
fn wake_fields(txn: &mut Txn<'_>, key: &[u8], needs: Needs, args: Args<'_>) {
    let key = txn.key(key);
    match needs {
        Needs::Nothing => {}
        Needs::Fields(fields) => drop(txn.fields(&key, fields.each(args, 0))),
        Needs::AllFields => drop(txn.peek_whole(&key)),
    }
}

/// What runs the session commands of a block; says what the reply has to wait for.
pub type SessionRun<'a> = &'a mut dyn FnMut(RowId, Args<'_>, &mut Context, &mut Vec<u8>) -> Wait;

/// Runs a block: the reply of EXEC. `reach` borrows the keyspaces anew for each command.
pub fn execute_block(
    keyspaces: &mut [Box<Keyspace>],
    block: &BlockCall,
    mut context: Context,
    space: &mut dyn Space,
    session: SessionRun<'_>,
    out: &mut Vec<u8>,
) -> Ended {
    if !is_awake(keyspaces, block, context) {
        return Ended::Asleep;
    }
    let Some(has_room) = room_for(block, space) else {
        return Ended::Later;
    };
    let scene = sim::scene(&Owners::Several(keyspaces));
    let block_start = out.len();
    let (run, mut wait) = block_may_run(Owners::Several(keyspaces), block, context);
    sim::block(scene, context, block, run == Ok(true));
    match run {
        Ok(true) if has_room => {}
        Ok(true) => {
            Reply::new(out, context.protocol).error(&Reject::no_space());
            sim::block_done(context, &out[block_start..]);
            return Ended::Done { wait, failed: true };
        }
        Ok(false) => {
            Reply::new(out, context.protocol).null_array();
            sim::block_done(context, &out[block_start..]);
            return Ended::Done {
                wait,
                failed: false,
            };
        }
        Err(reject) => {
            Reply::new(out, context.protocol).error(&reject);
            return Ended::Done { wait, failed: true };
        }
    }
    Reply::new(out, context.protocol).array(block.calls.len());
    for (id, args) in &block.calls {
        let row = table().row(*id);
        if matches!(row.run, Run::Session(_)) {
            wait = wait.max(session(*id, args.args(), &mut context, out));
            continue;
        }
        let start = out.len();
        let txn = Txn::new(Owners::Several(keyspaces), context.database);
        // A block cannot be run again: what it needs beyond the estimate is taken as urgent.
        let ended = execute_in(txn, row, args.args(), context, &mut Urgent(space), out);
        match ended {
            Ended::Done { wait: more, .. } => wait = wait.max(more),
            Ended::Later | Ended::Asleep => {
                out.truncate(start);
                Reply::new(out, context.protocol).error(&Reject::no_space());
            }
        }
    }
    sim::block_done(context, &out[block_start..]);
    Ended::Done {
        wait,
        failed: false,
    }
}

/// Whether the log has room for what a block writes; nothing while it is being made. The room is
/// taken by the commands; here it is only made sure that it is there for all of them, for on a disk
/// that is full a block does not happen in part. One that only frees space may use what is set
/// aside.
fn room_for(block: &BlockCall, space: &mut dyn Space) -> Option<bool> {
    let has = |id: &RowId, flag| table().row(*id).has(flag);
    let writes = block.calls.iter().filter(|(id, _)| has(id, flag::WRITE));
    let frees = writes.clone().all(|(id, _)| has(id, flag::FREES));
    let estimate: usize = writes.map(|(_, args)| args.heap_bytes() + 256).sum();
    if estimate == 0 {
        return Some(true);
    }
    match space.take(estimate as u64, frees) {
        Room::Later => None,
        Room::Granted => {
            space.give_back(estimate as u64);
            Some(true)
        }
        Room::None => Some(false),
    }
}

struct Urgent<'a>(&'a mut dyn Space);

impl Space for Urgent<'_> {
    fn take(&mut self, bytes: u64, _urgent: bool) -> Room {
        match self.0.take(bytes, true) {
            // Being made: the batch gets it when it is queued.
            Room::Later => Room::Granted,
            room => room,
        }
    }

    fn give_back(&mut self, bytes: u64) {
        self.0.give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::transcript::{Transcript, words};

    /// Room that has to be asked for so often.
    struct Slow(usize);

    impl Space for Slow {
        fn take(&mut self, _bytes: u64, _urgent: bool) -> Room {
            let Some(left) = self.0.checked_sub(1) else {
                return Room::Granted;
            };
            self.0 = left;
            Room::Later
        }

        fn give_back(&mut self, _bytes: u64) {}
    }

    #[test]
    fn a_command_that_waits_for_room_counts_what_it_found_once() {
        let mut t = Transcript::new();
        t.check("SET a 1", "OK");
        let context = Context {
            database: 0,
            protocol: Protocol::Resp2,
            origin: sim::Requests::default().origin(0),
        };
        let mut space = Slow(2);
        let before = t.keyspace().stats();
        for line in ["GETSET a 2", "GETSET a 2", "GETSET a 2", "GETSET b 1"] {
            let words = words(line);
            let row = table().find(words.args()).expect("it is known");
            let owners = Owners::One(t.keyspace());
            let mut out = Vec::new();
            let (row, args) = (table().row(row), words.args());
            execute(owners, row, args, context, &mut space, &mut out);
        }
        let after = t.keyspace().stats();
        assert_eq!(
            (after.hits - before.hits, after.misses - before.misses),
            (1, 1)
        );
    }
}
