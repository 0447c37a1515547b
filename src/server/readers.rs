//! The reader threads: they read keys that hibernate for the shard threads, so that a slow disk
//! holds up nobody but those who want these keys.
//!
//! Always true: reads begin in the order in which they were asked for, at most one per thread at a
//! time; each is answered to the shard that asked.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::keyspace::Cold;
use crate::keyspace::input_gate::Read;
use crate::limits::STORE_READERS;
use crate::residency::StoredKeys;
use crate::shard::mailbox::{Message, ShardId};
use crate::store::Store;
use crate::worker::input_gate::ReadSink;
use crate::worker::runner::{Envelope, Mailbox};

/// Handle of the reader threads.
pub struct Readers {
    sender: Option<Sender<(ShardId, Read)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts the threads; `seed` is the folder's.
    pub fn start(store: Arc<dyn Store>, seed: u64, mailboxes: &[Mailbox]) -> Readers {
        let (sender, reads) = channel();
        let reads = Arc::new(Mutex::new(reads));
        let cold: Arc<dyn Cold> = Arc::new(StoredKeys::new(store));
        let threads = (0..STORE_READERS).filter_map(|number| {
            let (reads, cold, mailboxes) = (reads.clone(), cold.clone(), mailboxes.to_vec());
            let thread = std::thread::Builder::new().name(format!("reader-{number}"));
            thread
                .spawn(move || read(&reads, (&*cold, seed), &mailboxes))
                .ok()
        });
        let threads: Vec<JoinHandle<()>> = threads.collect();
        // Without threads the shards read for themselves.
        let sender = (!threads.is_empty()).then_some(sender);
        Readers { sender, threads }
    }

    /// Where to ask.
    pub fn sink(&self) -> Option<ReadSink> {
        let sender = self.sender.clone()?;
        // Who asks while everything ends is not answered.
        Some(Arc::new(move |shard, read| {
            drop(sender.send((shard, read)));
        }))
    }

    /// Ends the threads; the shard threads have ended.
    pub fn end(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn read(
    reads: &Mutex<Receiver<(ShardId, Read)>>,
    (cold, seed): (&dyn Cold, u64),
    mailboxes: &[Mailbox],
) {
    loop {
        let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((shard, read)) = next else {
            return;
        };
        let rows = read.perform(cold, seed);
        // A thread that has ended needs no answer.
        let _ = mailboxes[shard].send(Envelope::Message(Message::Rows(rows)));
    }
}
