//! The shard's side of a checkpoint: hands over dirty entries as rows, slice by slice, between turns.
//!
//! Always true: rows come out in ascending order, each as of a sealed turn.

use std::sync::mpsc::Sender;

use crate::keyspace::slot::Tables;
use crate::keyspace::sweep::SweepCursor;
use crate::shard::mailbox::{SweepSlice, SweepStep};
use crate::worker::Worker;

/// A sweep under way.
pub(super) struct Sweeping {
    cursor: SweepCursor,
}

/// Entries per slice: a fraction of a millisecond.
const SWEEP_ENTRIES: usize = 512;

impl Worker {
    /// Takes one step of a checkpoint; the shard is at home.
    pub(super) fn sweep(&mut self, step: SweepStep, reply: &Sender<SweepSlice>) {
        self.seal();
        let Some(keyspace) = &mut self.keyspace else {
            return;
        };
        let mut slice = SweepSlice::default();
        match step {
            SweepStep::Begin => {
                let cursor = keyspace.tables_mut().sweep_begin();
                self.sweeping = Some(Sweeping { cursor });
            }
            SweepStep::Next => match &mut self.sweeping {
                Some(sweeping) => {
                    slice = next_slice(keyspace.tables_mut(), sweeping);
                }
                None => slice.complete = true,
            },
            SweepStep::Finished(stored) => {
                self.sweeping = None;
                keyspace.tables_mut().sweep_finished(stored);
                while !keyspace.tables_mut().reclaim(SWEEP_ENTRIES) {}
            }
        }
        // A checkpoint that was given up does not listen any more.
        let _ = reply.send(slice);
    }
}

fn next_slice(tables: &mut Tables, sweeping: &mut Sweeping) -> SweepSlice {
    let mut slice = SweepSlice::default();
    slice.complete = tables.sweep(&mut sweeping.cursor, SWEEP_ENTRIES, |_swept| {});
    slice
}
