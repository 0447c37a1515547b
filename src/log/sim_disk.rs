//! A disk double that fails like a disk, deterministic from a seed. Compiled always: tests of the
//! server and the simulator use it too.
//!
//! Faults it injects, and why:
//! - **A crash loses unsynced sectors**, any subset, in any order, each in any version written
//!   since the last sync: caches and controllers write back as they like. File length and directory
//!   entries likewise.
//! - **A crash tears sectors** (if asked): half new, half old.
//! - **A failed sync drops the dirty pages**: reads still show them, a later sync succeeds and does
//!   not write them (as Linux does), which is why a failed sync must be final.
//! - **A failed write** leaves a part written.
//! - **The n-th call of a kind fails**, with any error; **space runs out** at a number of bytes.
//! - **Syncs are held back**, so that a test can look at the time before one.
//! - **Bits flip and files are cut short**, at rest.
//! - **After a crash or kill the old handles are dead**: a process that is gone writes nothing.
//!
//! `kill` is `kill -9`: what was written stays readable (page cache), yet unsynced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};
use super::lock;

pub const SECTOR_BYTES: usize = 512;

/// The kinds of calls that can be counted and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Open,
    Create,
    Read,
    Write,
    /// `sync`, and `write_durable_at` (which counts as a write, too).
    Sync,
    Remove,
    SyncDir,
}

/// What of the unsynced state a crash keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    Everything,
    /// Each sector, length and directory entry by chance.
    Some,
    /// The same, and some sectors are torn.
    Torn,
}

/// How a call fails.
#[derive(Clone, Copy)]
enum Failure {
    Kind(io::ErrorKind),
    Number(i32),
}

pub struct SimDisk {
    state: Mutex<State>,
    syncs: Condvar,
}

#[derive(Clone)]
struct State {
    random: u64,
    /// Handles of an older epoch are dead.
    epoch: u64,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    calls: BTreeMap<Call, u64>,
    /// (kind, count at which it fails, error).
    failures: Vec<(Call, u64, Failure)>,
    space_bytes: Option<u64>,
    hold: bool,
    held: usize,
}

#[derive(Clone, Default)]
struct Node {
    /// What a read shows.
    bytes: Vec<u8>,
    /// What is on the medium.
    synced: Vec<u8>,
    /// Versions of each sector written since it was last synced, oldest first.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl SimDisk {
    pub fn new(seed: u64) -> Arc<SimDisk> {
        let state = State {
            random: seed,
            epoch: 0,
            nodes: BTreeMap::new(),
            next_node: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            calls: BTreeMap::new(),
            failures: Vec::new(),
            space_bytes: None,
            hold: false,
            held: 0,
        };
        Arc::new(SimDisk {
            state: Mutex::new(state),
            syncs: Condvar::new(),
        })
    }

    /// An independent copy of the disk as it is; handles of the original do not reach it.
    pub fn fork(&self, seed: u64) -> Arc<SimDisk> {
        let mut state = self.state().clone();
        state.random = seed;
        Arc::new(SimDisk {
            state: Mutex::new(state),
            syncs: Condvar::new(),
        })
    }

    /// As the log wants it.
    pub fn disk(self: &Arc<SimDisk>) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Power loss. Open handles are dead, injected failures and holds are gone.
    pub fn crash(&self, keep: Keep) {
        let mut state = self.state();
        state.crash(keep);
        state.new_epoch();
        drop(state);
        self.syncs.notify_all();
    }

    /// `kill -9`: only the handles are dead.
    pub fn kill(&self) {
        self.state().new_epoch();
        self.syncs.notify_all();
    }

    /// The `nth` call (1 is the next) of this kind fails, once.
    pub fn fail_nth(&self, call: Call, nth: u64, error: io::ErrorKind) {
        self.fail(call, nth, Failure::Kind(error));
    }

    /// The same, with an error number of the system.
    pub fn fail_nth_as(&self, call: Call, nth: u64, number: i32) {
        self.fail(call, nth, Failure::Number(number));
    }

    fn fail(&self, call: Call, nth: u64, error: Failure) {
        let mut state = self.state();
        let count = state.calls.get(&call).copied().unwrap_or(0) + nth;
        state.failures.push((call, count, error));
    }

    /// Calls that were to fail do not.
    pub fn spare(&self) {
        self.state().failures.clear();
    }

    /// How often this kind of call was made.
    pub fn calls(&self, call: Call) -> u64 {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    /// All files together hold at most this many bytes.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state().space_bytes = bytes;
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// While true, syncs and durable writes do not return (and make nothing durable).
    pub fn hold_syncs(&self, hold: bool) {
        self.state().hold = hold;
        self.syncs.notify_all();
    }

    /// Blocks until a call is being held.
    pub fn wait_until_held(&self) {
        let mut state = self.state();
        while state.held == 0 {
            state = self
                .syncs
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) {
        let mask = 1u8 << (bit % 8);
        self.state().damage(path, |bytes| {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= mask;
            }
        });
    }

    /// Writes at rest: readable and on the medium.
    pub fn overwrite(&self, path: &Path, offset: u64, new: &[u8]) {
        let start = offset as usize;
        self.state().damage(path, |bytes| {
            bytes[start..start + new.len()].copy_from_slice(new)
        });
    }

    /// Cuts the file short at rest.
    pub fn truncate(&self, path: &Path, bytes_left: u64) {
        self.state()
            .damage(path, |bytes| bytes.truncate(bytes_left as usize));
    }

    /// The file as a read shows it; empty if there is none.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        let node = state
            .names
            .get(path)
            .and_then(|number| state.nodes.get(number));
        node.map_or(Vec::new(), |node| node.bytes.clone())
    }
}

impl State {
    fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound.max(1) as u64) as usize
    }

    fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .filter_map(|number| self.nodes.get(number))
            .map(Node::len)
            .sum()
    }

    fn new_epoch(&mut self) {
        self.epoch += 1;
        self.failures.clear();
        self.hold = false;
    }

    /// Counts the call; an error if it is to fail.
    fn call(&mut self, call: Call) -> io::Result<()> {
        let count = self.calls.entry(call).or_insert(0);
        *count += 1;
        let count = *count;
        let failure = self
            .failures
            .iter()
            .position(|(kind, at, _)| *kind == call && *at == count);
        match failure {
            Some(index) => Err(match self.failures.swap_remove(index).2 {
                Failure::Kind(kind) => kind.into(),
                Failure::Number(number) => io::Error::from_raw_os_error(number),
            }),
            None => Ok(()),
        }
    }

    fn damage(&mut self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let number = self.names.get(path).copied();
        if let Some(node) = number.and_then(|number| self.nodes.get_mut(&number)) {
            change(&mut node.bytes);
            change(&mut node.synced);
        }
    }

    fn crash(&mut self, keep: Keep) {
        let all: BTreeSet<PathBuf> = self
            .names
            .keys()
            .chain(self.durable_names.keys())
            .cloned()
            .collect();
        for path in all {
            if self.keeps(keep) {
                match self.names.get(&path).copied() {
                    Some(number) => self.durable_names.insert(path, number),
                    None => self.durable_names.remove(&path),
                };
            }
        }
        self.names = self.durable_names.clone();
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes.retain(|number, _| self.names.values().any(|named| named == number));
        nodes
            .values_mut()
            .for_each(|node| self.crash_node(node, keep));
        self.nodes = nodes;
    }

    fn keeps(&mut self, keep: Keep) -> bool {
        match keep {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Some | Keep::Torn => self.random().is_multiple_of(2),
        }
    }

    fn crash_node(&mut self, node: &mut Node, keep: Keep) {
        if node.bytes.len() != node.synced.len() && self.keeps(keep) {
            node.synced.resize(node.bytes.len(), 0);
        }
        for (sector, versions) in std::mem::take(&mut node.unsynced) {
            if !self.keeps(keep) {
                continue;
            }
            let last = versions.len() - 1;
            let index = if keep == Keep::Everything {
                last
            } else {
                self.below(versions.len())
            };
            let mut version = versions[index].clone();
            if keep == Keep::Torn && self.random().is_multiple_of(4) {
                let torn = self.below(version.len() + 1);
                version.truncate(torn);
            }
            node.put_synced(sector, &version);
        }
        node.bytes = node.synced.clone();
    }
}

impl Node {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            let growth = vec![0; end - self.bytes.len()];
            self.bytes.extend_from_slice(&growth);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let start = sector * SECTOR_BYTES;
            let version = self.bytes[start..self.bytes.len().min(start + SECTOR_BYTES)].to_vec();
            self.unsynced.entry(sector).or_default().push(version);
        }
    }

    /// What reaches the medium beyond its length is lost with the length.
    fn put_synced(&mut self, sector: usize, version: &[u8]) {
        let start = sector * SECTOR_BYTES;
        let end = self.synced.len().min(start + version.len());
        if start < end {
            self.synced[start..end].copy_from_slice(&version[..end - start]);
        }
    }

    fn sync(&mut self, sectors: std::ops::Range<usize>) {
        if self.synced.len() != self.bytes.len() {
            self.synced.resize(self.bytes.len(), 0);
        }
        let mut later = self.unsynced.split_off(&sectors.start);
        let mut after = later.split_off(&sectors.end);
        self.unsynced.append(&mut after);
        for (sector, versions) in later {
            if let Some(last) = versions.last() {
                self.put_synced(sector, last);
            }
        }
    }
}

impl Disk for Arc<SimDisk> {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let here = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect())
    }

    fn open(&self, path: &Path, _writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.call(Call::Open)?;
        let number = state
            .names
            .get(path)
            .copied()
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            number,
            epoch: state.epoch,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.call(Call::Create)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next_node += 1;
        let number = state.next_node;
        state.nodes.insert(number, Node::default());
        state.names.insert(path.to_owned(), number);
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            number,
            epoch: state.epoch,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::Remove)?;
        state
            .names
            .remove(path)
            .map(drop)
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::SyncDir)?;
        let here = |path: &Path| path.parent() == Some(dir);
        state.durable_names.retain(|path, _| !here(path));
        let names = state.names.iter().filter(|(path, _)| here(path));
        let names: Vec<_> = names
            .map(|(path, number)| (path.clone(), *number))
            .collect();
        state.durable_names.extend(names);
        Ok(())
    }
}

struct SimFile {
    disk: Arc<SimDisk>,
    number: u64,
    epoch: u64,
}

impl SimFile {
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        self.check(&state)?;
        Ok(state)
    }

    fn check(&self, state: &State) -> io::Result<()> {
        if self.epoch == state.epoch && state.nodes.contains_key(&self.number) {
            return Ok(());
        }
        Err(io::Error::other(
            "the process that opened this file is gone",
        ))
    }

    /// Waits while syncs are held.
    fn hold<'a>(&self, mut state: MutexGuard<'a, State>) -> io::Result<MutexGuard<'a, State>> {
        while state.hold && self.epoch == state.epoch {
            state.held += 1;
            self.disk.syncs.notify_all();
            let wait = self.disk.syncs.wait(state);
            state = wait.unwrap_or_else(std::sync::PoisonError::into_inner);
            state.held -= 1;
        }
        self.check(&state)?;
        Ok(state)
    }

    fn write(&self, state: &mut State, buffer: &[u8], offset: u64) -> io::Result<()> {
        let mut result = state.call(Call::Write);
        let mut whole = buffer.len();
        let used = state.used_bytes();
        let part = state.below(buffer.len() / SECTOR_BYTES) * SECTOR_BYTES;
        let Some(node) = state.nodes.get_mut(&self.number) else {
            return Ok(());
        };
        let growth = (offset + buffer.len() as u64).saturating_sub(node.len());
        if state.space_bytes.is_some_and(|space| used + growth > space) && growth > 0 {
            result = Err(io::ErrorKind::StorageFull.into());
            whole = 0;
        } else if result.is_err() {
            whole = part;
        }
        if whole > 0 {
            node.write(&buffer[..whole], offset as usize);
        }
        result
    }

    fn sync_sectors(&self, state: &mut State, sectors: std::ops::Range<usize>) -> io::Result<()> {
        let result = state.call(Call::Sync);
        let Some(node) = state.nodes.get_mut(&self.number) else {
            return Ok(());
        };
        match result {
            Ok(()) => node.sync(sectors),
            Err(_) => node.unsynced.clear(),
        }
        result
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.alive()?.nodes.get(&self.number).map_or(0, Node::len))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.alive()?;
        state.call(Call::Read)?;
        let Some(node) = state.nodes.get(&self.number) else {
            return Ok(0);
        };
        let start = node.bytes.len().min(offset as usize);
        let bytes = buffer.len().min(node.bytes.len() - start);
        buffer[..bytes].copy_from_slice(&node.bytes[start..start + bytes]);
        Ok(bytes)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.alive()?;
        self.write(&mut state, buffer, offset)
    }

    fn write_durable_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.alive()?;
        self.write(&mut state, buffer, offset)?;
        let mut state = self.hold(state)?;
        let start = offset as usize / SECTOR_BYTES;
        let end = (offset as usize + buffer.len()).div_ceil(SECTOR_BYTES);
        self.sync_sectors(&mut state, start..end)
    }

    fn sync(&self) -> io::Result<()> {
        let state = self.alive()?;
        let mut state = self.hold(state)?;
        self.sync_sectors(&mut state, 0..usize::MAX)
    }
}
