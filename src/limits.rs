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

// ---- shards, mailboxes, connections ----------------------------------------------------------

/// Hash slots, as in Redis Cluster.
pub const SLOTS: u16 = 16_384;
/// Most shard threads.
pub const SHARDS_MAX: usize = 256;
