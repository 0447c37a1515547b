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

impl Due {
    /// Starts the thread.
    pub fn start(tools: Tools) -> Due {
        let (end, ended) = channel();
        let reader = Reader {
            tools,
            ended,
            next_row: DEADLINES_BEGIN.to_vec(),
            ahead: VecDeque::new(),
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
            if ahead < DEADLINE_HINTS_AHEAD_MAX && self.tell(Vec::new(), 0)? == 0 {
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
