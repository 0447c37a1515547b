//! tallyman: a Redis-protocol server in which every key has one owner and every acknowledged write
//! is on disk. This page is for whoever carries on: it says where things are and what must stay
//! true. `README.md` says what users may rely on.
//!
//! # The way of a command
//!
//! ```text
//! socket ─► resp::decode ─► command table ─► route ─► shard: Txn on Keyspace ─► sealed batch
//! worker     Request         Row             slot          │                       │
//! socket ◄─ conn: replies in request order ◄─ gate ◄─ durable_lsn ◄─ log (one sync per group)
//!                                                                                  │ later
//!                                                 fjall store ◄─ checkpoint (sorted ingestion)
//! ```
//!
//! 1. A connection's bytes become a flat list of ranges (`resp::decode`); nothing is copied.
//! 2. `command::table` finds the row. Its grammar parses the arguments: the declaration is the
//!    parser. A session command sees the connection ([`session`]), a key command sees a
//!    [`keyspace::txn::Txn`] and nothing else.
//! 3. [`route`] says which shards own the keys. One, and it is this thread's: it runs right here.
//!    One other: the call goes into its mailbox. Several: the call fans out and the parts are
//!    merged, or, where it must be atomic, a coordinator borrows the shards in ascending order
//!    (`worker::lending`), once for all that the thread's connections asked for in a turn.
//! 4. The `Txn` writes in memory. A `Reject` rolls everything back. What was touched is noted.
//! 5. At the end of the turn the shard is sealed: the final values of all that was touched become
//!    one batch, and pushing it on the [`log`]'s queue gives it its lsn.
//! 6. The reply is in the connection's buffer already, behind the gate ([`conn`]): its bytes leave
//!    when the last write of every key that the command looked at is durable.
//! 7. Later, a checkpoint takes the dirty entries of all shards, in the store's order, into the
//!    [`store`], and trims the log behind its position. A start ([`recovery`]) reads how many keys
//!    there are, and replays the log behind that position.
//! 8. Clean entries are evicted when memory is short. A key that the tables do not know is as the
//!    store has it. A command that finds one is taken back, and waits at the input gate
//!    ([`worker::input_gate`]) until another thread has read it ([`residency`]); then it runs
//!    again. Other keys go on meanwhile. Of a large hash the fields that are named are read, by
//!    themselves; it is in memory in part then, with the number of all its fields.
//!
//! # Threads
//!
//! - `shard-N`, one per core but one: a tokio current-thread runtime around a [`worker::Worker`]:
//!   owns the keys of a range of slots, and serves a share of the connections. They have no tasks
//!   of their own: one looks at those whose sockets are ready. What a turn has for another shard
//!   leaves together.
//! - `log-commit`: takes the batches that queued while the last sync ran, writes one record, syncs,
//!   wakes who waits. `log-prepare` makes segments ready before they are needed.
//! - `checkpoint`: one checkpoint at a time; the store's `compaction` runs beside it. Both give way
//!   to the other threads, by a higher nice value.
//! - `reader-N`, a few: read keys that hibernate, for the shards.
//! - `deadlines`: tells the shards which keys on disk are due.
//! - `main`: accepts sockets and deals them out, start and stop.
//! - `stop`: hears signals, tells main of the first, and bounds how long the stop takes then.
//! - For a while: `backup`, while one is made; `free`, which drops what was flushed.
//!
//! Cores are plain structs, threads are thin: `Worker`, the keyspace and the committer take bytes,
//! messages and times, and give bytes and messages. `worker::runner` and `log::runner` own the
//! threads. So tests drive the cores by hand.
//!
//! # Modules, and what each may import
//!
//! - [`limits`]: every bound, with its unit. Imports nothing.
//! - [`clock`]: the only reader of clocks. Imports nothing.
//! - [`number`], [`glob`]: numbers and patterns as Redis has them. Imports `limits`.
//! - [`resp`], [`reply`]: requests in, replies out; no command is known here. Imports `number`,
//!   `limits`, each other.
//! - [`keyspace`]: a shard's table, and the `Txn` that commands see. Imports `reply` (for
//!   `Reject`), `number`, `limits`.
//! - [`command`]: table, grammar, one file or folder per family. Imports `keyspace`, `reply`,
//!   `resp`, `number`, `glob`, `limits`, `session`; for the server's own commands `config` and
//!   `metrics`.
//! - [`config`], [`metrics`], [`logging`]: settings; figures; log lines. Imports `limits`; logging
//!   also `config`.
//! - [`session`]: a connection's state, and what connections share. Imports `command` (its table),
//!   `config`, `metrics`, `keyspace`, `clock`, `reply`, `resp`.
//! - [`log`](mod@log): the commit log; payloads are opaque. Imports `limits`.
//! - [`store`]: rows on disk, folder, checkpoint; only `store/fjall.rs` names fjall. Imports
//!   `limits`, `log` (for what the meta row says of it).
//! - [`conn`]: the gate, and the order of replies. Imports `keyspace` (for what a reply waits for).
//! - [`route`]: key → slot → shard; merging. Imports `command`, `keyspace` (for slots), `reply`,
//!   `resp`, `number`, `limits`.
//! - [`shard`]: runs commands and blocks on keyspaces; the messages of mailboxes. Imports
//!   `command`, `keyspace`, `reply`, `resp`, `session`, `conn`, `store` (its rows).
//! - [`worker`]: the core of a shard thread, and its runner. Imports all above.
//! - [`residency`]: from rows to keys that hibernate. Imports `keyspace`, `store`, `limits`.
//! - [`recovery`]: from disk to keyspaces. Imports `keyspace`, `log`, `store`, `route`,
//!   `residency`, `limits`.
//! - [`check`]: reads a whole data folder. Imports `keyspace` (its codecs), `log`, `store`,
//!   `limits`.
//! - [`backup`]: copies one, while it is used too. Imports `check`, `log`, `store`, `limits`.
//! - [`server`]: start, serve, stop. Imports all above.
//! - [`tools`]: `tallyman check` and `tallyman backup`. Imports `check`, `backup`, `clock`.
//! - [`sim`]: what the simulator (`tests/sim`) is told, and deliberate faults for it to find; empty
//!   without the feature `simulation`. Anybody may call it.
//!
//! tokio is in `worker::runner` and `server` alone.
//!
//! # Where a new thing goes
//!
//! - **A command**: into its family's file: the struct, the impl (`SPEC`, `GRAMMAR`, `run`), its
//!   line in the family's `COMMANDS`, its transcripts at the end of the file. Arity, `COMMAND`,
//!   help, the README's table and the metrics follow. A new family is a file, and a line in
//!   `command::FAMILIES`.
//! - **A setting**: a row in `config/table.rs` and its field in `config/settings.rs`; command
//!   line, file, `CONFIG` and the README's table follow.
//! - **A limit**: into `limits.rs`, with what it relates to asserted beside it.
//! - **A test**: of a struct, at the end of its file; of a command's answers, a transcript in the
//!   family, and one in `tests/transcripts` if redis-server can be asked as well; of a client or of
//!   a restart, in `tests/clients`; listed in `tests/suites`.
//! - **A workload of the bench**: a line in `bench/workloads.py`, with its goal; a command whose
//!   instructions are counted, a line in `bench/execute`; a part by itself, a function in
//!   `bench/micro`.
//! - **The README's tables**: `UPDATE_README=1 cargo test --lib readme` rewrites them.
//!
//! # What is always true
//!
//! - A key has one owner, and its commands run one at a time: execution order = log order = the
//!   order that each client sees.
//! - Nothing leaves before it is durable: bytes reach a socket through the gate alone. Refusals and
//!   nulls wait too, for they also tell what was written.
//! - A batch is what one turn changed, over all shards that took part: whole on disk or not there.
//!   Effects are absolute and may be replayed over newer rows.
//! - An lsn is given under the queue's lock, in the order of the log. `durable_lsn` only rises, and
//!   only after the disk confirmed.
//! - A failed write or sync of the log ends the process. Damage is named, and never passed over.
//! - The store is written by ingestion alone, rows and log position in one step; the log is trimmed
//!   behind the store's position only, and that position is read before a sweep begins.
//! - Time is an argument: read once per turn, never going back. A `Txn` sees one time.
//! - A field that is not in memory is as the store has it, and is known before it is written. A
//!   hash that is here in part has no deadlines of fields and no open holds.
//! - What waits for a read is not begun: a command that finds a key asleep leaves no trace. What it
//!   waits for stays in memory until it runs again. Where it has to wait for something else then,
//!   such as room in the log, its keys may go, and are read again.
//! - Coordinators borrow shards in ascending order, and each shard goes home whatever happens.
//! - Generations, tokens and database ids are never used again.
//! - What is kept beside a key is an entry of its database's shadow, in the key's slot: a key that
//!   was logged or stored is made with its database id ([`keyspace::Key::of_database`]).
//! - Nothing that a client or a disk sends can panic the process. `Reject` goes to the client,
//!   `Fatal` ends the process with one line.

pub mod backup;
pub mod check;
pub mod clock;
pub mod command;
pub mod config;
pub mod conn;
pub mod glob;
pub mod keyspace;
pub mod limits;
pub mod log;
pub mod logging;
pub mod metrics;
pub mod number;
#[cfg(test)]
mod readme;
pub mod recovery;
pub mod reply;
pub mod residency;
pub mod resp;
pub mod route;
pub mod server;
pub mod session;
pub mod shard;
pub mod sim;
pub mod store;
pub mod tools;
pub mod worker;
