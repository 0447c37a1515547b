//! A whole connection: any bytes, in any pieces, get well-formed replies, and what they wrote can
//! be recovered. And RESTORE: a payload is refused, or makes a value that DUMP and RESTORE keep.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tallyman::clock::ManualClock;
use tallyman::config::Settings;
use tallyman::log::sim_disk::SimDisk;
use tallyman::log::{self, Manual, Options, Position};
use tallyman::recovery::{Plan, recover};
use tallyman::resp::{encode::encode_command, value::Value};
use tallyman::route::Routes;
use tallyman::session::{Address, Client, Shared};
use tallyman::shard::mailbox::ConnId;
use tallyman::store::{MapStore, Meta, Store};
use tallyman::worker::{Parts, Worker};

use crate::{Outcome, kind_of};

const SEED: u64 = 5;
/// The disk's size: what a command may write is bounded by it.
const DISK_BYTES: u64 = 8 * 1024 * 1024;

fn shared() -> Arc<Shared> {
    let settings = Settings {
        databases: 2,
        proto_max_bulk_bytes: 1 << 20,
        slowlog_slower_than_us: 0,
        ..Settings::default()
    };
    Shared::alone(settings, 1)
}

/// A server of one thread with one connection.
struct Server {
    manual: Manual,
    worker: Worker,
    id: ConnId,
}

impl Server {
    fn start(disk: &Arc<SimDisk>) -> Server {
        let time_us = Arc::new(AtomicU64::new(0));
        let clock = Arc::new(move || time_us.fetch_add(10, Ordering::Relaxed));
        let mut options = Options::new(SEED, clock);
        options.segment_bytes = 64 * 1024;
        options.set_aside_bytes = 16 * 1024;
        let opened = log::open(disk.disk(), Path::new("log"), options, Position::default());
        let mut recovery = opened.expect("what was written can be opened");
        let plan = Plan {
            routes: Routes::new(1),
            seed: SEED,
            databases: 2,
            random_seed: 5,
            threads: 0,
        };
        let meta = Meta {
            databases: vec![0, 1],
            next_database_id: 2,
            ..Meta::default()
        };
        let store: Arc<dyn Store> = Arc::new(MapStore::new());
        let recovered = recover(&store, &meta, &mut recovery, plan, &mut |_| {});
        let mut recovered = recovered.expect("what was written can be recovered");
        let (log, mut manual) = recovery.finish_manual().expect("the log starts");
        manual.run().expect("the disk works");
        let shared = shared();
        let clock = ManualClock::new(1_700_000_000_000).clock(recovered.time_ms);
        let mut worker = Worker::new(Parts {
            id: 0,
            routes: plan.routes,
            shared,
            log,
            clock,
            keyspace: recovered.keyspaces.remove(0),
            control: Arc::new(|_| {}),
            reads: None,
            seed: SEED,
        });
        let addresses = (Address::loopback(1), Address::loopback(2));
        let id = worker.connect(Arc::new(Client::new(1, 0, addresses, 0, 0)));
        Server { manual, worker, id }
    }

    /// Gives bytes to the connection and lets everything settle; returns what it replies.
    fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.worker.begin_turn();
        self.worker.receive(self.id, bytes);
        let mut replies = Vec::new();
        for _ in 0..8 {
            self.deliver();
            if self.worker.wants_seal() {
                self.worker.seal();
            }
            self.deliver();
            self.manual.run().expect("the log goes on");
            self.worker.begin_turn();
            self.worker.durable();
            if self.worker.wants_space() {
                self.worker.space_changed();
            }
            self.worker.tick(100);
            if let Some(released) = self.worker.output(self.id) {
                let bytes = released.bytes().to_vec();
                self.worker.sent(self.id, bytes.len());
                replies.extend(bytes);
            }
        }
        replies
    }

    fn deliver(&mut self) {
        for _ in 0..1_000 {
            let mut any = false;
            for (_, message) in self.worker.take_outbox() {
                any = true;
                self.worker.message(message);
            }
            for id in self.worker.take_attention() {
                if self.worker.conn(id).is_some_and(|conn| conn.has_input()) {
                    any = true;
                    self.worker.resume(id);
                }
            }
            if !any {
                return;
            }
        }
        panic!("messages without end");
    }
}

fn disk() -> Arc<SimDisk> {
    let disk = SimDisk::new(SEED);
    disk.set_space(Some(DISK_BYTES));
    disk
}

/// Every command of the table, with a few arguments, and some conversations.
pub fn seeds() -> Vec<Vec<u8>> {
    let conversations = [
        "SET a 1 PX 100\r\nINCR a\r\nAPPEND a x\r\nGETRANGE a 0 -1\r\nDEL a\r\n",
        "MULTI\r\nINCR a\r\nHSET h f v\r\nEXEC IFEQ a 1\r\n",
        "WATCH a\r\nSET a 2\r\nMULTI\r\nGET a\r\nEXEC\r\n",
        "HELLO 3\r\nHSET h a 1 b 2\r\nHGETALL h\r\nHRANDFIELD h -3 WITHVALUES\r\nHSCAN h 0\r\n",
        "SETIFIDLE k s OWNER o PX 5\r\nSETIDLE k 1 RESULT r\r\nGETSTATE k\r\nRENEW k 1 EX 5\r\n",
        "SETSTATE k a\r\nSETSTATE k b FROM 2 a idle IFTOKEN 1\r\nSETIFIDLE k c FP x\r\n",
        "BITFIELD b SET u8 0 255 INCRBY i5 #1 3 OVERFLOW SAT GET u4 2\r\nBITCOUNT b 0 -1 BIT\r\n",
        "INCREX n BYINT 3 UBOUND 5 EX 10 ENX SATURATE\r\nCL.THROTTLE t 5 1 60 2\r\n",
        "HSETEX h FNX EX 10 FIELDS 1 f v\r\nHEXPIRE h 1 FIELDS 1 f\r\nHTTL h FIELDS 1 f\r\n",
        "SCAN 0 MATCH * COUNT 10 TYPE string\r\nCONFIG SET maxclients 10\r\nINFO all\r\n",
        "CLIENT REPLY SKIP\r\nCLIENT LIST\r\nMONITOR\r\nRESET\r\nSELECT 1\r\nMOVE a 0\r\n",
        "LCS a b IDX MINMATCHLEN 2 WITHMATCHLEN\r\nSORT a\r\nOBJECT HELP\r\nLATENCY DOCTOR\r\n",
        "SWAPDB 0 1\r\nFLUSHDB\r\nFLUSHALL ASYNC\r\nDBSIZE\r\nRANDOMKEY\r\nKEYS [^a]*\r\n",
        "COPY a b REPLACE DB 1\r\nRENAME a b\r\nMSETEX 1 a b XX EX 5\r\nDELEX a IFEQ x\r\n",
    ];
    let mut seeds: Vec<Vec<u8>> = conversations
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    for row in tallyman::command::table().rows() {
        let name = row.spec.name.replace('|', " ");
        let arguments = [
            "",
            "a",
            "a 1",
            "a b c",
            "1 2 3 4",
            "a FIELDS 1 f",
            "0 COUNT 3",
        ];
        let lines = arguments.map(|arguments| format!("{name} {arguments}\r\n"));
        seeds.push(format!("SET a 1\r\nHSET 0 f 1\r\n{}", lines.concat()).into_bytes());
    }
    seeds
}

pub fn act(input: &[u8]) -> Outcome {
    let disk = disk();
    let mut server = Server::start(&disk);
    let cut = input.iter().map(|byte| usize::from(*byte)).sum::<usize>() % (input.len() + 1);
    let mut replies = server.send(&input[..cut]);
    replies.extend(server.send(&input[cut..]));
    let outcome = well_formed(&replies);
    drop(server);
    disk.kill();
    Server::start(&disk);
    outcome
}

/// All replies can be read to the last byte; returns their kind.
fn well_formed(replies: &[u8]) -> Outcome {
    let (mut rest, mut kind) = (replies, 0_u64);
    while !rest.is_empty() {
        let parsed = Value::parse(rest).expect("a well-formed reply");
        let (value, length) = parsed.expect("a whole reply");
        let text = match value {
            Value::Error(text) => String::from_utf8_lossy(&text).into_owned(),
            _ => String::from_utf8_lossy(&rest[..1]).into_owned(),
        };
        kind = kind.rotate_left(5) ^ kind_of(&text);
        rest = &rest[length..];
    }
    kind
}

// ---- RESTORE ---------------------------------------------------------------------------------

/// Payloads as Redis writes them, without version and checksum: strings (raw, integer, packed),
/// hashes (listpack, ziplist, zipmap-like, plain).
pub fn payloads() -> Vec<Vec<u8>> {
    let mut server = Server::start(&disk());
    let long = "x".repeat(300);
    let mut hash = vec!["HSET", "large"];
    let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    hash.extend(names.iter().flat_map(|name| [name.as_str(), "value"]));
    let makers: [&[&str]; 6] = [
        &["SET", "number", "1234567"],
        &["SET", "text", "some text"],
        &["SET", "long", &long],
        &[
            "HSET", "small", "field", "value", "number", "-70000", "empty", "",
        ],
        &[
            "HSET",
            "numbers",
            "1",
            "127",
            "2",
            "8191",
            "3",
            "9223372036854775807",
        ],
        &hash,
    ];
    let mut payloads = Vec::new();
    for maker in makers {
        call(
            &mut server,
            &maker.iter().map(|word| word.as_bytes()).collect::<Vec<_>>(),
        );
        let dumped = dump(&mut server, maker[1].as_bytes());
        payloads.push(dumped[..dumped.len() - 10].to_vec());
    }
    // Integers of one, two and four bytes; a packed string; a ziplist.
    payloads.push(vec![0, 0xC0, 5]);
    payloads.push(vec![0, 0xC1, 5, 1]);
    payloads.push(vec![0, 0xC2, 5, 1, 0, 0]);
    payloads.push(vec![0, 0xC3, 4, 0x14, 1, b'a', 0xE0, 9, 0]);
    payloads.push(b"\x0d\x13\x13\0\0\0\x0e\0\0\0\x02\0\0\x01a\x03\x01b\xff".to_vec());
    payloads.push(b"\x04\x01\x01f\x01v".to_vec());
    payloads
}

fn call(server: &mut Server, args: &[&[u8]]) -> Value {
    let mut request = Vec::new();
    encode_command(args, &mut request);
    let reply = server.send(&request);
    let parsed = Value::parse(&reply).expect("a well-formed reply");
    parsed.expect("a whole reply").0
}

fn dump(server: &mut Server, key: &[u8]) -> Vec<u8> {
    match call(server, &[b"DUMP", key]) {
        Value::Bulk(payload) => payload,
        other => panic!("DUMP says {other:?}"),
    }
}

/// The input with a version and the right checksum behind it.
pub fn restore(input: &[u8]) -> Outcome {
    let mut payload = input.to_vec();
    payload.extend(10_u16.to_le_bytes());
    payload.extend(crc64::crc64(0, &payload).to_le_bytes());
    let mut server = Server::start(&disk());
    match call(&mut server, &[b"RESTORE", b"key", b"0", &payload]) {
        Value::Error(text) => kind_of(&String::from_utf8_lossy(&text)),
        Value::Simple(_) => {
            let dumped = dump(&mut server, b"key");
            let again = call(&mut server, &[b"RESTORE", b"copy", b"0", &dumped]);
            assert!(
                matches!(again, Value::Simple(_)),
                "its own payload: {again:?}"
            );
            assert_eq!(dump(&mut server, b"copy").len(), dumped.len());
            1 ^ u64::from(input[0]) << 8
        }
        other => panic!("RESTORE says {other:?}"),
    }
}
