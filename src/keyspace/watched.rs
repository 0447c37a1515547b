//! The keys that transactions watch, and how often each was written since.
//!
//! Always true: a key is here while somebody watches it; every write of it, by whoever, by expiry
//! and by FLUSH, raises its version. A write that is taken back was none.

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
    /// What versions were before the running command's writes.
    before: Vec<(u32, Box<[u8]>, u64)>,
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
            self.before.push((database, key.into(), watch.version));
            watch.version = version;
        }
    }

    /// What was written of a key so far stays, whatever becomes of the running command.
    pub fn keep(&mut self, database: u32, key: &[u8]) {
        self.before
            .retain(|(of, written, _)| (*of, &**written) != (database, key));
    }

    /// A command begins.
    pub fn begin(&mut self) {
        self.before.clear();
    }

    /// The running command's writes were taken back.
    pub fn rolled_back(&mut self) {
        while let Some((database, key, version)) = self.before.pop() {
            if let Some(watch) = self.keys.get_mut(&(database, key)) {
                watch.version = version;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_taken_back_was_none_but_an_expiry_stays() {
        let mut watched = Watched::default();
        let versions = [b"a", b"b"].map(|key| watched.watch(0, key));
        watched.begin();
        watched.written(0, b"a");
        watched.written(0, b"b");
        watched.keep(0, b"b");
        watched.written(0, b"b");
        watched.rolled_back();
        assert!(watched.unchanged(0, b"a", versions[0]));
        assert!(!watched.unchanged(0, b"b", versions[1]));
        watched.begin();
        watched.written(0, b"a");
        watched.begin();
        watched.rolled_back();
        assert!(!watched.unchanged(0, b"a", versions[0]));
    }
}
