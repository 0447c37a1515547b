//! Hashes: keys whose value is fields with values, each with a deadline of its own if wanted.
//!
//! Always true: no command shows a field at or past its deadline; a hash goes with its last field;
//! a command that writes one field costs a search and logs that field alone.

use crate::command::Row;
use crate::keyspace::{Field, FieldValue};
use crate::number;
use crate::reply::Reply;

mod add;
mod browse;
mod clause;
mod deadline;
mod get;
#[cfg(test)]
mod model;
mod set;
mod together;

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::keys::<set::HSet>(),
    Row::keys::<set::HSetNx>(),
    Row::keys::<set::HMSet>(),
    Row::keys::<get::HGet>(),
    Row::keys::<get::HMGet>(),
    Row::keys::<get::HGetAll>(),
    Row::keys::<set::HDel>(),
    Row::keys::<get::HLen>(),
    Row::keys::<get::HStrLen>(),
    Row::keys::<get::HExists>(),
    Row::keys::<get::HKeys>(),
    Row::keys::<get::HVals>(),
    Row::keys::<add::HIncrBy>(),
    Row::keys::<add::HIncrByFloat>(),
    Row::keys::<browse::HRandField>(),
    Row::keys::<browse::HScan>(),
    Row::keys::<together::HGetDel>(),
    Row::keys::<together::HGetEx>(),
    Row::keys::<together::HSetEx>(),
    Row::keys::<deadline::HExpire<deadline::InSeconds>>(),
    Row::keys::<deadline::HExpire<deadline::InMilliseconds>>(),
    Row::keys::<deadline::HExpire<deadline::AtSeconds>>(),
    Row::keys::<deadline::HExpire<deadline::AtMilliseconds>>(),
    Row::keys::<deadline::HTtl<deadline::SecondsLeft>>(),
    Row::keys::<deadline::HTtl<deadline::MillisecondsLeft>>(),
    Row::keys::<deadline::HTtl<deadline::UnixSeconds>>(),
    Row::keys::<deadline::HTtl<deadline::UnixMilliseconds>>(),
    Row::keys::<deadline::HPersist>(),
];

/// Replies with a value.
fn reply_value(value: &FieldValue, reply: &mut Reply<'_>) {
    match value.counter() {
        Some(number) => reply.bulk_integer(number),
        None => reply.bulk(value.text().unwrap_or_default()),
    }
}

/// Replies with the value of a field, or null.
fn reply_value_or_null(field: Option<&Field>, reply: &mut Reply<'_>) {
    match field {
        Some(field) => reply_value(&field.value, reply),
        None => reply.null(),
    }
}

/// Length of a value in bytes.
fn value_bytes(value: &FieldValue) -> usize {
    match value.counter() {
        Some(number) => number::decimal_bytes(number),
        None => value.text().map_or(0, <[u8]>::len),
    }
}
