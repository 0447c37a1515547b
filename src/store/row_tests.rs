//! Tests of the row keys: that bytes sort as their fields do, and that nothing on disk panics.

use proptest::prelude::*;

use super::*;

/// What the documented order says: by these fields, one after the other.
type Order<'a> = (u16, u64, u8, u32, u32, usize, &'a [u8], u64, u32, &'a [u8]);

fn order<'a>(row: &RowKey<'a>) -> Order<'a> {
    let of = |k: u8, of: KeyOf<'a>, generation, hash, part: &'a [u8]| {
        let KeyOf {
            slot,
            database,
            hash: key_hash,
            key,
        } = of;
        (
            slot,
            0,
            k,
            database,
            key_hash,
            key.len(),
            key,
            generation,
            hash,
            part,
        )
    };
    let none: &[u8] = &[];
    match *row {
        RowKey::Count { slot, database } => {
            (0xFFFE, slot.into(), 0, database, 0, 0, none, 0, 0, none)
        }
        RowKey::Main(key) => of(1, key, 0, 0, none),
        RowKey::Field {
            of: key,
            generation,
            hash,
            field,
        } => of(2, key, generation, hash, field),
        RowKey::Retired {
            of: key,
            generation,
        } => of(3, key, generation, 0, none),
        RowKey::Deadline {
            at_ms,
            slot,
            database,
            key,
            of,
        } => {
            let (kind, generation, part) = match of {
                DeadlineOf::Key => (0, 0, none),
                DeadlineOf::Field { generation, field } => (1, generation, field),
            };
            // Slot, database and kind share what other rows keep in kind, database and hash.
            let place = u64::from(slot) << 40 | u64::from(database) << 8 | kind;
            let (high, low) = ((place >> 32) as u32, place as u32);
            (
                0xFFFF,
                at_ms,
                0,
                high,
                low,
                key.len(),
                key,
                generation,
                0,
                part,
            )
        }
        RowKey::Meta => (0xFFFF, u64::MAX, 0, 0, 0, 0, none, 0, 0, none),
    }
}

#[derive(Clone, Debug)]
struct Parts {
    shape: u8,
    slot: u16,
    database: u32,
    hash: u32,
    key: Vec<u8>,
    generation: u64,
    part_hash: u32,
    part: Vec<u8>,
    at_ms: u64,
}

impl Parts {
    fn row(&self) -> RowKey<'_> {
        let Parts {
            slot,
            database,
            hash,
            generation,
            at_ms,
            ..
        } = *self;
        let of = KeyOf {
            slot,
            database,
            hash,
            key: &self.key,
        };
        let deadline = |of| RowKey::Deadline {
            at_ms,
            slot,
            database,
            key: &self.key,
            of,
        };
        match self.shape {
            0 => RowKey::Count { slot, database },
            1 => RowKey::Main(of),
            2 => RowKey::Field {
                of,
                generation,
                hash: self.part_hash,
                field: &self.part,
            },
            3 => RowKey::Retired { of, generation },
            4 => deadline(DeadlineOf::Key),
            5 => deadline(DeadlineOf::Field {
                generation,
                field: &self.part,
            }),
            _ => RowKey::Meta,
        }
    }
}

fn few<T: Clone + std::fmt::Debug + 'static>(
    usual: Vec<T>,
    any: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![4 => proptest::sample::select(usual), 1 => any].boxed()
}

fn bytes() -> BoxedStrategy<Vec<u8>> {
    let usual = vec![vec![], vec![0], vec![0xFF], b"a".to_vec(), b"ab".to_vec()];
    few(usual, proptest::collection::vec(any::<u8>(), 0..40))
}

/// Few values for each part, so that two rows often differ in one place only.
fn parts() -> impl Strategy<Value = Parts> {
    (
        0u8..7,
        few(vec![0, 1, 255, 256, SLOTS - 1], 0..SLOTS),
        few(vec![0, 1, 256, u32::MAX], any::<u32>()),
        few(vec![0, 255, 256, u32::MAX], any::<u32>()),
        bytes(),
        few(vec![0, 1, 256, u64::MAX], any::<u64>()),
        few(vec![0, 255, 256, u32::MAX], any::<u32>()),
        bytes(),
        few(vec![0, 1, 256, DEADLINE_MS_END - 1], 0..DEADLINE_MS_END),
    )
        .prop_map(
            |(shape, slot, database, hash, key, generation, part_hash, part, at_ms)| Parts {
                shape,
                slot,
                database,
                hash,
                key,
                generation,
                part_hash,
                part,
                at_ms,
            },
        )
}

proptest! {
    #[test]
    fn a_row_decodes_to_what_was_encoded(parts in parts()) {
        let row = parts.row();
        let bytes = row.encode();
        prop_assert_eq!(RowKey::decode(&bytes), Ok(row));
    }

    #[test]
    fn encoded_rows_sort_as_their_fields_do(a in parts(), b in parts()) {
        let (a, b) = (a.row(), b.row());
        prop_assert_eq!(a.encode().cmp(&b.encode()), order(&a).cmp(&order(&b)));
    }

    #[test]
    fn any_bytes_decode_to_themselves_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        if let Ok(row) = RowKey::decode(&bytes) {
            prop_assert_eq!(row.encode(), bytes);
        }
    }

    #[test]
    fn a_row_cut_short_is_an_error_or_another_row(parts in parts(), keep in 0usize..60) {
        let bytes = parts.row().encode();
        let cut = &bytes[..keep.min(bytes.len())];
        if let Ok(row) = RowKey::decode(cut) {
            prop_assert_eq!(row.encode(), cut);
        }
    }

    #[test]
    fn spans_hold_exactly_their_rows(a in parts(), b in parts()) {
        let (row, other) = (a.row(), b.row());
        let of = KeyOf { slot: a.slot, database: a.database, hash: a.hash, key: &a.key };
        let inside = |span: Span| {
            let bytes = other.encode();
            span.0 <= bytes && bytes < span.1
        };
        if let Some(kind) = row.kind() {
            let same_slot = other.kind().is_some() && b.slot == a.slot;
            let same_kind = same_slot && other.kind() == Some(kind);
            prop_assert_eq!(inside(slots(a.slot, a.slot + 1)), same_slot);
            prop_assert_eq!(inside(kind_in_slot(a.slot, kind)), same_kind);
            let same_database = same_kind && b.database == a.database;
            prop_assert_eq!(inside(database_in_slot(a.slot, kind, a.database)), same_database);
        }
        let field = matches!(other, RowKey::Field { of: key, generation, .. }
            if key == of && generation == a.generation);
        prop_assert_eq!(inside(fields(of, a.generation)), field);
        let due = matches!(other, RowKey::Deadline { at_ms, .. } if at_ms < a.at_ms);
        prop_assert_eq!(inside(deadlines(0, a.at_ms)), due);
        prop_assert_eq!(inside(everything()), other != RowKey::Meta);
    }
}

#[test]
fn wrong_rows_say_what_is_wrong() {
    assert_eq!(RowKey::decode(&[]), Err(RowError::Short));
    assert_eq!(RowKey::decode(&[0x40, 0, 1]), Err(RowError::Slot(0x4000)));
    assert_eq!(RowKey::decode(&[0, 0, 9]), Err(RowError::Kind(9)));
    assert_eq!(
        RowKey::decode(&[0xFF, 0xFE, 0, 0, 0, 0, 0, 1, 7]),
        Err(RowError::Long(1))
    );
    let mut late = vec![0xFF; 2];
    late.extend_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(RowKey::decode(&late), Err(RowError::Time(DEADLINE_MS_END)));
    let mut long = vec![0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    long.extend_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(RowKey::decode(&long), Err(RowError::Length(65_535)));
}

#[test]
fn the_longest_rows_fit() {
    let key = vec![0xFF; KEY_BYTES_MAX];
    let field = vec![0xFF; FIELD_BYTES_MAX];
    let of = KeyOf {
        slot: SLOTS - 1,
        database: u32::MAX,
        hash: u32::MAX,
        key: &key,
    };
    let row = RowKey::Field {
        of,
        generation: u64::MAX,
        hash: u32::MAX,
        field: &field,
    };
    assert!(row.encode().len() <= crate::limits::ROW_KEY_BYTES_MAX);
    assert_eq!(RowKey::decode(&row.encode()), Ok(row));
}
