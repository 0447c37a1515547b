//! A [`Shared`] without a server around it: for tests, the simulator, fuzzing and benches, which
//! drive workers by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};

use crate::config::{Live, Settings};
use crate::metrics::Metrics;
use crate::session::{Clients, Engine, KeyCounts, Shared};

/// There is no engine room, and it has nothing to tell.
struct NoEngine;

impl Engine for NoEngine {
    fn info(&self, _metrics: &Metrics) -> Vec<(String, String)> {
        Vec::new()
    }

    fn last_checkpoint_s(&self) -> u64 {
        0
    }

    fn checkpoint_runs(&self) -> bool {
        false
    }

    fn last_checkpoint_ok(&self) -> bool {
        true
    }

    fn changes_since_checkpoint(&self) -> u64 {
        0
    }

    fn log_bytes(&self) -> u64 {
        0
    }
}

impl Shared {
    /// What the connections of so many shards share when there is no server.
    pub fn alone(settings: Settings, shards: usize) -> Arc<Shared> {
        let databases = settings.databases;
        Arc::new(Shared {
            settings: Live::new(settings, None),
            clients: Clients::default(),
            metrics: Metrics::new(shards, crate::command::table().rows().len()),
            engine: Box::new(NoEngine),
            started_ms: 0,
            run_id: String::new(),
            port: AtomicU32::new(0),
            dir: String::new(),
            shards,
            keyspace: KeyCounts::new(shards, databases),
            monitors: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        })
    }
}
