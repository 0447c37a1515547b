//! The real binary through the `redis` crate, in RESP2 and RESP3.
//!
//! Each test has a server of its own on a free port with a temporary folder. Other clients
//! (redis-py, ioredis, node-redis, redis-cli, redis-benchmark) have their suites beside this
//! folder; `tests/run` runs them all. `TALLYMAN_SERVER=redis` runs these tests on redis-server.

mod harness;
mod tidy;

use std::collections::{BTreeMap, BTreeSet};

use redis::{Commands, ErrorKind, ExistenceCheck, SetExpiry, SetOptions, Value};

use crate::harness::{PROTOCOLS, Server};

#[test]
fn strings_and_counters() {
    let server = Server::start(&[]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
        assert_eq!(client.incr::<_, _, i64>("n", 41), Ok(41));
        assert_eq!(client.incr::<_, _, i64>("n", 1), Ok(42));
        assert_eq!(client.decr::<_, _, i64>("n", 2), Ok(40));
        assert_eq!(client.incr::<_, _, f64>("f", 1.5), Ok(1.5));
        assert_eq!(client.get::<_, Option<String>>("none"), Ok(None));
        let () = client.mset(&[("a", "1"), ("b", "2")]).unwrap();
        let found: Vec<Option<String>> = client.mget(&["a", "none", "b"]).unwrap();
        assert_eq!(found, [Some("1".into()), None, Some("2".into())]);
        let binary: Vec<u8> = (0..=255).collect();
        let () = client.set(&binary, &binary).unwrap();
        assert_eq!(client.get::<_, Vec<u8>>(&binary), Ok(binary.clone()));
        assert_eq!(client.append::<_, _, usize>("a", "xyz"), Ok(4));
        assert_eq!(client.getrange::<_, String>("a", -3, -1), Ok("xyz".into()));
        assert_eq!(client.setbit::<_, bool>("bits", 7, true), Ok(false));
        assert_eq!(client.bitcount::<_, usize>("bits"), Ok(1));
    }
}

#[test]
fn set_takes_its_options() {
    let server = Server::start(&[]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
        let create = SetOptions::default()
            .conditional_set(ExistenceCheck::NX)
            .with_expiration(SetExpiry::EX(100));
        assert_eq!(
            client.set_options::<_, _, bool>("a", 1, create.clone()),
            Ok(true)
        );
        assert_eq!(
            client.set_options::<_, _, Value>("a", 2, create),
            Ok(Value::Nil)
        );
        assert!(client.ttl::<_, i64>("a").unwrap() > 90);
        let keep = SetOptions::default()
            .get(true)
            .with_expiration(SetExpiry::KEEPTTL);
        assert_eq!(
            client.set_options::<_, _, String>("a", 3, keep),
            Ok("1".into())
        );
        assert!(client.ttl::<_, i64>("a").unwrap() > 90);
    }
}

#[test]
fn errors_have_their_kind() {
    let server = Server::start(&[]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let () = client.set("text", "abc").unwrap();
        let error = client.incr::<_, _, i64>("text", 1).unwrap_err();
        assert!(error.to_string().contains("not an integer"), "{error}");
        let error = redis::cmd("NOSUCH").query::<()>(&mut client).unwrap_err();
        assert!(error.to_string().contains("unknown command"), "{error}");
        let error = redis::cmd("GET").query::<()>(&mut client).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Server(redis::ServerErrorKind::ResponseError)
        );
    }
}

#[test]
fn a_pipeline_keeps_its_order() {
    let server = Server::start(&["--shards", "3"]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
        let mut pipe = redis::pipe();
        for index in 0..3000 {
            pipe.incr(format!("k{}", index % 7), 1);
        }
        let replies: Vec<i64> = pipe.query(&mut client).unwrap();
        let expected: Vec<i64> = (0..3000).map(|index| index / 7 + 1).collect();
        assert_eq!(replies, expected);
    }
}

#[test]
fn a_transaction_over_shards_is_whole() {
    let server = Server::start(&["--shards", "3"]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
        let replies: (i64, i64, Option<String>, Vec<Option<i64>>) = redis::pipe()
            .atomic()
            .incr("a", 1)
            .incr("b", 2)
            .get("c")
            .mget(&["a", "b", "c"])
            .query(&mut client)
            .unwrap();
        assert_eq!(replies, (1, 2, None, vec![Some(1), Some(2), None]));
        // A command that fails does not undo the others; one that is refused stops the block.
        let () = client.set("text", "abc").unwrap();
        let mut pipe = redis::pipe();
        pipe.atomic().incr("a", 1).incr("text", 1).incr("b", 1);
        assert!(pipe.query::<()>(&mut client).is_err());
        assert_eq!(client.get::<_, i64>("b"), Ok(3));
        let mut pipe = redis::pipe();
        pipe.atomic().incr("a", 1).cmd("NOSUCH");
        assert!(pipe.query::<()>(&mut client).is_err());
        assert_eq!(client.get::<_, i64>("a"), Ok(2));
    }
}

#[test]
fn transactions_that_watch_lose_no_update() {
    const PER_THREAD: i64 = 25;
    let server = Server::start(&["--shards", "3"]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let mut client = server.connect(protocol);
                let keys = [["x", "y"], ["y", "x"]][number % 2];
                scope.spawn(move || {
                    for _ in 0..PER_THREAD {
                        // Asks again until nobody else was faster.
                        let () = redis::transaction(&mut client, &keys, |client, pipe| {
                            let x: i64 = client.get::<_, Option<i64>>("x")?.unwrap_or(0);
                            let y: i64 = client.get::<_, Option<i64>>("y")?.unwrap_or(0);
                            pipe.set("x", x + 1).ignore().set("y", y - 1).ignore();
                            pipe.query::<Option<()>>(client)
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(client.get::<_, i64>("x"), Ok(4 * PER_THREAD));
        assert_eq!(client.get::<_, i64>("y"), Ok(-4 * PER_THREAD));
    }
}

#[test]
fn scan_finds_every_key() {
    let server = Server::start(&["--shards", "2"]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let mut pipe = redis::pipe();
        for index in 0..2000 {
            pipe.set(format!("key:{index}"), index).ignore();
        }
        let () = pipe.query(&mut client).unwrap();
        let seen: BTreeSet<String> = client
            .scan_match("key:*")
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(seen.len(), 2000);
    }
}

#[test]
fn settings_are_a_map_in_both_protocols() {
    let server = Server::start(&[]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let settings: BTreeMap<String, String> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("appendfsync")
            .query(&mut client)
            .unwrap();
        assert_eq!(settings["appendfsync"], "always");
        let info: redis::InfoDict = redis::cmd("INFO").query(&mut client).unwrap();
        assert!(
            info.get::<String>("redis_version")
                .unwrap()
                .starts_with("7.")
        );
    }
}

#[test]
fn acknowledged_writes_are_there_after_kill_9() {
    let mut server = Server::start(&["--shards", "2"]);
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol);
        let before: i64 = client.incr("total", 0).unwrap();
        for _ in 0..50 {
            let _: i64 = client.incr("total", 1).unwrap();
        }
        server.restart_after_kill();
        let mut client = server.connect(protocol);
        assert_eq!(client.get::<_, i64>("total"), Ok(before + 50));
    }
}
