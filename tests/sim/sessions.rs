//! Random clients: what they send, what they have received. Calls come from the command table's own
//! grammar, over few keys, so that they collide.

use std::collections::VecDeque;

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use tallyman::command::docs::random_call;
use tallyman::command::{Row, Run, table};
use tallyman::resp::value::Value;
use tallyman::shard::mailbox::ConnId;

/// Commands whose calls are not random: they change the server, wait, or stop it.
const LEFT_OUT: &[&str] = &["debug|set-active-expire", "debug|jmap"];
/// Requests per client that may wait for their replies.
const UNANSWERED_MAX: usize = 60;

/// A client and its connection.
pub struct Client {
    pub shard: usize,
    pub conn: ConnId,
    /// Bytes that were sent and not read by the server.
    pub sent: VecDeque<u8>,
    /// Bytes that were received and are no whole reply yet.
    pub received: Vec<u8>,
    /// What was asked and not answered, oldest first.
    pub asked: VecDeque<Vec<Vec<u8>>>,
    /// Number of the oldest of these.
    pub answered: u64,
    /// Between MULTI and EXEC.
    in_block: bool,
    /// Which of these get no reply, by CLIENT REPLY.
    silent: VecDeque<bool>,
    /// No reply comes until it is asked for again.
    replies_off: bool,
    /// So many requests get no reply.
    replies_skipped: usize,
}

/// What random sessions are made of.
pub struct Generator {
    pub keys: Vec<Vec<u8>>,
    rows: Vec<&'static Row>,
}

impl Client {
    pub fn new(shard: usize, conn: ConnId) -> Client {
        Client {
            shard,
            conn,
            sent: VecDeque::new(),
            received: Vec::new(),
            asked: VecDeque::new(),
            answered: 0,
            in_block: false,
            silent: VecDeque::new(),
            replies_off: false,
            replies_skipped: 0,
        }
    }

    /// Sends a request.
    pub fn ask(&mut self, words: Vec<Vec<u8>>) {
        self.sent.extend(format!("*{}\r\n", words.len()).bytes());
        for word in &words {
            self.sent.extend(format!("${}\r\n", word.len()).bytes());
            self.sent.extend(word);
            self.sent.extend(b"\r\n");
        }
        self.asked.push_back(words);
        self.silent
            .push_back(self.replies_off || self.replies_skipped > 0);
        self.replies_skipped = self.replies_skipped.saturating_sub(1);
    }

    /// What gets no reply is done with as soon as it is the oldest.
    pub fn pass_over_silent(&mut self) {
        while self.silent.front() == Some(&true) {
            self.silent.pop_front();
            self.asked.pop_front();
            self.answered += 1;
        }
    }

    /// Sends words of a line.
    pub fn ask_line(&mut self, line: &str) {
        self.ask(
            line.split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect(),
        );
    }

    /// The next whole reply, with the number of its request and the request.
    pub fn next_reply(&mut self) -> Option<(u64, Vec<Vec<u8>>, Vec<u8>)> {
        let parsed = Value::parse(&self.received).expect("replies are well-formed");
        let (_, bytes) = parsed?;
        let reply = self.received.drain(..bytes).collect();
        self.pass_over_silent();
        self.silent.pop_front();
        let words = self
            .asked
            .pop_front()
            .expect("a reply belongs to a request");
        self.answered += 1;
        Some((self.answered - 1, words, reply))
    }
}

impl Generator {
    pub fn new(random: &mut Xoshiro256PlusPlus) -> Generator {
        let mut keys: Vec<Vec<u8>> = ["a", "b", "c", "d", "{t}1", "{t}2"]
            .map(|key| key.as_bytes().to_vec())
            .to_vec();
        keys.truncate(random.random_range(2..=6));
        for _ in 0..random.random_range(1..4) {
            let number: u32 = random.random_range(0..1000);
            keys.push(format!("key{number}").into_bytes());
        }
        keys.sort();
        keys.dedup();
        let on_keys = |row: &&Row| {
            matches!(row.run, Run::Keys(_)) && !row.container && !LEFT_OUT.contains(&row.spec.name)
        };
        let rows = table().rows().iter().filter(on_keys).collect();
        Generator { keys, rows }
    }

    fn key<'a>(&'a self, random: &mut Xoshiro256PlusPlus) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(&self.keys[random.random_range(0..self.keys.len())])
    }

    /// Lets a client send something.
    pub fn send(&self, client: &mut Client, now_ms: u64, random: &mut Xoshiro256PlusPlus) {
        if client.asked.len() > UNANSWERED_MAX {
            return;
        }
        for _ in 0..random.random_range(1..5) {
            match random.random_range(0..100) {
                0..45 => self.core(client, now_ms, random),
                45..78 => self.any(client, now_ms, random),
                78..85 => {
                    client.ask_line("MULTI");
                    client.in_block = true;
                    for _ in 0..random.random_range(1..4) {
                        if random.random() {
                            self.core(client, now_ms, random);
                        } else {
                            self.any(client, now_ms, random);
                        }
                    }
                    if random.random_range(0..8) > 0 {
                        self.exec(client, random);
                    }
                }
                85..87 if client.in_block => self.exec(client, random),
                87..92 => {
                    let mut line = "WATCH".to_owned();
                    for _ in 0..random.random_range(1..3) {
                        line += &format!(" {}", self.key(random));
                    }
                    client.ask_line(&line);
                }
                92 => client.ask_line("UNWATCH"),
                93 => client.ask_line(&format!("SELECT {}", random.random_range(0..3))),
                94..97 => self.of_databases(client, random),
                97 if !client.in_block => self.quiet(client, now_ms, random),
                _ => {
                    let lines = [
                        "PING",
                        "HELLO 3",
                        "HELLO 2",
                        "TIME",
                        "INFO",
                        "SAVE",
                        "BGSAVE",
                        "ECHO x",
                        "WAITAOF 1 0 0",
                        "CLIENT ID",
                        "DISCARD",
                        "RESET",
                        "nonsense",
                        "DEBUG RELOAD",
                        "DEBUG RELOAD",
                        "SHUTDOWN",
                        "SHUTDOWN NOSAVE",
                    ];
                    let mut line = lines[random.random_range(0..lines.len())];
                    if line.starts_with("SHUTDOWN") && random.random_range(0..4) > 0 {
                        line = "PING";
                    }
                    client.in_block &= !matches!(line, "DISCARD" | "RESET");
                    client.ask_line(line);
                }
            }
        }
    }

    /// Requests without a reply.
    fn quiet(&self, client: &mut Client, now_ms: u64, random: &mut Xoshiro256PlusPlus) {
        if random.random() {
            client.replies_skipped = 2;
            client.ask_line("CLIENT REPLY SKIP");
            return self.core(client, now_ms, random);
        }
        client.replies_off = true;
        client.ask_line("CLIENT REPLY OFF");
        for _ in 0..random.random_range(0..4) {
            self.core(client, now_ms, random);
        }
        client.replies_off = false;
        client.ask_line("CLIENT REPLY ON");
    }

    fn exec(&self, client: &mut Client, random: &mut Xoshiro256PlusPlus) {
        client.in_block = false;
        client.ask_line("EXEC");
        let _ = random;
    }

    fn of_databases(&self, client: &mut Client, random: &mut Xoshiro256PlusPlus) {
        let line = match random.random_range(0..10) {
            0 => "FLUSHDB".to_owned(),
            1 => "FLUSHALL".to_owned(),
            2..5 => {
                let (one, other) = (random.random_range(0..3), random.random_range(0..3));
                format!("SWAPDB {one} {other}")
            }
            5 => "KEYS *".to_owned(),
            _ => "DBSIZE".to_owned(),
        };
        client.ask_line(&line);
    }

    /// A call of the commands that the plain model knows, and of those that hold promises.
    fn core(&self, client: &mut Client, now_ms: u64, random: &mut Xoshiro256PlusPlus) {
        let (key, other) = (self.key(random), self.key(random));
        let number: i64 = random.random_range(0..100);
        let line = match random.random_range(0..39) {
            0..5 => format!("INCR {key}"),
            5..8 => format!("GET {key}"),
            8 => format!("SET {key} {number}"),
            9 => format!("SET {key} value{number} NX"),
            10 => format!("SET {key} {}", "v".repeat(random.random_range(1..3_000))),
            11 => format!("PSETEX {key} {} {number}", random.random_range(1..3_000)),
            12 => format!("DEL {key} {other}"),
            13 => format!("DEL {key}"),
            14..17 => format!("HSET {key} f{} {number} g x", random.random_range(0..4)),
            17 => format!("HGET {key} g"),
            18 => format!("HDEL {key} f{}", random.random_range(0..4)),
            19 => format!("PEXPIREAT {key} {}", now_ms + random.random_range(1..3_000)),
            20 => format!("PERSIST {key}"),
            21 => format!("APPEND {key} {number}"),
            22..25 => format!("MSET {key} {number} {other} {number}"),
            25 => format!("MGET {key} {other}"),
            26 => format!("RENAME {key} {other}"),
            27 => format!(
                "COPY {key} {other} DB {} REPLACE",
                random.random_range(0..3)
            ),
            28 => format!(
                "HPEXPIRE {key} {} FIELDS 1 g",
                random.random_range(1..3_000)
            ),
            29 => format!("EXISTS {key} {other}"),
            30 => format!("SETIFIDLE {key} busy PX {}", random.random_range(1..3_000)),
            31 => format!("SETIDLE {key} {}", random.random_range(1..2_000)),
            32 => format!("SETSTATE {key} s{number}"),
            33..36 => {
                let (ms, end) = (random.random_range(1..3_000), random.random_range(0..2));
                let end = ["REFUND", "CHARGE"][end];
                format!(
                    "RESERVE {key} h{} {} PX {ms} LBOUND -900 ONEXPIRE {end}",
                    number % 3,
                    number
                )
            }
            36..38 => {
                let token = random.random_range(1..60);
                format!("SETTLE {key} h{} {token} {number}", number % 3)
            }
            _ => format!("GETSTATE {key}"),
        };
        client.ask_line(&line);
    }

    /// A call by grammar.
    fn any(&self, client: &mut Client, now_ms: u64, random: &mut Xoshiro256PlusPlus) {
        let row = self.rows[random.random_range(0..self.rows.len())];
        let keys: Vec<&[u8]> = self.keys.iter().map(Vec::as_slice).collect();
        client.ask(random_call(row, &keys, now_ms, random));
    }
}
