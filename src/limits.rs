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

// ---- settings, logging, metrics --------------------------------------------------------------

/// Most bytes that were released to one client and that it has not read, whatever the settings say.
pub const OUTPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const _: () = assert!(
    OUTPUT_BYTES_MAX > STRING_BYTES_MAX as u64,
    "one value must fit"
);
/// Largest settings file, in bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest password, in bytes, as in Redis.
pub const PASSWORD_BYTES_MAX: usize = 512;
/// Most numbered databases.
pub const DATABASES_MAX: usize = 65_536;
/// Arguments that a SLOWLOG entry keeps, the note on the missing ones included, as in Redis.
pub const SLOWLOG_ARGS_MAX: usize = 32;
/// Bytes of an argument that a SLOWLOG entry keeps, as in Redis.
pub const SLOWLOG_ARG_BYTES_MAX: usize = 128;
/// Most entries that SLOWLOG can be told to keep.
pub const SLOWLOG_ENTRIES_MAX: usize = 1024 * 1024;
/// Samples that LATENCY HISTORY keeps of an event, as in Redis.
pub const LATENCY_SAMPLES_MAX: usize = 160;
/// Kinds of events that the latency monitor keeps apart.
pub const LATENCY_EVENTS_MAX: usize = 64;
