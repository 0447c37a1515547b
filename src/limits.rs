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

/// Longest inline command, and longest line with a count or a length, in bytes (Redis's
/// `PROTO_INLINE_MAX_SIZE`).
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Most arguments of a request (Redis 6's limit; later versions allow 2^31).
pub const ARGS_MAX: usize = 1024 * 1024;
/// Most arguments of a request before the client has authenticated (as Redis).
pub const UNAUTHENTICATED_ARGS_MAX: usize = 10;
/// Longest argument before the client has authenticated, in bytes (as Redis).
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;
/// Longest request, in bytes, framing included (the default of Redis's
/// `client-query-buffer-limit`).
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Places for arguments that a connection keeps allocated between requests.
pub const ARGS_KEPT_MAX: usize = 1024;
/// Deepest nesting of a reply that is read back (tests and tools).
pub const REPLY_DEPTH_MAX: usize = 32;
/// Longest decimal number that is parsed, in bytes (Redis's `MAX_LONG_DOUBLE_CHARS`).
pub const NUMBER_BYTES_MAX: usize = 5 * 1024;
/// Most bytes of user input that an error text repeats (as Redis).
pub const ERROR_ECHO_BYTES_MAX: usize = 128;
const _: () = assert!(
    REQUEST_BYTES_MAX <= u32::MAX as usize,
    "argument ranges are 32-bit"
);
const _: () = assert!(
    STRING_BYTES_MAX <= REQUEST_BYTES_MAX,
    "a value must fit in a request"
);

// ---- commit log ------------------------------------------------------------------------------

// ---- store and checkpoint --------------------------------------------------------------------

// ---- shards, mailboxes, connections ----------------------------------------------------------

/// Hash slots, as in Redis Cluster.
pub const SLOTS: u16 = 16_384;
/// Most shard threads.
pub const SHARDS_MAX: usize = 256;

// ---- commands --------------------------------------------------------------------------------

/// Longest name of a command or `container|subcommand`, in bytes.
pub const COMMAND_NAME_BYTES_MAX: usize = 64;
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

// ---- connections -----------------------------------------------------------------------------

/// Commands that one connection may run before others have their turn.
pub const TURN_COMMANDS_MAX: usize = 1_000;
/// Bytes of requests that one connection may run before others have their turn.
pub const TURN_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of replies that wait for the disk or for other shards before a connection stops reading.
pub const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Replies on their way from other shards before a connection stops reading.
pub const PLACES_MAX: usize = 10_000;
/// Bytes that one read takes from a socket.
pub const READ_BYTES_MAX: usize = 64 * 1024;
