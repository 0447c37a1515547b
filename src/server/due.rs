//! The deadline thread: reads the deadlines of keys that hibernate, a little before they are due,
//! and tells their owners where to look.
//!
//! Always true: an owner knows how far is going to be read before it is read, and keeps its own
//! hints up to there; so a deadline is among the owner's hints or in a row that is still to be
//! read. Few hints are on their way at a time, however many keys expire at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::keyspace::deadlines::Hint;
use crate::limits::{DEADLINE_HINTS_AHEAD_MAX, DEADLINE_HINTS_PER_PAGE};
use crate::residency::due_rows;
use crate::route::Routes;
use crate::shard::mailbox::Message;
use crate::store::Store;
use crate::store::row::DEADLINES_BEGIN;
use crate::worker::runner::{Envelope, Mailbox};

/// What the thread works with.
pub struct Tools {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Clock,
    /// Division of slots.
    pub routes: Routes,
    /// Hash seed of the data folder.
    pub seed: u64,
    /// The shard threads.
    pub mailboxes: Vec<Mailbox>,
}

/// Handle of the deadline thread.
pub struct Due {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Rows are read so long before they are due.
const HORIZON_MS: u64 = 5_000;
/// And looked for so often.
const STEP: Duration = Duration::from_millis(500);
/// A pause while owners have enough to do.
const PAUSE: Duration = Duration::from_millis(5);
/// Owners that are behind by more have enough to do.
const LATE_MS_MAX: u64 = 100;

impl Due {
    /// Starts the thread.
    pub fn start(tools: Tools) -> Due {
        let (end, ended) = channel();
        let reader = Reader {
            tools,
            ended,
            next_row: DEADLINES_BEGIN.to_vec(),
            ahead: VecDeque::new(),
            ahead_max: DEADLINE_HINTS_AHEAD_MAX,
        };
        let thread = std::thread::Builder::new().name("deadlines".into());
        Due {
            end: Some(end),
            thread: thread.spawn(move || reader.run()).ok(),
        }
    }

    /// Ends the thread.
    pub fn end(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Reader {
    tools: Tools,
    ended: Receiver<()>,
    /// Rows before this were read.
    next_row: Vec<u8>,
    /// Pages whose last row is not due yet: its time, and how many rows.
    ahead: VecDeque<(u64, usize)>,
    /// Most rows that owners are told ahead, about.
    ahead_max: usize,
}

/// The server stops.
struct Ended;

impl Reader {
    fn run(mut self) {
        while let Ok(()) = self.read_ahead() {
            if self.pause(STEP).is_err() {
                return;
            }
        }
    }

    fn pause(&self, time: Duration) -> Result<(), Ended> {
        match self.ended.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Ended),
        }
    }

    /// Reads up to the horizon.
    fn read_ahead(&mut self) -> Result<(), Ended> {
        let horizon_ms = self.tools.clock.now_ms() + HORIZON_MS;
        for mailbox in &self.tools.mailboxes {
            let message = Message::Horizon(horizon_ms);
            mailbox
                .send(Envelope::Message(message))
                .map_err(|_| Ended)?;
        }
        // Answered behind the horizon: by now everybody knows it.
        self.tell(Vec::new(), 0)?;
        loop {
            let Tools { store, seed, .. } = &self.tools;
            let limit = DEADLINE_HINTS_PER_PAGE;
            let page = match due_rows(&**store, &self.next_row, horizon_ms, limit, *seed) {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!("deadlines cannot be read, keys expire late: {error}");
                    return Ok(());
                }
            };
            let last_ms = page.hints.last().map_or(0, |hint| hint.at_ms);
            let read_ms = match page.next {
                // Rows of that very time may follow.
                Some(_) => last_ms,
                None => horizon_ms,
            };
            self.ahead.push_back((last_ms, page.hints.len()));
            self.tell(page.hints, read_ms)?;
            match page.next {
                Some(next) => self.next_row = next,
                None => {
                    self.next_row = crate::store::row::deadlines(horizon_ms, horizon_ms).0;
                    return Ok(());
                }
            }
            self.wait_for_owners()?;
        }
    }

    /// Waits while much is on its way.
    fn wait_for_owners(&mut self) -> Result<(), Ended> {
        loop {
            let now_ms = self.tools.clock.now_ms();
            while self
                .ahead
                .front()
                .is_some_and(|(at_ms, _)| *at_ms <= now_ms)
            {
                self.ahead.pop_front();
            }
            let ahead: usize = self.ahead.iter().map(|(_, hints)| hints).sum();
            if ahead < self.ahead_max && self.tell(Vec::new(), 0)? <= LATE_MS_MAX {
                return Ok(());
            }
            self.pause(PAUSE)?;
        }
    }

    /// Gives each owner its hints. Returns by how many ms the latest of them is behind.
    fn tell(&self, hints: Vec<Hint>, read_ms: u64) -> Result<u64, Ended> {
        let routes = self.tools.routes;
        let mut own: Vec<Vec<Hint>> = vec![Vec::new(); routes.shards()];
        for hint in hints {
            own[routes.of_slot(hint.slot)].push(hint);
        }
        let mut late_ms = 0;
        for (mailbox, hints) in self.tools.mailboxes.iter().zip(own) {
            let (answer, answered) = channel();
            let message = Message::Hints(hints, read_ms, answer);
            mailbox
                .send(Envelope::Message(message))
                .map_err(|_| Ended)?;
            late_ms = late_ms.max(answered.recv().map_err(|_| Ended)?);
        }
        Ok(late_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::clock::ManualClock;
    use crate::keyspace::key::{key_hash32, key_slot};
    use crate::store::row::{DeadlineOf, RowKey};
    use crate::store::{Finish, MapStore};

    const START_MS: u64 = 1_800_000_000_000;
    const SEED: u64 = 5;

    /// What an owner was told.
    enum Told {
        Horizon(u64),
        Hints(Vec<Hint>, u64),
    }

    /// An owner that says so often that it is behind, once it has hints; and a little always.
    fn owner(mut late: usize) -> (Mailbox, JoinHandle<Vec<Told>>) {
        let (mailbox, mut inbox) = unbounded_channel();
        let thread = std::thread::spawn(move || {
            let mut told = Vec::new();
            let mut hinted = false;
            while let Some(Envelope::Message(message)) = inbox.blocking_recv() {
                match message {
                    Message::Horizon(horizon_ms) => told.push(Told::Horizon(horizon_ms)),
                    Message::Hints(hints, read_ms, answer) => {
                        assert!(hints.is_empty() || !hinted || late == 0, "it is behind");
                        hinted |= !hints.is_empty();
                        let is_late = hinted && late > 0;
                        late -= usize::from(is_late);
                        told.push(Told::Hints(hints, read_ms));
                        assert!(told.len() < 10_000, "asked for ever");
                        let _ = answer.send(LATE_MS_MAX + u64::from(is_late));
                    }
                    _ => panic!("an owner is told of deadlines alone"),
                }
            }
            told
        });
        (mailbox, thread)
    }

    fn store(deadlines: &[(u64, String)]) -> Arc<MapStore> {
        let store = MapStore::new();
        let rows: BTreeSet<Vec<u8>> = deadlines
            .iter()
            .map(|(at_ms, key)| {
                let (key, of) = (key.as_bytes(), DeadlineOf::Key);
                let (slot, database, at_ms) = (key_slot(key), 0, *at_ms);
                RowKey::Deadline {
                    at_ms,
                    slot,
                    database,
                    key,
                    of,
                }
                .encode()
            })
            .collect();
        let filled = store.ingest(&mut |ingestion| {
            for row in &rows {
                ingestion.put(row, &[])?;
            }
            Ok(Finish::Rows)
        });
        assert_eq!(filled, Ok(true));
        Arc::new(store)
    }

    /// Reads ahead so often, with time in between; returns what the owners were told.
    fn read(deadlines: &[(u64, String)], times: usize, late: usize) -> Vec<Vec<Told>> {
        let manual = ManualClock::new(START_MS);
        let (mailboxes, owners): (Vec<_>, Vec<_>) = [late, 0].map(owner).into_iter().unzip();
        let (_end, ended) = channel();
        let mut reader = Reader {
            tools: Tools {
                store: store(deadlines),
                clock: manual.clock(0),
                routes: Routes::new(2),
                seed: SEED,
                mailboxes,
            },
            ended,
            next_row: DEADLINES_BEGIN.to_vec(),
            ahead: VecDeque::new(),
            ahead_max: DEADLINE_HINTS_AHEAD_MAX,
        };
        for _ in 0..times {
            assert!(reader.read_ahead().is_ok());
            manual.advance_ms(1_000);
        }
        drop(reader);
        let owners = owners.into_iter();
        owners.map(|owner| owner.join().unwrap()).collect()
    }

    #[test]
    fn each_deadline_reaches_its_owner_once_and_in_time() {
        let deadline = |number: u64| (START_MS + number, format!("key{number}"));
        let deadlines: Vec<_> = (0..20_000).map(deadline).collect();
        let told = read(&deadlines, 5, 3);
        let mut hinted = 0;
        for (shard, told) in told.iter().enumerate() {
            let (mut horizon_ms, mut known) = (0, BTreeSet::new());
            for told in told {
                match told {
                    Told::Horizon(told_ms) => horizon_ms = *told_ms,
                    Told::Hints(hints, read_ms) => {
                        assert!(*read_ms <= horizon_ms, "the horizon is known before");
                        for hint in hints {
                            assert_eq!(Routes::new(2).of_slot(hint.slot), shard);
                            assert!(hint.at_ms < horizon_ms && known.insert(*hint));
                        }
                        let read = deadlines.iter().filter(|(at_ms, key)| {
                            let slot = key_slot(key.as_bytes());
                            Routes::new(2).of_slot(slot) == shard && at_ms < read_ms
                        });
                        let hint = |(at_ms, key): &(u64, String)| Hint {
                            at_ms: *at_ms,
                            database: 0,
                            hash32: key_hash32(key.as_bytes(), SEED),
                            slot: key_slot(key.as_bytes()),
                        };
                        assert!(read.map(hint).all(|hint| known.contains(&hint)));
                    }
                }
            }
            assert_eq!(horizon_ms, START_MS + 4_000 + HORIZON_MS);
            hinted += known.len() as u64;
        }
        assert_eq!(
            hinted,
            4_000 + HORIZON_MS,
            "what is due later is not read yet"
        );
    }

    #[test]
    fn nothing_more_is_read_than_owners_are_to_know_ahead() {
        let ahead_max = 2 * DEADLINE_HINTS_PER_PAGE;
        let at = |number: usize| START_MS + 1 + number as u64 % 4_000;
        let deadlines: Vec<_> = (0..10 * DEADLINE_HINTS_PER_PAGE)
            .map(|number| (at(number), number.to_string()))
            .collect();
        let manual = ManualClock::new(START_MS);
        let (mailbox, owner) = owner(0);
        let (end, ended) = channel::<()>();
        let reader = Reader {
            tools: Tools {
                store: store(&deadlines),
                clock: manual.clock(0),
                routes: Routes::new(1),
                seed: SEED,
                mailboxes: vec![mailbox],
            },
            ended,
            next_row: DEADLINES_BEGIN.to_vec(),
            ahead: VecDeque::new(),
            ahead_max,
        };
        let thread = std::thread::spawn(move || reader.run());
        // It waits for time to pass; the end is what it hears first.
        std::thread::sleep(PAUSE);
        drop(end);
        thread.join().unwrap();
        let told = owner.join().unwrap().into_iter();
        let hinted: usize = told
            .map(|told| match told {
                Told::Hints(hints, _) => hints.len(),
                Told::Horizon(_) => 0,
            })
            .sum();
        assert!(hinted < ahead_max + DEADLINE_HINTS_PER_PAGE, "{hinted}");
    }
}
