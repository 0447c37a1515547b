//! The bytes of DUMP and RESTORE: one object in the form of Redis's RDB file, then a footer with
//! the form's version and a CRC-64.
//!
//! Always true: what is written is accepted by Redis 7.0 and later; nothing that is read can make
//! the reader panic, and memory is taken only for bytes that are there or that they can unpack to.

use std::borrow::Cow;

use crate::command::keys::{listpack, ziplist};
use crate::keyspace::Hash;
use crate::keyspace::txn::Text;
use crate::limits::RESTORE_UNPACKED_BYTES_MAX;

/// Written: the version of Redis 7.0, the first with listpacks; later ones read it as well.
const VERSION_WRITTEN: u16 = 10;
/// Read: up to the version of Redis 7.2.
const VERSION_MAX: u16 = 11;
const FOOTER_BYTES: usize = 10;

const TYPE_STRING: u8 = 0;
const TYPE_HASH: u8 = 4;
const TYPE_HASH_ZIPLIST: u8 = 13;
const TYPE_HASH_LISTPACK: u8 = 16;

/// Most fields of a hash that is written as a listpack, and the longest name or value in one:
/// Redis's defaults.
const LISTPACK_FIELDS_MAX: usize = 512;
const LISTPACK_TEXT_BYTES_MAX: usize = 64;
/// Most bytes that one byte of LZF can unpack to: 264 from three, rounded up.
const LZF_RATIO_MAX: usize = 88;

/// Why a payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The footer is not that of these bytes, or of a version that is not known.
    Footer,
    /// The bytes are not what they should be.
    Damaged,
    /// A whole value, but of a type that is not kept here.
    Type(&'static str),
    /// It would unpack to too many bytes.
    TooLarge,
    /// A field's name is too long.
    FieldName,
}

/// What a payload holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Object<'a> {
    /// A string.
    String(Cow<'a, [u8]>),
    /// A hash; its fields were given to `on_field`.
    Hash,
}

/// What is told of each field of a hash: its name and value.
pub(super) type OnField<'f> = dyn FnMut(&[u8], &[u8]) -> Result<(), Unreadable> + 'f;

// ---- writing ---------------------------------------------------------------------------------

/// The payload of a string.
pub(super) fn of_string(text: Text<'_>) -> Vec<u8> {
    let mut out = vec![TYPE_STRING];
    match text {
        Text::Integer(integer) => put_integer(&mut out, integer),
        Text::Bytes(bytes) => put_string(&mut out, bytes),
    }
    seal(out)
}

/// The payload of a hash, without its fields' deadlines.
pub(super) fn of_hash(hash: &Hash) -> Vec<u8> {
    let small = |bytes: usize| bytes <= LISTPACK_TEXT_BYTES_MAX;
    let packed = hash.len() <= LISTPACK_FIELDS_MAX
        && hash.iter().all(|field| {
            small(field.name().len()) && small(field.value.text().map_or(0, <[u8]>::len))
        });
    let mut out = Vec::new();
    if packed {
        out.push(TYPE_HASH_LISTPACK);
        put_string(&mut out, &listpack::of_hash(hash));
        return seal(out);
    }
    out.push(TYPE_HASH);
    put_length(&mut out, hash.len() as u64);
    for field in hash.iter() {
        put_string(&mut out, field.name());
        match field.value.text() {
            Some(text) => put_string(&mut out, text),
            None => put_integer(&mut out, field.value.counter().unwrap_or(0)),
        }
    }
    seal(out)
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    out.extend_from_slice(&VERSION_WRITTEN.to_le_bytes());
    let checksum = crc64::crc64(0, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    match length {
        0..64 => out.push(length as u8),
        64..16_384 => out.extend_from_slice(&(length as u16 | 0x4000).to_be_bytes()),
        _ => match u32::try_from(length) {
            Ok(length) => {
                out.push(0x80);
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                out.push(0x81);
                out.extend_from_slice(&length.to_be_bytes());
            }
        },
    }
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A string that is the decimal of an integer.
fn put_integer(out: &mut Vec<u8>, integer: i64) {
    if let Ok(integer) = i8::try_from(integer) {
        out.extend_from_slice(&[0xC0, integer as u8]);
    } else if let Ok(integer) = i16::try_from(integer) {
        out.push(0xC1);
        out.extend_from_slice(&integer.to_le_bytes());
    } else if let Ok(integer) = i32::try_from(integer) {
        out.push(0xC2);
        out.extend_from_slice(&integer.to_le_bytes());
    } else {
        put_string(out, itoa::Buffer::new().format(integer).as_bytes());
    }
}

// ---- reading ---------------------------------------------------------------------------------

/// Reads a payload; a hash has at least one field, and no name twice unless `on_field` lets it
/// pass.
///
/// # Errors
/// Why it cannot be read; `on_field` may have been called before.
pub(super) fn read<'a>(
    payload: &'a [u8],
    on_field: &mut OnField<'_>,
) -> Result<Object<'a>, Unreadable> {
    let mut reader = Reader::new(unseal(payload)?);
    let object = match reader.byte()? {
        TYPE_STRING => Object::String(reader.string()?),
        TYPE_HASH => {
            read_pairs(&mut reader, on_field)?;
            Object::Hash
        }
        TYPE_HASH_LISTPACK => {
            listpack::read(&reader.string()?, on_field)?;
            Object::Hash
        }
        TYPE_HASH_ZIPLIST => {
            ziplist::read(&reader.string()?, on_field)?;
            Object::Hash
        }
        other => return Err(foreign(other)),
    };
    if reader.is_empty() {
        Ok(object)
    } else {
        Err(Unreadable::Damaged)
    }
}

/// The bytes without the footer, if it is theirs.
fn unseal(payload: &[u8]) -> Result<&[u8], Unreadable> {
    let (object, footer) = payload
        .len()
        .checked_sub(FOOTER_BYTES)
        .and_then(|at| payload.split_at_checked(at))
        .ok_or(Unreadable::Footer)?;
    let (version, checksum) = footer.split_at(2);
    let version = u16::from_le_bytes([version[0], version[1]]);
    let sum = crc64::crc64(0, &payload[..payload.len() - 8]);
    if version > VERSION_MAX || checksum != sum.to_le_bytes() {
        return Err(Unreadable::Footer);
    }
    Ok(object)
}

/// The name of a type that Redis 7.2 has and this server does not.
fn foreign(object_type: u8) -> Unreadable {
    match object_type {
        1 | 10 | 14 | 18 => Unreadable::Type("list"),
        2 | 11 | 20 => Unreadable::Type("set"),
        3 | 5 | 12 | 17 => Unreadable::Type("sorted set"),
        15 | 19 | 21 => Unreadable::Type("stream"),
        6 | 7 => Unreadable::Type("module value"),
        9 => Unreadable::Type("zipmap"),
        _ => Unreadable::Damaged,
    }
}

fn read_pairs(reader: &mut Reader<'_>, on_field: &mut OnField<'_>) -> Result<(), Unreadable> {
    let pairs = reader.plain_length()?;
    // A pair takes two bytes at least.
    if pairs == 0 || pairs > reader.rest.len() / 2 {
        return Err(Unreadable::Damaged);
    }
    for _ in 0..pairs {
        let name = reader.string()?;
        let value = reader.string()?;
        on_field(&name, &value)?;
    }
    Ok(())
}

/// A length, or the way in which a string is encoded.
enum Length {
    Plain(usize),
    Encoded(u8),
}

/// Reads an object from its bytes.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Bytes that may yet be unpacked.
    unpackable: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader {
            rest,
            unpackable: RESTORE_UNPACKED_BYTES_MAX,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that were not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(Unreadable::Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Unreadable::Damaged)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Unreadable> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn length(&mut self) -> Result<Length, Unreadable> {
        let first = self.byte()?;
        let low = first & 0x3F;
        let length = match first >> 6 {
            0 => u64::from(low),
            1 => u64::from(low) << 8 | u64::from(self.byte()?),
            2 if first == 0x80 => u64::from(u32::from_be_bytes(self.array()?)),
            2 if first == 0x81 => u64::from_be_bytes(self.array()?),
            3 => return Ok(Length::Encoded(low)),
            _ => return Err(Unreadable::Damaged),
        };
        let length = usize::try_from(length).map_err(|_| Unreadable::Damaged)?;
        Ok(Length::Plain(length))
    }

    fn plain_length(&mut self) -> Result<usize, Unreadable> {
        match self.length()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(Unreadable::Damaged),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, [u8]>, Unreadable> {
        let integer = match self.length()? {
            Length::Plain(length) => return Ok(Cow::Borrowed(self.take(length)?)),
            Length::Encoded(0) => i32::from(self.byte()? as i8),
            Length::Encoded(1) => i32::from(i16::from_le_bytes(self.array()?)),
            Length::Encoded(2) => i32::from_le_bytes(self.array()?),
            Length::Encoded(3) => return self.packed().map(Cow::Owned),
            Length::Encoded(_) => return Err(Unreadable::Damaged),
        };
        Ok(Cow::Owned(integer.to_string().into_bytes()))
    }

    /// A string that was packed with LZF: packed length, length, bytes.
    fn packed(&mut self) -> Result<Vec<u8>, Unreadable> {
        let packed_bytes = self.plain_length()?;
        let bytes = self.plain_length()?;
        let packed = self.take(packed_bytes)?;
        if bytes == 0 || bytes / LZF_RATIO_MAX > packed_bytes {
            return Err(Unreadable::Damaged);
        }
        self.unpackable = self
            .unpackable
            .checked_sub(bytes)
            .ok_or(Unreadable::TooLarge)?;
        match lzf::decompress(packed, bytes) {
            Ok(unpacked) if unpacked.len() == bytes => Ok(unpacked),
            _ => Err(Unreadable::Damaged),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::{FieldValue, key::field_hash32};

    /// Names and values.
    pub(in super::super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    pub(in super::super) fn hash_of(fields: &[(Vec<u8>, Vec<u8>)]) -> Hash {
        let mut hash = Hash::new(1);
        for (name, value) in fields {
            hash.insert(
                field_hash32(name, 1),
                name,
                FieldValue::from_bytes(value),
                0,
            );
        }
        hash
    }

    /// What a payload holds, with a hash's fields.
    pub(in super::super) fn read_all(
        payload: &[u8],
    ) -> Result<(Option<Vec<u8>>, Fields), Unreadable> {
        let mut fields = Vec::new();
        let object = read(payload, &mut |name, value| {
            fields.push((name.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(match object {
            Object::String(bytes) => (Some(bytes.into_owned()), fields),
            Object::Hash => (None, fields),
        })
    }

    fn sealed(object: &[u8]) -> Vec<u8> {
        seal(object.to_vec())
    }

    /// As redis-server 7.0.15 wrote it.
    #[test]
    fn payloads_of_redis_are_read_and_written_alike() {
        let one = b"\x00\xc0\x01\n\x00&x\xe7\xb6\xd1\x01\x11\xfc";
        assert_eq!(of_string(Text::Integer(1)), one);
        assert_eq!(read_all(one), Ok((Some(b"1".to_vec()), vec![])));
        let hello = b"\x00\x05hello\n\x00cr\xdfve4 \n";
        assert_eq!(of_string(Text::Bytes(b"hello")), hello);
        let hash = b"\x10\x1e\x1e\x00\x00\x00\x06\x00\x81a\x02\x01\x01\x81b\x02\x85hello\x06\x81c\
                     \x02\xf2p\x11\x01\x04\xff\n\x00\xac\xae\xb3\x13\xa5\xc1a`";
        let fields = [("a", "1"), ("b", "hello"), ("c", "70000")];
        let fields: Vec<_> = fields
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        assert_eq!(read_all(hash), Ok((None, fields)));
        let one_field = hash_of(&[(b"a".to_vec(), b"1".to_vec())]);
        let alone = b"\x10\x0c\x0c\0\0\0\x02\0\x81a\x02\x01\x01\xff";
        assert_eq!(of_hash(&one_field), sealed(alone));
    }

    #[test]
    fn the_footer_must_fit() {
        let good = of_string(Text::Bytes(b"hello"));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(read_all(&bad), Err(Unreadable::Footer));
            assert_eq!(read_all(&good[..at]), Err(Unreadable::Footer));
        }
        for version in [0u16, 1, 6, 9, 11, 12, 0xFFFF] {
            let mut other = b"\0\x01a".to_vec();
            other.extend_from_slice(&version.to_le_bytes());
            let sum = crc64::crc64(0, &other);
            other.extend_from_slice(&sum.to_le_bytes());
            assert_eq!(read_all(&other).is_ok(), version <= 11, "version {version}");
        }
    }

    #[test]
    fn lengths_and_integers_have_several_forms() {
        for (object, expected) in [
            (&b"\0\x00"[..], &b""[..]),
            (b"\0\x01a", b"a"),
            (b"\0\x40\x01a", b"a"),
            (b"\0\x80\0\0\0\x01a", b"a"),
            (b"\0\x81\0\0\0\0\0\0\0\x01a", b"a"),
            (b"\0\xc0\x80", b"-128"),
            (b"\0\xc1\x00\x80", b"-32768"),
            (b"\0\xc2\x00\x00\x00\x80", b"-2147483648"),
            (b"\0\xc3\x09\x40\xc8\x01aa\xe0\xbb\x00\x01aa", &[b'a'; 200]),
        ] {
            assert_eq!(
                read_all(&sealed(object)),
                Ok((Some(expected.to_vec()), vec![]))
            );
        }
    }

    #[test]
    fn damage_is_found_before_memory_is_taken() {
        for object in [
            &b""[..],
            b"\0",
            b"\0\x02a",
            b"\0\x01ab",
            b"\0\x81\xff\xff\xff\xff\xff\xff\xff\xffa",
            b"\0\x80\xff\xff\xff\xffa",
            b"\0\x82",
            b"\0\xc4",
            b"\0\xc1\x01",
            b"\0\xc3\x01\x80\xff\xff\xff\xff\x00",
            b"\0\xc3\x02\x02\x00a",
            b"\0\xc3\x00\x00",
            b"\0\xc3\xc0\x01\x01a",
            b"\x04\x00",
            b"\x04\x01\x01a",
            b"\x04\x80\xff\xff\xff\xff\x01a\x01b",
            b"\x04\xc0\x01\x01a\x01b",
            b"\x08",
            b"\xff",
        ] {
            let read = read_all(&sealed(object));
            assert_eq!(read, Err(Unreadable::Damaged), "{}", object.escape_ascii());
        }
        let mut bomb = b"\0\xc3\x80\x10\x00\x00\x00\x80\x50\x00\x00\x00".to_vec();
        bomb.resize(bomb.len() + 0x1000_0000, 0);
        assert_eq!(read_all(&sealed(&bomb)), Err(Unreadable::TooLarge));
    }

    #[test]
    fn other_types_are_named() {
        for (object_type, name) in [
            (18, "list"),
            (20, "set"),
            (17, "sorted set"),
            (21, "stream"),
        ] {
            let read = read_all(&sealed(&[object_type, 0]));
            assert_eq!(read, Err(Unreadable::Type(name)));
        }
    }

    pub(in super::super) fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..24),
            4 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            4 => (-70_000..70_000i64).prop_map(|n| n.to_string().into_bytes()),
            1 => prop::collection::vec(any::<u8>(), 60..70),
            1 => prop::collection::vec(any::<u8>(), 4_000..5_000),
        ]
    }

    fn fields() -> impl Strategy<Value = Fields> {
        prop::collection::btree_map(text(), text(), 1..30).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_string_is_read_back(bytes in text()) {
            let payload = match crate::keyspace::parse_counter(&bytes) {
                Some(integer) => of_string(Text::Integer(integer)),
                None => of_string(Text::Bytes(&bytes)),
            };
            prop_assert_eq!(read_all(&payload), Ok((Some(bytes), vec![])));
        }

        #[test]
        fn a_hash_is_read_back(fields in fields()) {
            let hash = hash_of(&fields);
            let (string, mut read) = read_all(&of_hash(&hash)).expect("a payload");
            read.sort();
            prop_assert_eq!(string, None);
            prop_assert_eq!(read, fields);
        }

        #[test]
        fn no_damage_makes_the_reader_panic(
            fields in fields(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut payload = of_hash(&hash_of(&fields));
            payload.truncate(payload.len() - FOOTER_BYTES);
            for (place, byte) in changes {
                let place = place.index(payload.len());
                payload[place] = byte;
            }
            if let Some(cut) = cut {
                payload.truncate(cut.index(payload.len()));
            }
            let _ = read_all(&seal(payload));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            object_type in prop::sample::select(&[0u8, 4, 13, 16, 9, 1][..]),
            bytes in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut object = vec![object_type];
            object.extend_from_slice(&bytes);
            let _ = read_all(&seal(object));
            let mut string = vec![object_type];
            put_string(&mut string, &bytes);
            let _ = read_all(&seal(string));
        }
    }
}
