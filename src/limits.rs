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
/// Bytes of batches that a start hands to the threads that apply them, at a time.
pub const REPLAY_PIECE_BYTES: usize = 8 * 1024 * 1024;
/// Pieces that wait for such a thread.
pub const REPLAY_PIECES_WAITING_MAX: usize = 2;
/// Distance in bytes of the marks from which "bytes since an lsn" is answered, and their number.
pub const LOG_MARK_BYTES: u64 = 1024 * 1024;
pub const LOG_MARKS_MAX: usize = 65_536;
/// A segment holds its header block and at least one record of more than a block.
const _: () = assert!(LOG_SEGMENT_BYTES_MIN >= 3 * LOG_BLOCK_BYTES);
/// A queue that is full still holds several groups, so the committer never starves.
const _: () = assert!(LOG_QUEUE_BYTES_MAX >= 2 * LOG_GROUP_BYTES_MAX);
const _: () = assert!((LOG_PIECE_BYTES as u64).is_multiple_of(LOG_BLOCK_BYTES));

// ---- store and checkpoint --------------------------------------------------------------------

/// Longest row key of the store, in bytes: fjall keeps a key's length in 16 bits.
pub const ROW_KEY_BYTES_MAX: usize = 65_535;
/// Target size of a data block, in bytes. Frozen in each store when it is created.
pub const STORE_BLOCK_BYTES: u32 = 4 * 1024;
/// Bits of bloom filter per row: about one missing key in a hundred costs a block read.
pub const STORE_FILTER_BITS_PER_ROW: f32 = 10.0;
/// Most table files that the store keeps open, and fewest where few files may be open.
pub const STORE_OPEN_FILES_MAX: usize = 256;
pub const STORE_OPEN_FILES_MIN: usize = 16;
/// Files that are open besides those of the store, of threads and of clients: standard ones, log,
/// lock, sockets that listen, and those of a compaction, a backup or a check.
pub const OTHER_OPEN_FILES: usize = 32;
/// Files that a thread with an event loop has open.
pub const THREAD_OPEN_FILES: usize = 4;
/// Memory for the store's blocks when the caller has no opinion, in bytes.
pub const STORE_CACHE_BYTES_DEFAULT: u64 = 32 * 1024 * 1024;
/// What the threads that write and compact the store add to their nice value: they give way to
/// those that serve clients (a fourth of a core is left to each where there are too few), and so
/// a checkpoint is hardly seen in the latencies. Writers that outrun them wait in the end: for
/// memory, or for the log's space.
pub const BACKGROUND_NICE: i32 = 5;
/// Sorted runs in the first level above which a checkpoint waits: every run costs each read a look.
pub const STORE_DEPTH_MAX: usize = 16;
/// Size of a table when the whole store is written anew, in bytes.
pub const STORE_TABLE_BYTES: u64 = 64 * 1024 * 1024;
/// Piece in which files of the store are read to be checked, in bytes.
pub const STORE_PIECE_BYTES: usize = 1024 * 1024;
/// Deadlines whose rows a check looks for at a time: a few ten megabytes.
pub const CHECK_DEADLINES_MAX: usize = 2 * 1024 * 1024;
/// How often a backup of a running server's folder begins again when it was overtaken.
pub const BACKUP_TRIES_MAX: usize = 20;
/// How long a reopening store waits for reads and scans that still use it, in milliseconds.
pub const STORE_REOPEN_WAIT_MS_MAX: u64 = 10_000;
/// Deadline rows a checkpoint gathers in memory before it ingests them by themselves, in bytes.
pub const CHECKPOINT_DEADLINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A deadline that is moved is still reminded of by a row of the store if it comes within this, in
/// milliseconds; the row goes when its time has come.
pub const DEADLINE_CLOSE_MS: u64 = 600_000;
/// Space that is kept back on the disk for when nothing else is left, in bytes: `checkpoint-size`,
/// but no more than this ...
pub const BALLAST_START_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// ... and as the store grows as much as that, but no more than this.
pub const BALLAST_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How often a disk that is full is looked at again, in milliseconds.
pub const FULL_DISK_RETRY_MS: u64 = 1_000;
/// Most numbered databases that a meta row lists.
pub const META_DATABASES_MAX: usize = 1024 * 1024;
/// Rows that nobody can reach any more, removed with one checkpoint ...
pub const DEAD_ROWS_MAX: usize = 200_000;
/// ... and rows of the store that are looked at for it.
pub const DEAD_ROWS_LOOKS_MAX: usize = 1_000_000;

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
/// So long after a signal a stop waits for the log alone, in milliseconds: those who send one often
/// wait for 30 seconds, and the log has everything.
pub const STOP_MS_MAX: u64 = 25_000;
/// Most clients that the settings can allow.
pub const CLIENTS_MAX: usize = 1_000_000;
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

/// Keys that one connection may watch.
pub const WATCHED_KEYS_MAX: usize = 10_000;
/// Requests of a pipeline that are read before the first of them runs: what memory fetches at once
/// without one waiting for the other.
pub const PIPELINED_MAX: usize = 16;
/// Arguments of a request that is read so; others are read alone.
pub const PIPELINED_ARGS_MAX: usize = 64;
/// Bytes of a key that is looked for ahead of its command.
pub const WARMED_KEY_BYTES_MAX: usize = 256;
/// Keys of one command that are looked for together.
pub const WARMED_KEYS_MAX: usize = 1_024;
/// Commands that one connection may run before others have their turn.
pub const TURN_COMMANDS_MAX: usize = 1_000;
/// Commands that run while shards are borrowed once; then the shards go home, where others wait.
pub const LENT_COMMANDS_MAX: usize = 256;
/// Sets of shards, the latest ones of a turn, among which a command looks for its own.
pub const GATHERED_SETS_MAX: usize = 16;
/// Bytes of requests that one connection may run before others have their turn.
pub const TURN_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of replies that wait for the disk or for other shards before a connection stops reading.
pub const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Replies on their way from other shards before a connection stops reading.
pub const PLACES_MAX: usize = 10_000;
/// Bytes that one read takes from a socket.
pub const READ_BYTES_MAX: usize = 64 * 1024;

// ---- keys ------------------------------------------------------------------------------------

/// Most bytes that the packed strings of one RESTORE payload may unpack to, together.
pub const RESTORE_UNPACKED_BYTES_MAX: usize = 1024 * 1024 * 1024;
const _: () = assert!(
    RESTORE_UNPACKED_BYTES_MAX >= STRING_BYTES_MAX,
    "any value that is kept can be restored"
);
const _: () = assert!(
    RESTORE_UNPACKED_BYTES_MAX <= i32::MAX as usize,
    "the unpacker counts in 32 bits"
);

// ---- credits ---------------------------------------------------------------------------------

/// Open holds of one account.
pub const HOLDS_MAX: usize = 1024;
/// How long the end of a hold is remembered unless RESERVE says otherwise, in milliseconds.
pub const SETTLED_KEEP_MS_DEFAULT: u64 = 24 * 60 * 60 * 1000;

// ---- at most once ----------------------------------------------------------------------------

/// Longest reply that ONCE keeps, in bytes as RESP3 has it.
pub const ONCE_REPLY_BYTES_MAX: usize = 64 * 1024;

// ---- hashes ----------------------------------------------------------------------------------

/// Latest deadline of a field, in milliseconds since the Unix epoch (Redis's
/// `HFE_MAX_ABS_TIME_MSEC`): the year 4199.
pub const FIELD_DEADLINE_MS_MAX: u64 = (1 << 46) - 1;
/// Fields of one hash that expire in one step of the owner's timer; more wait for the next step. A
/// command that looks at the hash waits for all of them.
pub const FIELDS_EXPIRED_AT_ONCE_MAX: usize = 1024;
/// A hash of fewer fields is read whole from the store; of a larger one, what is asked for. Tests
/// have few fields.
pub const ASLEEP_FIELDS_MIN: u64 = if cfg!(any(test, feature = "simulation")) {
    2
} else {
    128
};
/// Fields of one hash that are read one by one for a command; for one that wants more of them, the
/// hash is read whole.
pub const FIELDS_READ_SINGLY_MAX: usize = if cfg!(any(test, feature = "simulation")) {
    8
} else {
    1024
};
/// A hash of no more fields is given whole by one HSCAN.
pub const SCAN_WHOLE_FIELDS_MAX: usize = 128;
/// Longest reply of HRANDFIELD with a negative count, which no hash bounds, in bytes.
pub const RANDOM_REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
const _: () = assert!((RANDOM_REPLY_BYTES_MAX as u64) < OUTPUT_BYTES_MAX);

/// Keys that a walk over the keyspace reads at once, in memory or from the store.
pub const WALK_PAGE_KEYS_MAX: usize = 1024;
/// Entries that eviction passes after a turn.
pub const EVICT_ENTRIES_PER_TURN: usize = 2048;
/// The same while a shard is over its bound: a millisecond or two.
pub const EVICT_ENTRIES_PRESSED: usize = 16_384;
/// Eviction keeps one part in so many of a shard's memory free, for the next turn.
pub const MEMORY_SLACK_SHARE: usize = 16;
/// What the process may take besides its keys before the keys' share becomes smaller: code, stacks,
/// buffers, the store's cache, what the allocator holds back.
pub const MEMORY_BESIDES_BYTES: u64 = 80 * 1024 * 1024;
/// Threads that read hibernating keys. Mostly they wait for the disk, which serves many at once.
pub const STORE_READERS: usize = 8;
/// Requests of a pipeline whose keys are read while one before them waits for its own, and keys of
/// each.
pub const FETCHED_AHEAD_MAX: usize = 64;
/// Keys past their deadline that a shard has read from the store at a time, to delete them.
pub const DUE_READS_MAX: usize = 256;
/// Deadlines that are read from the store at once.
pub const DEADLINE_HINTS_PER_PAGE: usize = 4096;
/// Deadlines of hibernating keys that owners are told ahead of their time, about.
pub const DEADLINE_HINTS_AHEAD_MAX: usize = 512 * 1024;
/// A shard may always keep so many bytes of keys in memory, however small `maxmemory` is.
pub const RESIDENT_BYTES_MIN: usize = 4 * 1024;
