//! The codecs of log and store: any bytes decode to something or are refused, and what they decode
//! to can be written and read again.

use bytes::Bytes;
use tallyman::keyspace::codec::{BatchBuilder, Mutation, Mutations, field, stored};
use tallyman::store::{Meta, RowKey};

use crate::{Outcome, kind_of};

/// The first byte of an input says what it is.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut batch = BatchBuilder::default();
    batch.delete(1, b"key");
    batch.deadline(1, b"key", 1_700_000_000_000);
    batch.part(2, b"key", 5, Bytes::from_static(b"part"), 20);
    batch.fields(1, b"hash", (0, 7, 2), 1);
    batch.field(b"gone", None);
    batch.count(77, 1, 12);
    batch.databases(&[0, 1, 5], 6);
    batch.token_ceiling(1 << 40);
    let batch: Vec<u8> = batch.finish().concat();
    let meta = Meta {
        lsn: 5,
        rows_lsn: 6,
        databases: vec![0, 1, 9],
        next_database_id: 10,
        ..Meta::default()
    };
    // A counter, a string and a cell of 5, and a hash's head, each with a deadline.
    let values: [&[u8]; 4] = [
        &[1, 9, 10],
        &[2, 0, 3, b'a', b'b', b'c'],
        &[3, 0, 1, b'a', 5, 0, 0, 0],
        &[4, 0, 7, 2],
    ];
    let mut seeds = vec![
        [&[0][..], &batch].concat(),
        [&[1][..], &meta.encode()].concat(),
    ];
    for kind in 2..5 {
        seeds.extend(values.iter().map(|value| [&[kind][..], value].concat()));
    }
    let row = [0, 5, 1, 0, 0, 0, 0, 1, 2, 3, 4, 0, 1, b'k'];
    seeds.push([&[4][..], &row].concat());
    seeds
}

pub fn act(input: &[u8]) -> Outcome {
    let (Some(kind), rest) = (input.first(), input.get(1..).unwrap_or_default()) else {
        return 0;
    };
    let mut bytes = rest;
    let text = match kind % 5 {
        0 => return batch(rest),
        1 => match Meta::decode(rest) {
            Ok(meta) => {
                assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
                "meta".to_owned()
            }
            Err(error) => format!("{error:?}"),
        },
        2 => outcome(stored(&mut bytes)),
        3 => outcome(field(&mut bytes)),
        _ => match RowKey::decode(rest) {
            Ok(row) => {
                assert_eq!(row.encode(), rest, "a row key has one form");
                format!("row {:?}", row.kind())
            }
            Err(error) => format!("{error:?}"),
        },
    };
    kind_of(&text) ^ u64::from(*kind)
}

fn outcome<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "fine".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// Mutations up to the first that is refused; those that say what they need are written again.
fn batch(bytes: &[u8]) -> Outcome {
    let mut kinds = 0;
    for mutation in Mutations::of(bytes).take(10_000) {
        match mutation {
            Ok(mutation) => {
                again(&mutation);
                kinds |= kind_of(&format!("{mutation:?}").chars().take(8).collect::<String>());
            }
            Err(error) => return kinds ^ kind_of(error.0),
        }
    }
    kinds
}

fn again(mutation: &Mutation<'_>) {
    let mut batch = BatchBuilder::default();
    match mutation {
        Mutation::Delete { database, key } => batch.delete(*database, key),
        Mutation::Deadline {
            database,
            key,
            deadline_ms,
        } => batch.deadline(*database, key, *deadline_ms),
        Mutation::Part {
            database,
            key,
            offset,
            bytes,
            total,
        } => batch.part(
            *database,
            key,
            *offset,
            Bytes::copy_from_slice(bytes),
            *total,
        ),
        _ => return,
    }
    let bytes: Vec<u8> = batch.finish().concat();
    let read: Vec<_> = Mutations::of(&bytes).collect();
    assert_eq!(read, [Ok(mutation.clone())]);
}
