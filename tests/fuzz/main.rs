//! Fuzzing without special tools: bytes that somebody else made meet the code that reads them.
//!
//! Five targets: the request reader (with redis-protocol as oracle), a whole connection, the log
//! reader, the codecs of log and store, and RESTORE payloads. Each replays its corpus, the folder
//! `tests/fuzz/corpus/TARGET` and the seeds built in here, and then mutates it for a while; an
//! input whose outcome is of a new kind joins the corpus in memory. An input that fails is saved
//! in that folder, so that it is replayed for ever.
//!
//! `FUZZ_SECONDS=600 cargo test --profile quick --test fuzz` runs longer; `FUZZ_SEED` repeats.

mod codecs;
mod connection;
mod log;
mod mutator;
mod requests;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::mutator::mutate;

/// Most inputs that are kept in memory.
const CORPUS_MAX: usize = 4_000;
/// Longest input, in bytes.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// What an input led to, roughly: inputs with new outcomes are worth mutating further.
pub type Outcome = u64;

/// Replays the corpus of `target`, then mutates it. `act` panics on what must not be.
fn fuzz(target: &str, seeds: Vec<Vec<u8>>, act: fn(&[u8]) -> Outcome) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let folder = folder.join(target);
    let mut corpus = seeds;
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    for file in files {
        corpus.push(std::fs::read(&file).expect("a corpus file"));
    }
    let mut outcomes = HashSet::new();
    for input in &corpus {
        outcomes.insert(run(target, &folder, input, act));
    }
    let number = |name, other| {
        let text: Option<String> = std::env::var(name).ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(other)
    };
    let seed = number("FUZZ_SEED", u64::from(std::process::id()));
    let seconds = number("FUZZ_SECONDS", 3);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (began, replayed, mut runs) = (Instant::now(), corpus.len(), 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        let mut input = corpus[random.random_range(0..corpus.len())].clone();
        let other = &corpus[random.random_range(0..corpus.len())];
        mutate(&mut input, other, &mut random);
        input.truncate(INPUT_BYTES_MAX);
        runs += 1;
        if outcomes.insert(run(target, &folder, &input, act)) && corpus.len() < CORPUS_MAX {
            corpus.push(input);
        }
    }
    println!(
        "fuzz {target}: {replayed} inputs replayed, {runs} made, {} kinds of outcome, seed {seed}",
        outcomes.len()
    );
}

/// One input; a panic saves it and goes on.
fn run(target: &str, folder: &std::path::Path, input: &[u8], act: fn(&[u8]) -> Outcome) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| act(input)));
    result.unwrap_or_else(|panic| {
        let name = format!("failed-{:016x}", xxhash_rust::xxh3::xxh3_64(input));
        let path = folder.join(name);
        let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, input));
        eprintln!("{target}: the input is in {}", path.display());
        std::panic::resume_unwind(panic)
    })
}

/// The kind of a text: its letters, up to a length.
pub fn kind_of(text: &str) -> u64 {
    let letters: String = text
        .chars()
        .filter(char::is_ascii_alphabetic)
        .take(60)
        .collect();
    xxhash_rust::xxh3::xxh3_64(letters.as_bytes())
}

#[test]
fn requests() {
    fuzz("requests", requests::seeds(), requests::act);
}

#[test]
fn connection() {
    fuzz("connection", connection::seeds(), connection::act);
}

#[test]
fn log() {
    fuzz("log", log::seeds(), log::act);
}

#[test]
fn codecs() {
    fuzz("codecs", codecs::seeds(), codecs::act);
}

#[test]
fn restore() {
    fuzz("restore", connection::payloads(), connection::restore);
}
