//! tallyman: a Redis-protocol server in which every key has one owner.

pub mod clock;
pub mod command;
pub mod config;
pub mod conn;
pub mod glob;
pub mod keyspace;
pub mod limits;
pub mod log;
pub mod logging;
pub mod metrics;
pub mod number;
pub mod recovery;
pub mod reply;
pub mod resp;
pub mod route;
pub mod server;
pub mod session;
pub mod shard;
pub mod store;
pub mod worker;
