//! The reader threads: they read keys that hibernate for the shard threads, so that a slow disk
//! holds up nobody but those who want these keys.
//!
//! Always true: reads begin in the order in which they were asked for, at most one per thread at a
//! time; each is answered to the shard that asked.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

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
    sender: Sender<(ShardId, Read)>,
    ending: Arc<AtomicBool>,
}

impl Readers {
    /// Starts the threads; `seed` is the folder's.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(store: Arc<dyn Store>, seed: u64, mailboxes: &[Mailbox]) -> io::Result<Readers> {
        let (sender, reads) = channel();
        let reads = Arc::new(Mutex::new(reads));
        let cold: Arc<dyn Cold> = Arc::new(StoredKeys::new(store));
        let ending = Arc::new(AtomicBool::new(false));
        for number in 0..STORE_READERS {
            let (reads, cold, mailboxes) = (reads.clone(), cold.clone(), mailboxes.to_vec());
            let ending = ending.clone();
            let thread = std::thread::Builder::new().name(format!("reader-{number}"));
            thread.spawn(move || read((&reads, &ending), (&*cold, seed), &mailboxes))?;
        }
        Ok(Readers { sender, ending })
    }

    /// Where to ask.
    pub fn sink(&self) -> ReadSink {
        let sender = self.sender.clone();
        // Who asks while everything ends is not answered.
        Arc::new(move |shard, read| drop(sender.send((shard, read))))
    }

    /// Nobody waits for a read any more, and none begins. The process ends: nobody waits for the
    /// reads that have begun either.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

fn read(
    (reads, ending): (&Mutex<Receiver<(ShardId, Read)>>, &AtomicBool),
    (cold, seed): (&dyn Cold, u64),
    mailboxes: &[Mailbox],
) {
    loop {
        let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((shard, read)) = next else {
            return;
        };
        if ending.load(Ordering::Relaxed) {
            return;
        }
        let rows = read.perform(cold, seed);
        // A thread that has ended needs no answer.
        let _ = mailboxes[shard].send(Envelope::Message(Message::Rows(rows)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::keyspace::input_gate::{Name, Part};
    use crate::store::{Fill, Rows, StoreError};

    /// A store that answers a read when it is told to.
    struct Slow {
        begun: Mutex<Sender<()>>,
        go_on: Mutex<Receiver<()>>,
    }

    impl Store for Slow {
        fn get(&self, _: &[u8]) -> Result<Option<bytes::Bytes>, StoreError> {
            self.begun.lock().unwrap().send(()).unwrap();
            let _ = self.go_on.lock().unwrap().recv();
            Ok(None)
        }

        fn scan(&self, _: &[u8], _: &[u8]) -> Rows {
            Box::new(std::iter::empty())
        }

        fn ingest(&self, _: &mut Fill<'_>) -> Result<bool, StoreError> {
            Ok(false)
        }

        fn depth(&self) -> usize {
            0
        }

        fn disk_bytes(&self) -> u64 {
            0
        }

        fn relieve(&self) -> Result<bool, StoreError> {
            Ok(false)
        }

        fn needs_reopen(&self) -> bool {
            false
        }

        fn reopen(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn reads_that_have_not_begun_are_dropped_at_the_end() {
        let ((begun, begins), (release, go_on)) = (channel(), channel());
        let store = Arc::new(Slow {
            begun: Mutex::new(begun),
            go_on: Mutex::new(go_on),
        });
        let (mailbox, mut inbox) = unbounded_channel();
        let readers = Readers::start(store, 5, &[mailbox]).unwrap();
        let sink = readers.sink();
        for number in 0..100 * STORE_READERS as u64 {
            let key = number.to_string();
            let name = Name {
                database: 0,
                key: key.as_bytes().into(),
                part: Part::Key,
            };
            sink(0, Read::Key(number, name, 0));
        }
        for _ in 0..STORE_READERS {
            begins.recv().unwrap();
        }
        readers.end();
        drop(release);
        let mut answers = 0;
        // Ends when the last thread has.
        while inbox.blocking_recv().is_some() {
            answers += 1;
        }
        assert_eq!(answers, STORE_READERS);
        assert!(begins.recv_timeout(Duration::ZERO).is_err());
    }
}
