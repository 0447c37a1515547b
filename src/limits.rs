//! Every bound of the server in one place: unit and qualifier last, relations asserted beside them.

// ---- keys and values -------------------------------------------------------------------------

/// Longest key, in bytes: a row key of the store holds at most 65,535 bytes with its prefix.
pub const KEY_BYTES_MAX: usize = 32 * 1024;
/// Longest hash field, in bytes: key and field share one row key.
pub const FIELD_BYTES_MAX: usize = 32 * 1024 - 256;
/// Largest string value, in bytes (Redis's `proto-max-bulk-len` default).
pub const STRING_BYTES_MAX: usize = 512 * 1024 * 1024;
const _: () = assert!(KEY_BYTES_MAX + FIELD_BYTES_MAX + 64 <= 65_535);

// ---- protocol --------------------------------------------------------------------------------

// ---- commit log ------------------------------------------------------------------------------

/// Unit of the log: a record starts on such a boundary, so that no acknowledged block is rewritten.
pub const LOG_BLOCK_BYTES: u64 = 4096;
/// Size of a log segment: default and range of the option.
pub const LOG_SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
pub const LOG_SEGMENT_BYTES_MIN: u64 = 16 * 1024;
pub const LOG_SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Most bytes written as one group; a single batch above it is a group of its own, written in
/// pieces.
pub const LOG_GROUP_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most batches in one group: bounds what one wake-up has to release.
pub const LOG_GROUP_BATCHES_MAX: usize = 16_384;
/// What may wait for the committer before callers are told to stop.
pub const LOG_QUEUE_BYTES_MAX: u64 = 64 * 1024 * 1024;
pub const LOG_QUEUE_BATCHES_MAX: usize = 65_536;
/// Recycled segments kept for reuse; more are removed.
pub const LOG_SPARE_SEGMENTS_MAX: usize = 8;
/// Idle time after which an empty record is written as the witness of the last acknowledged one.
pub const LOG_WITNESS_AFTER_US: u64 = 200_000;
/// Time between syncs under `appendfsync everysec`.
pub const LOG_EVERYSEC_US: u64 = 1_000_000;
/// Where nobody waits for the sync, groups gather this long, or until this many bytes wait.
pub const LOG_GATHER_US: u64 = 1_000;
pub const LOG_GATHER_BYTES: u64 = 256 * 1024;
/// Time between attempts to allocate a segment while the disk is full.
pub const LOG_SPACE_RETRY_MS: u64 = 500;
/// Buffer for reading a log back, and piece in which zeros and large records are written.
pub const LOG_PIECE_BYTES: usize = 1024 * 1024;
/// Distance in bytes of the marks from which "bytes since an lsn" is answered, and their number.
pub const LOG_MARK_BYTES: u64 = 1024 * 1024;
pub const LOG_MARKS_MAX: usize = 65_536;
/// A segment holds its header block and at least one record of more than a block.
const _: () = assert!(LOG_SEGMENT_BYTES_MIN >= 3 * LOG_BLOCK_BYTES);
/// A queue that is full still holds several groups, so the committer never starves.
const _: () = assert!(LOG_QUEUE_BYTES_MAX >= 2 * LOG_GROUP_BYTES_MAX);
const _: () = assert!((LOG_PIECE_BYTES as u64).is_multiple_of(LOG_BLOCK_BYTES));

// ---- store and checkpoint --------------------------------------------------------------------

// ---- shards, mailboxes, connections ----------------------------------------------------------

/// Hash slots, as in Redis Cluster.
pub const SLOTS: u16 = 16_384;
/// Most shard threads.
pub const SHARDS_MAX: usize = 256;
