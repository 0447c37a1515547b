//! From a data folder to a running server.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rand::RngExt;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::{Live, Settings};
use crate::keyspace::codec::BatchBuilder;
use crate::keyspace::tokens::TokenSource;
use crate::keyspace::{Databases, Keyspace};
use crate::limits::BALLAST_START_BYTES_MAX;
use crate::log::disk::{Disk, RealDisk};
use crate::log::{self, Batch, Log};
use crate::metrics::Metrics;
use crate::recovery::{Plan, Recovered, recover};
use crate::route::Routes;
use crate::server::checkpoints::{Checkpoints, Progress, Tools};
use crate::server::dead::Dead;
use crate::server::due::{self, Due};
use crate::server::engine::Room;
use crate::server::open_files::OpenFiles;
use crate::server::readers::Readers;
use crate::server::{Fatal, Server, absolute};
use crate::session::{Clients, KeyCounts, Shared};
use crate::store::folder::{Folder, Identity};
use crate::store::{Ballast, FjallStore, Meta, ROWS_FORMAT, Store, StoreOptions};
use crate::worker::runner::{Envelope, Mailbox, run};
use crate::worker::{Control, Parts, sync_mode};

/// What recovery in place needs.
pub(super) struct Reload {
    store: Arc<dyn Store>,
    plan: Plan,
    tokens: TokenSource,
    /// Held as long as the server runs.
    _folder: Folder,
}

impl Reload {
    /// The store is shut until a checkpoint opens it again.
    pub fn store_needs_reopen(&self) -> bool {
        self.store.needs_reopen()
    }

    /// The keyspaces as the store has them; the log must have nothing behind it.
    pub fn keyspaces(&self) -> Result<Vec<Box<Keyspace>>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let meta = self
            .store
            .meta()
            .map_err(|error| text(&error))?
            .unwrap_or_default();
        let loaded = crate::recovery::load(&self.store, &meta, self.plan, self.tokens.clone());
        loaded.map_err(|error| text(&error))
    }

    /// Logs the ceiling of all tokens drawn so far, and waits for the disk.
    pub fn log_ceiling(&self, log: &Log, clock: &Clock) -> Result<(), Fatal> {
        let meta = self.store.meta().map_err(Fatal::new)?.unwrap_or_default();
        let databases =
            Databases::restored(meta.databases, meta.next_database_id, self.plan.databases);
        log_ceiling(log, (&self.tokens, &databases), clock)
    }
}

/// Opens the data folder, recovers, and starts all threads.
pub(super) fn start(
    live: Live,
    files: OpenFiles,
    control: mpsc::UnboundedSender<Control>,
) -> Result<Server, Fatal> {
    let settings = live.settings();
    let routes = Routes::new(settings.shard_count());
    let random: u64 = rand::rng().random();
    let wall_ms = Clock::start(0).now_ms();
    let (mut folder, store) = open_folder(&settings, files, wall_ms)?;
    let identity = folder.identity();
    let meta = store.meta().map_err(Fatal::new)?.unwrap_or_default();
    let mut options = log_options(&settings, identity, routes.shards());
    options.on_fatal = Arc::new(|fatal| {
        tracing::error!("the commit log failed, nothing more can be acknowledged: {fatal}");
        std::process::exit(1);
    });
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(true));
    let known = meta.known(folder.log_has_head());
    let mut recovery = log::open(disk, &folder.log_path(), options, known).map_err(Fatal::new)?;
    let plan = Plan {
        routes,
        seed: identity.hash_seed,
        databases: settings.databases,
        random_seed: random,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut progress = Reporter::new();
    let store: Arc<dyn Store> = store;
    let recovered = recover(&store, &meta, &mut recovery, plan, &mut |text| {
        progress.report(&text)
    });
    let recovered = recovered.map_err(Fatal::new)?;
    let log = recovery.finish().map_err(Fatal::new)?;
    if log.has_head()
        && let Err(error) = folder.note_log_head()
    {
        tracing::warn!("nothing would tell if the whole log were lost: {error}");
    }
    let clock = Clock::start(recovered.time_ms);
    let map = recovered.keyspaces[0].databases();
    let needed_bytes = first_batch((&recovered.tokens, map), &clock).reserved_bytes;
    make_room(&log, needed_bytes, folder.path())?;
    log_ceiling(&log, (&recovered.tokens, map), &clock)?;
    // After the log, which needs some space at once.
    let least_bytes = BALLAST_START_BYTES_MAX.min(settings.checkpoint_bytes as u64);
    let ballast = Ballast::take(folder.path(), least_bytes, store.disk_bytes());
    let shared = share(live, &log, &store, &clock, &folder, routes.shards());
    let reload = Reload {
        store: store.clone(),
        plan,
        tokens: recovered.tokens.clone(),
        _folder: folder,
    };
    let mut server = run_threads(
        shared,
        (log, store, clock),
        (recovered, ballast),
        (plan, meta),
        reload,
        control,
    )?;
    server.clients_max = files.clients;
    Ok(server)
}

/// The options of the log.
fn log_options(settings: &Settings, identity: Identity, shards: usize) -> log::Options {
    let clock = std::sync::Mutex::new(Clock::start(0));
    let clock_us = Arc::new(move || {
        let clock = clock
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        clock.now_ns() / 1_000
    });
    let mut options = log::Options::new(identity.folder_id, clock_us);
    options.segment_bytes = settings.log_segment_bytes as u64;
    options.set_aside_bytes = options.segment_bytes / 4;
    options.sync = sync_mode(settings.appendfsync);
    options.writers = shards;
    options
}

fn open_folder(
    settings: &Settings,
    files: OpenFiles,
    now_ms: u64,
) -> Result<(Folder, Arc<FjallStore>), Fatal> {
    let fresh = Identity {
        folder_id: rand::rng().random(),
        hash_seed: rand::rng().random(),
    };
    let path = Path::new(&settings.dir);
    let first = Meta {
        format: ROWS_FORMAT,
        databases: (0..settings.databases as u32).collect(),
        next_database_id: settings.databases as u32,
        ..Meta::default()
    };
    let mut fill = |folder: &Path, identity: &Identity| {
        let store = FjallStore::create(&folder.join("store"), StoreOptions::default(), &first);
        drop(store.map_err(|error| error.to_string())?);
        let options = log_options(settings, *identity, 1);
        let disk = Arc::new(RealDisk::new(true));
        log::begin(disk, &folder.join("log"), &options).map_err(|error| error.to_string())
    };
    let folder = Folder::open(path, fresh, now_ms, &mut fill).map_err(Fatal::new)?;
    let options = StoreOptions {
        open_files_max: files.store,
        ..StoreOptions::default()
    };
    let store = FjallStore::open(&folder.store_path(), options);
    Ok((folder, Arc::new(store.map_err(Fatal::new)?)))
}

/// The ceiling of the tokens that the shards hold has to be on disk before one is used; so has the
/// map of databases, which the settings may have enlarged.
pub fn first_batch((tokens, databases): (&TokenSource, &Databases), clock: &Clock) -> Batch {
    let mut batch = BatchBuilder::default();
    batch.databases(databases.ids(), databases.next());
    batch.token_ceiling(tokens.ceiling());
    let parts = batch.finish();
    let reserved_bytes = 4096 + parts.iter().map(|part| part.len() as u64).sum::<u64>();
    Batch {
        parts,
        time_ms: clock.now_ms(),
        reserved_bytes,
    }
}

/// Where the disk has no room for the first batch, the space that was kept back for that is given
/// up.
fn make_room(log: &Log, bytes: u64, folder: &Path) -> Result<(), Fatal> {
    if log.reserve_urgent(bytes) {
        log.unreserve(bytes);
    } else if Ballast::release(folder) {
        log.prepare_space().map_err(Fatal::new)?;
    }
    Ok(())
}

fn log_ceiling(log: &Log, held: (&TokenSource, &Databases), clock: &Clock) -> Result<(), Fatal> {
    let batch = first_batch(held, clock);
    if !log.reserve_urgent(batch.reserved_bytes) {
        return Err(Fatal::new(
            "no space left for the commit log: free some and start again",
        ));
    }
    log.wait_durable(log.append(batch)).map_err(Fatal::new)
}

fn share(
    live: Live,
    log: &Log,
    store: &Arc<dyn Store>,
    clock: &Clock,
    folder: &Folder,
    shards: usize,
) -> (Arc<Shared>, Arc<Progress>) {
    let progress = Arc::new(Progress::default());
    let started_ms = clock.now_ms();
    let engine = Room {
        log: log.clone(),
        store: store.clone(),
        progress: progress.clone(),
        started_s: started_ms / 1_000,
    };
    let mut rng = rand::rng();
    let run_id = (0..40).map(|_| char::from(b"0123456789abcdef"[rng.random_range(0..16)]));
    let port = u32::from(live.settings().port);
    let databases = live.settings().databases;
    let shared = Shared {
        settings: live,
        clients: Clients::default(),
        metrics: Metrics::new(shards, crate::command::table().rows().len()),
        engine: Box::new(engine),
        started_ms,
        run_id: run_id.collect(),
        port: AtomicU32::new(port),
        dir: absolute(folder.path()),
        shards,
        keyspace: KeyCounts::new(shards, databases),
        monitors: AtomicUsize::new(0),
        stopping: AtomicBool::new(false),
    };
    (Arc::new(shared), progress)
}

fn run_threads(
    (shared, progress): (Arc<Shared>, Arc<Progress>),
    (log, store, clock): (Log, Arc<dyn Store>, Clock),
    (mut recovered, ballast): (Recovered, Ballast),
    (plan, meta): (Plan, Meta),
    reload: Reload,
    control: mpsc::UnboundedSender<Control>,
) -> Result<Server, Fatal> {
    let failed = |error: std::io::Error| Fatal::new(format!("cannot start a thread: {error}"));
    let (mailboxes, inboxes): (Vec<Mailbox>, Vec<_>) = (0..plan.routes.shards())
        .map(|_| mpsc::unbounded_channel())
        .unzip();
    let databases = recovered.keyspaces[0].databases().clone();
    let readers = Readers::start(store.clone(), plan.seed, &mailboxes).map_err(failed)?;
    let keyspaces = std::mem::take(&mut recovered.keyspaces).into_iter();
    let parts = keyspaces.enumerate().map(|(id, keyspace)| Parts {
        id,
        routes: plan.routes,
        shared: shared.clone(),
        log: log.clone(),
        clock: clock.clone(),
        keyspace,
        control: {
            let control = control.clone();
            // A server that has ended grants nothing any more.
            Arc::new(move |wish| drop(control.send(wish)))
        },
        reads: Some(readers.sink()),
        seed: plan.seed,
    });
    let threads = run_shards(parts.zip(inboxes), &mailboxes).map_err(failed)?;
    progress.lsn.store(meta.lsn, Ordering::Relaxed);
    let due = start_due(&store, &clock, plan, &mailboxes).map_err(failed)?;
    let checkpoints = Tools {
        store,
        log: log.clone(),
        clock: clock.clone(),
        shards: mailboxes.clone(),
        tokens: recovered.tokens,
        dead: Dead::new(databases, recovered.dead_databases),
        past_ms: 0..0,
        stuck: BTreeSet::new(),
        seed: plan.seed,
        progress: progress.clone(),
        ballast,
        may_shrink: true,
        ending: Arc::default(),
    };
    Ok(Server {
        shared,
        log,
        clock,
        mailboxes,
        threads,
        checkpoints: Checkpoints::start(checkpoints).map_err(failed)?,
        due,
        readers,
        recovered_keys: recovered.keys,
        reload,
        next_shard: 0,
        clients_max: usize::MAX,
        progress,
        room_asked: (0, 0),
        backing_up: Arc::default(),
    })
}

fn start_due(
    store: &Arc<dyn Store>,
    clock: &Clock,
    plan: Plan,
    mailboxes: &[Mailbox],
) -> std::io::Result<Due> {
    Due::start(due::Tools {
        store: store.clone(),
        clock: clock.clone(),
        routes: plan.routes,
        seed: plan.seed,
        mailboxes: mailboxes.to_vec(),
    })
}

/// Starts the shard threads. Their event loops are made here: without one a shard would serve
/// nobody.
fn run_shards(
    parts: impl Iterator<Item = (Parts, mpsc::UnboundedReceiver<Envelope>)>,
    mailboxes: &[Mailbox],
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let threads = parts.map(|(parts, inbox)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let peers = mailboxes.to_vec();
        let thread = std::thread::Builder::new().name(format!("shard-{}", parts.id));
        thread.spawn(move || run(&runtime, parts, inbox, peers))
    });
    threads.collect()
}

/// Says how far a start is, once a second.
struct Reporter {
    clock: Clock,
    last_ns: u64,
}

impl Reporter {
    fn new() -> Reporter {
        let clock = Clock::start(0);
        Reporter {
            last_ns: clock.now_ns(),
            clock,
        }
    }

    fn report(&mut self, text: &str) {
        let now_ns = self.clock.now_ns();
        if now_ns - self.last_ns >= 1_000_000_000 {
            self.last_ns = now_ns;
            tracing::info!("recovering: {text}");
        }
    }
}
