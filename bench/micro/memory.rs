//! The parts that do not touch the disk: requests, commands, replies.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tallyman::limits::REQUEST_BYTES_MAX;
use tallyman::reply::Reply;
use tallyman::resp::Protocol;
use tallyman::resp::decode::{DecodeLimits, Decoded, Decoder};
use tallyman::resp::encode::encode_command;

use crate::folder;
use crate::single::{CLIENTS, Single};

const REQUESTS: u64 = 16;
/// Commands that a connection sends at once.
const PIPELINE: usize = 16;
/// Different turns.
const TURNS: usize = 32;
/// The log's space is given back after so many turns.
const TRIM_TURNS: u64 = 64;

const COMMANDS: &[(&str, &str)] = &[
    ("ping", "PING"),
    ("get", "GET key:#"),
    ("set", "SET key:# xxx"),
    ("incr", "INCR counter:#"),
    ("hincrby", "HINCRBY hash:# field 1"),
    ("setifidle", "SETIFIDLE state:# busy PX 60000 OWNER me"),
    ("block", "MULTI | INCR counter:# | INCR counter:# | EXEC"),
];

/// From bytes to the ranges of arguments.
pub fn request_reading(criterion: &mut Criterion) {
    let limits = DecodeLimits {
        args_max: 1 << 20,
        bulk_bytes_max: 512 << 20,
        request_bytes_max: REQUEST_BYTES_MAX,
        authenticated: true,
    };
    let large = vec![b'x'; 1024];
    let pairs: Vec<&[u8]> = std::iter::once(&b"MSET"[..])
        .chain((0..10).flat_map(|_| [&b"key:000000000042"[..], b"xxx"]))
        .collect();
    let cases: [(&str, Vec<&[u8]>); 4] = [
        ("get", vec![b"GET", b"key:000000000042"]),
        ("set", vec![b"SET", b"key:000000000042", b"xxx"]),
        ("set-1kb", vec![b"SET", b"key:000000000042", &large]),
        ("mset-10", pairs),
    ];
    let mut group = criterion.benchmark_group("request reading");
    group.throughput(Throughput::Elements(REQUESTS));
    for (name, arguments) in cases {
        let mut bytes = Vec::new();
        for _ in 0..REQUESTS {
            encode_command(&arguments, &mut bytes);
        }
        group.bench_function(name, |bencher| {
            let mut decoder = Decoder::new();
            bencher.iter(|| {
                let mut at = 0;
                while at < bytes.len() {
                    match decoder.decode(&bytes[at..], &limits) {
                        Ok(Decoded::Request { consumed }) => {
                            black_box(decoder.args(&bytes[at..]));
                            at += consumed;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        });
    }
    group.finish();
}

/// Time that `part` takes of each of so many turns; the other parts are done untimed.
fn timed(single: &mut Single, turns: &[Vec<Vec<u8>>], iterations: u64, part: Part) -> Duration {
    let mut total = Duration::ZERO;
    let mut step = |wanted: Part, run: &mut dyn FnMut()| {
        let began = Instant::now();
        run();
        if wanted == part {
            total += began.elapsed();
        }
    };
    for number in 0..iterations {
        let requests = &turns[number as usize % turns.len()];
        step(Part::Receive, &mut || single.receive(requests));
        step(Part::Seal, &mut || single.seal());
        single.commit();
        step(Part::Release, &mut || single.release());
        if number % TRIM_TURNS == 0 {
            single.trim();
        }
    }
    total
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Receive,
    Seal,
    Release,
}

/// A server with the keys of the command, and turns of requests.
fn prepared(place: &tempfile::TempDir, template: &str) -> (Single, Vec<Vec<Vec<u8>>>) {
    let mut single = Single::start(&place.path().join("log"));
    let turns = single.turns(template, TURNS, PIPELINE);
    (single, turns)
}

/// From the bytes of requests to the bytes of replies, without the log.
pub fn execution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("execution");
    group.throughput(Throughput::Elements((CLIENTS * PIPELINE) as u64));
    for (name, template) in COMMANDS {
        let place = folder();
        let (mut single, turns) = prepared(&place, template);
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|iterations| timed(&mut single, &turns, iterations, Part::Receive));
        });
    }
    group.finish();
}

/// The end of a turn, per command: its batch, and replies that leave after the sync.
pub fn sealing_and_release(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements((CLIENTS * PIPELINE) as u64));
    for (name, part) in [("seal incr", Part::Seal), ("release incr", Part::Release)] {
        let place = folder();
        let (mut single, turns) = prepared(&place, "INCR counter:#");
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| timed(&mut single, &turns, iterations, part));
        });
    }
    group.finish();
}

/// From values to bytes.
pub fn reply_writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reply writing");
    group.throughput(Throughput::Elements(REQUESTS));
    let large = vec![b'x'; 1024];
    type Write<'a> = &'a dyn Fn(&mut Reply<'_>);
    let cases: [(&str, Write<'_>); 5] = [
        ("ok", &|reply| reply.ok()),
        ("integer", &|reply| reply.integer(black_box(1_234_567))),
        ("bulk of 3", &|reply| reply.bulk(black_box(b"xxx"))),
        ("bulk of 1 KiB", &|reply| reply.bulk(black_box(&large))),
        ("array of 10", &|reply| {
            reply.array(10);
            for _ in 0..10 {
                reply.bulk(black_box(b"xxx"));
            }
        }),
    ];
    for (name, write) in cases {
        group.bench_function(name, |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                out.clear();
                for _ in 0..REQUESTS {
                    write(&mut Reply::new(&mut out, Protocol::Resp2));
                }
                black_box(out.len())
            });
        });
    }
    group.finish();
}
