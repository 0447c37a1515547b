//! What may stay in memory: eviction after each turn, and writers that wait while nothing can be
//! evicted.
//!
//! Always true: nothing is refused and nothing is lost for want of memory; a write waits until a
//! checkpoint has stored what is dirty. What frees memory never waits.

use crate::command::spec::flag;
use crate::command::{Row, table};
use crate::limits::{
    EVICT_ENTRIES_PER_TURN, EVICT_ENTRIES_PRESSED, MEMORY_SLACK_SHARE, RESIDENT_BYTES_MIN,
};
use crate::shard::mailbox::ShardId;
use crate::worker::conn::Conn;
use crate::worker::{Control, Worker};

impl Worker {
    /// Most bytes that this shard's keys may take; `None`: no bound.
    fn memory_max(&mut self) -> Option<usize> {
        let all = self.settings.current().maxmemory_bytes;
        if all == 0 {
            return None;
        }
        // What the process takes besides its keys, more than it is given, is taken from them.
        let besides = self.shared.metrics.memory_besides_bytes.level() as usize;
        let keys = all.saturating_sub(besides).max(all / 4);
        Some((keys / self.routes.shards()).max(1))
    }

    /// Evicts a piece if memory is short; the turn was sealed.
    pub(super) fn make_room(&mut self) {
        let Some(bytes_max) = self.memory_max() else {
            return self.set_short(false);
        };
        let Some(keyspace) = &mut self.keyspace else {
            return;
        };
        let besides = keyspace.bytes_besides_tables();
        // Below what is always needed nothing would ever run.
        let least = keyspace.tables().skeleton_bytes() + RESIDENT_BYTES_MIN;
        let tables_max = bytes_max.saturating_sub(besides).max(least);
        // The slack is what a turn may fill.
        let goal = (tables_max - tables_max / MEMORY_SLACK_SHARE).max(least);
        let bytes = keyspace.tables().bytes();
        if bytes <= goal {
            return self.set_short(false);
        }
        let pressed = bytes > tables_max;
        let budget = if pressed {
            EVICT_ENTRIES_PRESSED
        } else {
            EVICT_ENTRIES_PER_TURN
        };
        let evicted = keyspace.evict(goal, budget, false);
        let in_vain = self.evicted_in_vain.saturating_add(budget);
        self.evicted_in_vain = if evicted.any() { 0 } else { in_vain };
        let bytes = keyspace.tables().bytes();
        // Once short, writers wait until there is slack again.
        let short = bytes > tables_max || (self.short_of_memory && bytes > goal);
        self.set_short(short);
    }

    /// Whether writers wait for memory, and going over the entries once more may find some: the
    /// first time round only takes marks of use away.
    pub(super) fn more_room_at_hand(&self) -> bool {
        let live = self.keyspace.as_ref().map_or(0, |it| it.tables().live());
        self.short_of_memory && (self.evicted_in_vain as u64) < 2 * live
    }

    fn set_short(&mut self, short: bool) {
        if short && !self.short_of_memory {
            (self.control)(Control::Checkpoint(None));
        }
        self.short_of_memory = short;
        self.metrics.memory_short.set(u64::from(short));
    }

    /// Whether a queued block has to wait until all shards have memory again.
    pub(super) fn block_waits_for_memory(&self, conn: &Conn) -> bool {
        let shards = 0..self.routes.shards();
        conn.session.block.as_ref().is_some_and(|block| {
            let mut calls = block.calls.iter();
            calls.any(|(id, _)| {
                let row = table().row(*id);
                shards
                    .clone()
                    .any(|shard| self.waits_for_memory(row, shard))
            })
        })
    }

    /// Whether a command has to wait until a shard has memory again.
    pub(super) fn waits_for_memory(&self, row: &Row, shard: ShardId) -> bool {
        row.has(flag::WRITE)
            && !row.has(flag::FREES)
            && self.shared.metrics.shards()[shard].memory_short.level() > 0
    }
}
