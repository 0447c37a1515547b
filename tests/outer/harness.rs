//! Starts the server under test for one test and ends it with the test.
//!
//! The binary is `TALLYMAN_BIN` or the one that cargo built; the port is free, the folder
//! temporary, and only the process started here is ended.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use tempfile::TempDir;

const START_SECONDS_MAX: u64 = 60;

/// Both protocols, for tests that speak them in turn.
pub const PROTOCOLS: [ProtocolVersion; 2] = [ProtocolVersion::RESP2, ProtocolVersion::RESP3];

/// A running server. Dropping it kills the process and removes the folder.
pub struct Server {
    options: Vec<String>,
    folder: TempDir,
    child: Child,
    port: u16,
}

impl Server {
    /// Starts a server with these command-line options and waits until it is ready.
    pub fn start(options: &[&str]) -> Server {
        let folder = TempDir::new().expect("a temporary folder");
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        let (child, port) = spawn(&options, &folder);
        let server = Server {
            options,
            folder,
            child,
            port,
        };
        server.wait_until_ready();
        server
    }

    /// `kill -9`, then a start on the same folder.
    pub fn restart_after_kill(&mut self) {
        self.kill();
        (self.child, self.port) = spawn(&self.options, &self.folder);
        self.wait_until_ready();
    }

    /// A connection that speaks this protocol.
    pub fn connect(&self, protocol: ProtocolVersion) -> Connection {
        self.try_connect(protocol).expect("a connection")
    }

    fn try_connect(&self, protocol: ProtocolVersion) -> redis::RedisResult<Connection> {
        let settings = RedisConnectionInfo::default().set_protocol(protocol);
        let address = ("127.0.0.1", self.port).into_connection_info()?;
        Client::open(address.set_redis_settings(settings))?.get_connection()
    }

    fn wait_until_ready(&self) {
        let begun = Instant::now();
        while self.try_connect(ProtocolVersion::RESP2).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(START_SECONDS_MAX));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(options: &[String], folder: &TempDir) -> (Child, u16) {
    if std::env::var("TALLYMAN_SERVER").is_ok_and(|kind| kind == "redis") {
        return spawn_redis(folder);
    }
    let binary =
        std::env::var("TALLYMAN_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tallyman").to_owned());
    let mut child = Command::new(&binary)
        .args(["--port", "0", "--dir"])
        .arg(folder.path().join("data"))
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{binary}: {error}"));
    let stdout = child.stdout.take().expect("piped");
    let port = BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| port_of(&line))
        .expect("a ready line with the port");
    (child, port)
}

fn spawn_redis(folder: &TempDir) -> (Child, u16) {
    let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = probe.local_addr().expect("bound").port();
    drop(probe);
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(folder.path())
        .args(["--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server");
    (child, port)
}

/// The port in a line that holds `127.0.0.1:PORT`.
fn port_of(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}
