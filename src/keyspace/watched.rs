//! The keys that transactions watch, and how often each was written since.
//!
//! Always true: a key is here while somebody watches it; every write of it, by whoever, by expiry
//! and by FLUSH, raises its version.

use hashbrown::HashMap;

/// A watched key.
#[derive(Debug)]
struct Watch {
    watchers: u32,
    version: u64,
}

/// All watched keys of a shard.
#[derive(Debug, Default)]
pub struct Watched {
    keys: HashMap<(u32, Box<[u8]>), Watch>,
    /// Never falls, so that a key that is watched anew never gets an old version.
    version: u64,
}

impl Watched {
    /// Whether nobody watches anything here.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Watches a key once more; returns its version.
    pub fn watch(&mut self, database: u32, key: &[u8]) -> u64 {
        self.version += 1;
        let version = self.version;
        let watch = self.keys.entry((database, key.into()));
        let watch = watch.or_insert(Watch {
            watchers: 0,
            version,
        });
        watch.watchers += 1;
        watch.version
    }

    /// Ends one watch of a key.
    pub fn unwatch(&mut self, database: u32, key: &[u8]) {
        let name = (database, Box::from(key));
        if let Some(watch) = self.keys.get_mut(&name) {
            watch.watchers -= 1;
            if watch.watchers == 0 {
                self.keys.remove(&name);
            }
        }
    }

    /// A key was written.
    pub fn written(&mut self, database: u32, key: &[u8]) {
        self.version += 1;
        let version = self.version;
        if let Some(watch) = self.keys.get_mut(&(database, Box::from(key))) {
            watch.version = version;
        }
    }

    /// The keys of a database that are watched.
    pub fn of(&self, database: u32) -> Vec<Box<[u8]>> {
        let keys = self.keys.keys().filter(|(watched, _)| *watched == database);
        keys.map(|(_, key)| key.clone()).collect()
    }

    /// Whether a key still has the version that `watch` returned.
    pub fn unchanged(&self, database: u32, key: &[u8], version: u64) -> bool {
        self.keys
            .get(&(database, Box::from(key)))
            .is_some_and(|watch| watch.version == version)
    }
}
