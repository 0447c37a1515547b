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

// ---- store and checkpoint --------------------------------------------------------------------

/// Longest row key of the store, in bytes: fjall keeps a key's length in 16 bits.
pub const ROW_KEY_BYTES_MAX: usize = 65_535;
/// Target size of a data block, in bytes. Frozen in each store when it is created.
pub const STORE_BLOCK_BYTES: u32 = 4 * 1024;
/// Bits of bloom filter per row: about one missing key in a hundred costs a block read.
pub const STORE_FILTER_BITS_PER_ROW: f32 = 10.0;
/// Most table files that the store keeps open.
pub const STORE_OPEN_FILES_MAX: usize = 256;
/// Memory for the store's blocks when the caller has no opinion, in bytes.
pub const STORE_CACHE_BYTES_DEFAULT: u64 = 32 * 1024 * 1024;
/// Sorted runs in the first level above which a checkpoint waits: every run costs each read a look.
pub const STORE_DEPTH_MAX: usize = 16;
/// How long a reopening store waits for reads and scans that still use it, in milliseconds.
pub const STORE_REOPEN_WAIT_MS_MAX: u64 = 10_000;
/// Deadline rows a checkpoint gathers in memory before it ingests them by themselves, in bytes.
pub const CHECKPOINT_DEADLINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most numbered databases, and most dead ones that still have rows, that a meta row lists.
pub const META_DATABASES_MAX: usize = 1024 * 1024;

// The longest row key: a field's row (slot, kind, database id, hash, length, generation, hash).
const _: () =
    assert!(2 + 1 + 4 + 4 + 2 + KEY_BYTES_MAX + 8 + 4 + FIELD_BYTES_MAX <= ROW_KEY_BYTES_MAX);
// The longest deadline row (0xFFFF, ms, slot, database id, target, length, generation).
const _: () =
    assert!(2 + 8 + 2 + 4 + 1 + 2 + KEY_BYTES_MAX + 8 + FIELD_BYTES_MAX <= ROW_KEY_BYTES_MAX);

// ---- shards, mailboxes, connections ----------------------------------------------------------

/// Hash slots, as in Redis Cluster.
pub const SLOTS: u16 = 16_384;
/// Most shard threads.
pub const SHARDS_MAX: usize = 256;
