//! Micro-benches of the parts that a command passes: request reading, execution, sealing, reply
//! writing, log append, group commit, checkpoint, cold read.
//!
//! Run: `cargo bench --features criterion --bench micro`, `-- WORD` for some. Data lies in the build
//! folder, so the disk is the one that is built on. Counts of instructions (`bench/instructions`)
//! are steadier on a busy machine.

mod disk;
mod memory;
#[path = "../execute/single.rs"]
mod single;

use std::time::Duration;

use criterion::Criterion;
use tempfile::TempDir;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30)
        .configure_from_args();
    memory::request_reading(&mut criterion);
    memory::execution(&mut criterion);
    memory::sealing_and_release(&mut criterion);
    memory::reply_writing(&mut criterion);
    disk::log_append(&mut criterion);
    disk::group_commit(&mut criterion);
    disk::checkpoint_of_a_shard(&mut criterion);
    disk::checkpoint_into_the_store(&mut criterion);
    disk::cold_read(&mut criterion);
    criterion.final_summary();
}

/// A folder that goes with the value.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder")
}
