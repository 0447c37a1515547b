//! Starting, serving, stopping: opens the data folder, recovers, runs the threads, and carries out
//! what connections ask of the server as a whole.
//!
//! Always true: nobody is served before everything recovered is durable; a stop runs no new command
//! and, but at a second signal, waits for the log. With its checkpoint (which NOSAVE leaves out,
//! and a signal does without if need be) it leaves an empty log and everything in the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::backup::backup;
use crate::check::Step;
use crate::clock::Clock;
use crate::command::server::process::resident_bytes;
use crate::config::{Live, Settings};
use crate::limits::{FULL_DISK_RETRY_MS, MEMORY_BESIDES_BYTES};
use crate::log::{Log, SyncMode};
use crate::logging::{Ready, announce};
use crate::server::checkpoints::{Checkpoints, Progress, Request};
use crate::server::listen::Listeners;
use crate::server::open_files::OpenFiles;
use crate::session::Shared;
use crate::shard::mailbox::{ConnId, Message, ShardId};
use crate::worker::Control;
use crate::worker::runner::{Envelope, Mailbox};

pub mod checkpoints;
pub mod dead;
mod due;
mod engine;
mod listen;
mod open_files;
mod readers;
mod start;
mod stop_bound;

pub use start::first_batch;

/// Why the process ends: one line for the log, and an exit code.
#[derive(Debug)]
pub struct Fatal {
    /// What happened, where, and what to do.
    pub text: String,
    /// Exit code of the process.
    pub exit_code: u8,
}

impl Fatal {
    /// A failure with exit code 1.
    pub fn new(text: impl std::fmt::Display) -> Fatal {
        Fatal {
            text: text.to_string(),
            exit_code: 1,
        }
    }
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// What made it impossible to start or to go on.
pub fn run(
    settings: Settings,
    file: Option<std::path::PathBuf>,
    changed: impl Fn(&Settings) + Send + 'static,
) -> Result<(), Fatal> {
    let stopwatch = Clock::start(0);
    let began_ns = stopwatch.now_ns();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fatal::new(format!("cannot start the event loop: {error}")))?;
    runtime.block_on(async {
        let (control, wishes) = mpsc::unbounded_channel();
        let mut settings = settings;
        let files = OpenFiles::divide(settings.shard_count())?;
        reduce_clients(&mut settings, files);
        let listeners = Listeners::open(&settings)?;
        settings.port = listeners.port();
        let live = Live::new(settings, file);
        live.watch(changed);
        let mut server = start::start(live, files, control)?;
        let told = stop_bound::watch(server.log.clone())
            .map_err(|error| Fatal::new(format!("cannot listen to signals: {error}")))?;
        announce(&Ready {
            addresses: &listeners.addresses(),
            shards: server.shared.shards,
            dir: Path::new(&server.shared.dir),
            keys: server.recovered_keys,
            took: Duration::from_nanos(stopwatch.now_ns() - began_ns),
        });
        server.serve(listeners, wishes, told).await?;
        // The process ends: nobody waits for what compaction, reads and the like are at.
        std::mem::forget(server);
        Ok(())
    })
}

/// As Redis does: no more clients than there can be files open.
fn reduce_clients(settings: &mut Settings, files: OpenFiles) {
    if settings.maxclients > files.clients {
        tracing::warn!(
            "maxclients was {} and is now {}, because only {} files may be open: raise the limit \
             (ulimit -n) if you need more clients",
            settings.maxclients,
            files.clients,
            files.limit
        );
        settings.maxclients = files.clients;
    }
}

/// The running server.
pub(crate) struct Server {
    shared: Arc<Shared>,
    log: Log,
    clock: Clock,
    mailboxes: Vec<Mailbox>,
    threads: Vec<JoinHandle<()>>,
    checkpoints: Checkpoints,
    due: due::Due,
    readers: readers::Readers,
    recovered_keys: u64,
    reload: start::Reload,
    next_shard: usize,
    /// Clients for which files can be open.
    clients_max: usize,
    /// What is known of checkpoints.
    progress: Arc<Progress>,
    /// When room on a full disk was last asked for, ms, and how many batches there had been.
    room_asked: (u64, u64),
    /// A backup is being made.
    backing_up: Arc<AtomicBool>,
}

/// How a stop was asked for.
#[derive(Clone, Copy, Debug)]
struct Stop {
    no_save: bool,
    asker: Option<(ShardId, ConnId)>,
}

impl Server {
    async fn serve(
        &mut self,
        listeners: Listeners,
        mut wishes: mpsc::UnboundedReceiver<Control>,
        mut told_to_stop: oneshot::Receiver<()>,
    ) -> Result<(), Fatal> {
        let mut sample = tokio::time::interval(Duration::from_millis(100));
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut stop = None;
            tokio::select! {
                accepted = listeners.accept() => {
                    self.deal_out(accepted).await;
                }
                Some(wish) = wishes.recv() => stop = self.grant(wish),
                // Polled never again: such a stop is the end.
                _ = &mut told_to_stop => stop = Some(Stop { no_save: false, asker: None }),
                _ = sample.tick() => self.look_after(),
            }
            let Some(stop) = stop else {
                continue;
            };
            match self.stop(stop) {
                Ok(()) => {
                    listeners.close();
                    return Ok(());
                }
                Err(text) => match stop.asker {
                    Some(asker) => {
                        tracing::warn!("the stop failed, the server goes on: {text}");
                        self.resume();
                        self.answer(asker, Err(format!("Errors trying to SHUTDOWN. {text}")));
                    }
                    // Who sent a signal wants the process to end, and the log has everything.
                    None => {
                        tracing::warn!("not a clean stop: {text}");
                        return self
                            .log
                            .wait_durable(self.log.last_lsn())
                            .map_err(Fatal::new);
                    }
                },
            }
        }
    }

    /// Ten times a second: rates, and the checkpoint when it is due.
    fn look_after(&mut self) {
        self.shared.metrics.sample(self.clock.now_ns());
        let settings = self.shared.settings.settings();
        self.watch_memory();
        let mut bytes_max = settings.checkpoint_bytes;
        if settings.maxmemory_bytes > 0 {
            // What is dirty cannot leave memory: it must not become most of it.
            bytes_max = bytes_max.min(settings.maxmemory_bytes / 4);
        }
        let short = self.shared.metrics.level(|shard| &shard.memory_short) > 0;
        let shut = self.reload.store_needs_reopen();
        let large = self.log.bytes_since_trim() > bytes_max as u64;
        // The one that runs may be all that is needed: what is dirty then is seen when it ended.
        let runs = self.progress.running.load(Ordering::Relaxed);
        if !runs && (short || shut || large) {
            self.checkpoints.ask(Request::Checkpoint(Vec::new()));
        }
        if self.log.is_full() {
            self.ask_for_room();
        }
        let mode = crate::worker::sync_mode(settings.appendfsync);
        if self.log.sync_mode() != mode {
            self.log.set_sync(mode);
            if mode == SyncMode::Always {
                self.log.request_sync();
            }
        }
    }

    /// The disk is full: what was written since may have freed something, which only a checkpoint
    /// gives back to the disk.
    fn ask_for_room(&mut self) {
        let (asked_ms, asked_batches) = self.room_asked;
        let now_ms = self.clock.now_ms();
        if now_ms < asked_ms + FULL_DISK_RETRY_MS {
            return;
        }
        let batches = self.log.stats().batches;
        self.room_asked = (now_ms, batches);
        if batches != asked_batches || self.progress.failed.load(Ordering::Relaxed) {
            self.checkpoints.ask(Request::Checkpoint(Vec::new()));
        } else if self.progress.ballast_missing.load(Ordering::Relaxed) {
            self.checkpoints.ask(Request::Room);
        }
    }

    /// Tells the shards how much of the memory bound is taken by other things than their keys.
    fn watch_memory(&self) {
        let metrics = &self.shared.metrics;
        let keys = metrics.level(|shard| &shard.resident_bytes);
        let besides = resident_bytes().saturating_sub(keys + MEMORY_BESIDES_BYTES);
        // By and by: memory that was freed is given back to the system a little later.
        let before = metrics.memory_besides_bytes.level();
        let step = before.abs_diff(besides).div_ceil(8);
        let after = if besides > before {
            before + step
        } else {
            before - step
        };
        metrics.memory_besides_bytes.set(after);
    }

    /// Carries out what a connection asked for.
    fn grant(&mut self, wish: Control) -> Option<Stop> {
        match wish {
            Control::Checkpoint(asker) => {
                self.checkpoints
                    .ask(Request::Checkpoint(asker.into_iter().collect()));
            }
            Control::Shutdown { no_save, asker } => {
                return Some(Stop {
                    no_save,
                    asker: Some(asker),
                });
            }
            Control::Backup { target, asker } => self.back_up(target, asker),
            Control::Reload(asker) => {
                let result = self.reload_in_place();
                self.resume();
                self.answer(asker, result);
            }
        }
        None
    }

    /// Copies the data folder on a thread of its own.
    fn back_up(&self, target: PathBuf, (shard, conn): (ShardId, ConnId)) {
        if self.backing_up.swap(true, Ordering::SeqCst) {
            let text = "Backup already in progress".to_owned();
            return self.answer((shard, conn), Err(text));
        }
        let (durable_lsn, now_ms) = (self.log.durable_lsn(), self.clock.now_ms());
        let (mailbox, running) = (self.mailboxes[shard].clone(), self.backing_up.clone());
        let (source, holder) = (PathBuf::from(&self.shared.dir), self.checkpoints.holder());
        let work = move || {
            // Tables and log stand still while they are copied.
            let mut hold = Some(holder.hold());
            let copied = |step, done| (step, done) == (Step::Copy, 1);
            let result = backup(
                &source,
                &target,
                now_ms,
                durable_lsn,
                &mut |step, done, _| {
                    if copied(step, done) {
                        hold = None;
                    }
                },
            );
            running.store(false, Ordering::SeqCst);
            if let Ok(counts) = &result {
                tracing::info!(
                    "backup {} is complete: {} keys",
                    target.display(),
                    counts.keys
                );
            }
            let result = result.map(|_| ()).map_err(|failure| failure.to_string());
            let _ = mailbox.send(Envelope::Message(Message::Done(conn, result)));
        };
        let thread = std::thread::Builder::new().name("backup".into());
        if let Err(error) = thread.spawn(work) {
            self.backing_up.store(false, Ordering::SeqCst);
            self.answer(
                (shard, conn),
                Err(format!("cannot start a thread: {error}")),
            );
        }
    }

    fn answer(&self, (shard, conn): (ShardId, ConnId), result: Result<(), String>) {
        // A thread that has ended needs no answer.
        let _ = self.mailboxes[shard].send(Envelope::Message(Message::Done(conn, result)));
    }

    /// Gives a new connection to the next shard thread.
    async fn deal_out(&mut self, accepted: std::io::Result<listen::NewConnection>) {
        let new = match accepted {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                // Out of file descriptors, most likely: do not spin.
                tokio::time::sleep(Duration::from_millis(10)).await;
                return;
            }
        };
        let clients = &self.shared.clients;
        let settings = self.shared.settings.settings();
        let clients_max = settings.maxclients.min(self.clients_max);
        let full = clients.count() >= clients_max;
        if let Some(refusal) = listen::refusal(&new, &settings, full) {
            clients.refused.fetch_add(1, Ordering::Relaxed);
            new.refuse(refusal);
            return;
        }
        clients.accepted.fetch_add(1, Ordering::Relaxed);
        let shard = self.next_shard % self.mailboxes.len();
        self.next_shard += 1;
        new.keep_alive(settings.tcp_keepalive_seconds);
        let (accepted, client) = new.into_parts(clients.next_id(), shard, self.clock.now_ms());
        let _ = self.mailboxes[shard].send(Envelope::Accept(accepted, client));
    }

    // ---- stopping ----------------------------------------------------------------------------

    /// No new commands; waits until nothing is under way and everything is durable.
    fn stand_still(&mut self, ending: bool) -> Result<(), String> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.rest(ending)?;
        self.log
            .wait_durable(self.log.last_lsn())
            .map_err(|fatal| fatal.to_string())
    }

    /// Waits until the threads have handled all that was sent to them; `ending`: but for what waits
    /// for keys, which has not begun.
    fn rest(&self, ending: bool) -> Result<(), String> {
        let (told, quiet) = std::sync::mpsc::channel();
        // Twice: what one thread sends while another is asked is done by the second time.
        for _ in 0..2 {
            for mailbox in &self.mailboxes {
                let _ = mailbox.send(Envelope::Quiet(told.clone(), ending));
            }
            for _ in &self.mailboxes {
                let waited = quiet.recv_timeout(Duration::from_secs(60));
                waited.map_err(|_| "a shard did not come to rest within 60 s".to_owned())?;
            }
        }
        Ok(())
    }

    /// Commands run again.
    fn resume(&self) {
        self.checkpoints.hurry(false);
        self.shared.stopping.store(false, Ordering::SeqCst);
        self.shared.clients.wake_all();
    }

    fn stop(&mut self, stop: Stop) -> Result<(), String> {
        tracing::info!("stopping");
        self.checkpoints.hurry(true);
        self.stand_still(true)?;
        // Replies that are released now still reach their clients.
        std::thread::yield_now();
        if !stop.no_save
            && let Err(text) = self.checkpoints.run_now()
        {
            // Who asks by command can ask otherwise. Who sent a signal wants the process to end,
            // and the log has everything.
            if stop.asker.is_some() {
                return Err(text);
            }
            tracing::warn!("no last checkpoint: {text}; the next start reads the log instead");
        }
        for mailbox in &self.mailboxes {
            let _ = mailbox.send(Envelope::Stop);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.checkpoints.end();
        self.due.end();
        self.readers.end();
        self.log.close().map_err(|fatal| fatal.to_string())?;
        tracing::info!("stopped; everything is on disk");
        Ok(())
    }

    /// DEBUG RELOAD: writes everything to the store, then reads it back.
    fn reload_in_place(&mut self) -> Result<(), String> {
        self.stand_still(false)?;
        self.checkpoints.run_now()?;
        let keyspaces = self.reload.keyspaces()?;
        // They hold fresh blocks of tokens, none of which is used before its ceiling is on disk.
        self.reload
            .log_ceiling(&self.log, &self.clock)
            .map_err(|fatal| fatal.text)?;
        for (shard, keyspace) in keyspaces.into_iter().enumerate() {
            let message = Message::Replace(keyspace);
            let _ = self.mailboxes[shard].send(Envelope::Message(message));
        }
        // No command may run on what is about to be replaced.
        self.rest(false)
    }
}

/// The path as people should read it.
pub(crate) fn absolute(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.display().to_string()
}
