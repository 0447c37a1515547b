//! Measures the two ways to make a write durable: `O_DIRECT | O_DSYNC` in one call, and `pwrite`
//! with `fdatasync`. Run: `cargo run --example log_sync -- FOLDER`. Rounds are interleaved; medians
//! count.

use std::path::PathBuf;
use std::time::Instant;

use tallyman::log::disk::{Disk, RealDisk};

const FILE_BYTES: usize = 64 * 1024 * 1024;
const WRITES: usize = 500;
const ROUNDS: usize = 5;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    println!(
        "{:>10} {:>8} {:>9} {:>9} {:>9}",
        "way", "bytes", "p50 us", "p99 us", "max us"
    );
    for bytes in [4096, 16 * 1024, 64 * 1024, 256 * 1024] {
        let mut latencies = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (way, latencies) in latencies.iter_mut().enumerate() {
                measure(
                    &RealDisk::new(way == 0),
                    &folder.join("log_sync.tmp"),
                    bytes,
                    latencies,
                )?;
            }
        }
        for (name, us) in ["direct", "fdatasync"].iter().zip(&mut latencies) {
            us.sort_unstable();
            let at = |part: usize| us[(us.len() - 1) * part / 100];
            println!(
                "{name:>10} {bytes:>8} {:>9} {:>9} {:>9}",
                at(50),
                at(99),
                at(100)
            );
        }
    }
    Ok(())
}

fn measure(
    disk: &RealDisk,
    path: &std::path::Path,
    bytes: usize,
    latencies: &mut Vec<u64>,
) -> std::io::Result<()> {
    let file = disk.create(path)?;
    file.write_at(&vec![0; FILE_BYTES], 0)?;
    file.sync()?;
    let memory = vec![1; bytes + 4096];
    let start = memory.as_ptr().align_offset(4096);
    for number in 0..WRITES {
        let offset = (number * bytes % FILE_BYTES) as u64;
        let began = Instant::now();
        file.write_durable_at(&memory[start..start + bytes], offset)?;
        latencies.push(began.elapsed().as_micros() as u64);
    }
    disk.remove(path)
}
