//! Tokens: numbers below 2^53 that are handed out once, ever.
//!
//! One counter serves the whole server; shards draw blocks from it. A block's end, its *ceiling*,
//! is logged, and no token of the block is used before the ceiling is durable, in every sync mode.
//! A start begins above the highest ceiling. So a token is never used twice, and a key's tokens
//! grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::number::parse_i64;

/// First number that is no token: JavaScript reads every integer below it exactly.
pub const TOKEN_END: u64 = 1 << 53;
/// Tokens per block: enough that a shard never waits for a ceiling to become durable.
pub const TOKEN_BLOCK: u64 = 1 << 22;

/// A token that a client sends; 0 is that of what has none.
pub fn parse(text: &[u8]) -> Option<u64> {
    let token = u64::try_from(parse_i64(text)?).ok()?;
    (token < TOKEN_END).then_some(token)
}

/// The server's counter.
#[derive(Clone, Debug)]
pub struct TokenSource(Arc<AtomicU64>);

/// A range of tokens and the position of its ceiling in the log.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    next: u64,
    end: u64,
}

/// A shard's tokens.
#[derive(Debug)]
pub struct Tokens {
    source: TokenSource,
    current: Block,
    spare: Option<Block>,
    /// The spare block's ceiling waits to be logged.
    unlogged: bool,
    /// Position of the spare block's ceiling.
    spare_lsn: u64,
    durable_lsn: u64,
}

impl TokenSource {
    /// A counter that continues above `ceiling`.
    pub fn above(ceiling: u64) -> TokenSource {
        TokenSource(Arc::new(AtomicU64::new(ceiling.max(1))))
    }

    /// No token at or above it was ever handed out to a shard.
    pub fn ceiling(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn draw(&self) -> Option<Block> {
        let next = self.0.fetch_add(TOKEN_BLOCK, Ordering::SeqCst);
        let end = next + TOKEN_BLOCK;
        (end <= TOKEN_END).then_some(Block { next, end })
    }
}

impl Tokens {
    /// Draws a first block; its ceiling has to be logged and durable before the shard serves.
    pub fn new(source: TokenSource) -> Tokens {
        let current = source.draw().unwrap_or_default();
        Tokens {
            source,
            current,
            spare: None,
            unlogged: false,
            spare_lsn: 0,
            durable_lsn: 0,
        }
    }

    /// The next token, or nothing while the next block's ceiling is not durable.
    pub fn take(&mut self) -> Option<u64> {
        if self.current.next == self.current.end {
            if self.unlogged || self.spare_lsn > self.durable_lsn {
                return None;
            }
            self.current = self.spare.take()?;
        }
        let token = self.current.next;
        self.current.next += 1;
        let left = self.current.end - self.current.next;
        if left < TOKEN_BLOCK / 2 && self.spare.is_none() {
            self.spare = self.source.draw();
            self.unlogged = self.spare.is_some();
        }
        Some(token)
    }

    /// A ceiling that has to be logged with this turn.
    pub fn ceiling_to_log(&self) -> Option<u64> {
        self.spare.filter(|_| self.unlogged).map(|block| block.end)
    }

    /// The turn with the ceiling was queued at `lsn`.
    pub fn sealed(&mut self, lsn: u64) {
        if self.unlogged {
            self.unlogged = false;
            self.spare_lsn = lsn;
        }
    }

    /// Everything up to `lsn` is durable.
    pub fn durable(&mut self, lsn: u64) {
        self.durable_lsn = self.durable_lsn.max(lsn);
    }

    /// A position that has to be synced soon, in every mode.
    pub fn sync_wanted(&self) -> bool {
        self.spare.is_some() && !self.unlogged && self.spare_lsn > self.durable_lsn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_only_when_its_ceiling_is_durable() {
        let source = TokenSource::above(0);
        let mut tokens = Tokens::new(source.clone());
        let first = tokens.take().unwrap();
        for _ in 1..TOKEN_BLOCK {
            assert!(tokens.take().is_some());
        }
        assert_eq!(tokens.take(), None);
        assert_eq!(tokens.ceiling_to_log(), Some(source.ceiling()));
        tokens.sealed(9);
        assert_eq!(tokens.take(), None);
        tokens.durable(9);
        assert_eq!(tokens.take(), Some(first + TOKEN_BLOCK));
    }
}
