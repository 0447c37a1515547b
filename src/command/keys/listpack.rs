//! Listpacks: the form in which Redis 7 dumps small hashes. Total length (4 bytes, little-endian),
//! number of elements (2), elements, 0xFF. Each element ends with its own length, so that it can
//! be read from behind.
//!
//! Always true: every length is checked against the bytes that are there; what is written is what
//! Redis itself would write for these elements in this order.

use super::payload::{OnField, Reader, Unreadable};
use crate::keyspace::Hash;
use crate::number::parse_i64;

const HEADER_BYTES: usize = 6;
const END: u8 = 0xFF;
/// The number of elements when it does not fit.
const COUNT_UNKNOWN: u16 = u16::MAX;

/// An element of a list of strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// Its decimal is the string.
    Integer(i64),
    /// The string.
    Text(&'a [u8]),
}

impl Element<'_> {
    fn with<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Element::Integer(integer) => f(itoa::Buffer::new().format(integer).as_bytes()),
            Element::Text(bytes) => f(bytes),
        }
    }
}

/// Gives names and values that follow each other to `on_field`; at least one pair.
pub(super) fn pairs<'a>(
    mut elements: impl Iterator<Item = Result<Element<'a>, Unreadable>>,
    on_field: &mut OnField<'_>,
) -> Result<(), Unreadable> {
    let mut any = false;
    while let Some(name) = elements.next() {
        let name = name?;
        let value = elements.next().ok_or(Unreadable::Damaged)??;
        name.with(|name| value.with(|value| on_field(name, value)))?;
        any = true;
    }
    if any {
        Ok(())
    } else {
        Err(Unreadable::Damaged)
    }
}

// ---- writing ---------------------------------------------------------------------------------

/// The fields of a hash; there must be few and short ones.
pub(super) fn of_hash(hash: &Hash) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for field in hash.iter() {
        put(&mut out, &element_of(field.name()));
        match field.value.text() {
            Some(text) => put(&mut out, &element_of(text)),
            None => put(
                &mut out,
                &Element::Integer(field.value.counter().unwrap_or(0)),
            ),
        }
    }
    out.push(END);
    let total = out.len() as u32;
    out[..4].copy_from_slice(&total.to_le_bytes());
    let count = u16::try_from(hash.len() * 2).unwrap_or(COUNT_UNKNOWN);
    out[4..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
    out
}

fn element_of(text: &[u8]) -> Element<'_> {
    parse_i64(text).map_or(Element::Text(text), Element::Integer)
}

fn put(out: &mut Vec<u8>, element: &Element<'_>) {
    let start = out.len();
    match *element {
        Element::Integer(integer) => put_integer(out, integer),
        Element::Text(text) => {
            match text.len() {
                length @ 0..64 => out.push(0x80 | length as u8),
                length @ 64..4096 => {
                    out.extend_from_slice(&(length as u16 | 0xE000).to_be_bytes());
                }
                length => {
                    out.push(0xF0);
                    out.extend_from_slice(&(length as u32).to_le_bytes());
                }
            }
            out.extend_from_slice(text);
        }
    }
    let (length, bytes) = back_length(out.len() - start);
    out.extend_from_slice(&length[..bytes]);
}

fn put_integer(out: &mut Vec<u8>, integer: i64) {
    let bytes = integer.to_le_bytes();
    match integer {
        0..=127 => out.push(integer as u8),
        -4096..=4095 => {
            out.extend_from_slice(&((integer as u16 & 0x1FFF) | 0xC000).to_be_bytes());
        }
        -32_768..=32_767 => {
            out.push(0xF1);
            out.extend_from_slice(&bytes[..2]);
        }
        -8_388_608..=8_388_607 => {
            out.push(0xF2);
            out.extend_from_slice(&bytes[..3]);
        }
        -2_147_483_648..=2_147_483_647 => {
            out.push(0xF3);
            out.extend_from_slice(&bytes[..4]);
        }
        _ => {
            out.push(0xF4);
            out.extend_from_slice(&bytes);
        }
    }
}

/// The length of an element as it stands behind it, seven bits a byte, to be read backwards; and
/// how many bytes it takes. The bounds are those of Redis's `lpEncodeBacklen`.
fn back_length(length: usize) -> ([u8; 5], usize) {
    let bytes = match length {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    let mut encoded = [0; 5];
    for (place, byte) in encoded[..bytes].iter_mut().enumerate() {
        let seven = (length >> (7 * (bytes - 1 - place)) & 0x7F) as u8;
        *byte = if place == 0 { seven } else { seven | 0x80 };
    }
    (encoded, bytes)
}

// ---- reading ---------------------------------------------------------------------------------

/// Gives the fields of a hash to `on_field`.
///
/// # Errors
/// It is no listpack, or one without pairs; or what `on_field` says.
pub(super) fn read(bytes: &[u8], on_field: &mut OnField<'_>) -> Result<(), Unreadable> {
    let mut header = Reader::new(bytes);
    let total = u32::from_le_bytes(header.array()?);
    let count = u16::from_le_bytes(header.array()?);
    let body = header.take(header.left().checked_sub(1).ok_or(Unreadable::Damaged)?)?;
    if total as usize != bytes.len() || header.byte()? != END {
        return Err(Unreadable::Damaged);
    }
    let mut reader = Reader::new(body);
    let mut seen = 0;
    let elements = std::iter::from_fn(|| {
        if reader.is_empty() {
            return None;
        }
        seen += 1;
        Some(element(&mut reader))
    });
    pairs(elements, on_field)?;
    if count != COUNT_UNKNOWN && seen != usize::from(count) {
        return Err(Unreadable::Damaged);
    }
    Ok(())
}

fn element<'a>(reader: &mut Reader<'a>) -> Result<Element<'a>, Unreadable> {
    let before = reader.left();
    let first = reader.byte()?;
    let element = match first {
        0x00..=0x7F => Element::Integer(first.into()),
        0x80..=0xBF => Element::Text(reader.take((first & 0x3F).into())?),
        0xC0..=0xDF => {
            let raw = i64::from(first & 0x1F) << 8 | i64::from(reader.byte()?);
            Element::Integer(if raw >= 4096 { raw - 8192 } else { raw })
        }
        0xE0..=0xEF => {
            let length = usize::from(first & 0x0F) << 8 | usize::from(reader.byte()?);
            Element::Text(reader.take(length)?)
        }
        0xF0 => {
            let length = u32::from_le_bytes(reader.array()?);
            Element::Text(reader.take(length as usize)?)
        }
        0xF1 => Element::Integer(i16::from_le_bytes(reader.array()?).into()),
        0xF2 => Element::Integer(int24(reader.array()?)),
        0xF3 => Element::Integer(i32::from_le_bytes(reader.array()?).into()),
        0xF4 => Element::Integer(i64::from_le_bytes(reader.array()?)),
        _ => return Err(Unreadable::Damaged),
    };
    let (length, bytes) = back_length(before - reader.left());
    if reader.take(bytes)? != &length[..bytes] {
        return Err(Unreadable::Damaged);
    }
    Ok(element)
}

/// A signed integer of three bytes.
pub(super) fn int24([low, middle, high]: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)
}

#[cfg(test)]
mod tests {
    use super::super::payload::tests::{Fields, hash_of};
    use super::*;

    fn read_all(bytes: &[u8]) -> Result<Fields, Unreadable> {
        let mut fields = Vec::new();
        read(bytes, &mut |name, value| {
            fields.push((name.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(fields)
    }

    #[test]
    fn integers_take_the_shortest_form() {
        for (integer, encoded) in [
            (0, &b"\x00"[..]),
            (127, b"\x7f"),
            (128, b"\xc0\x80"),
            (-1, b"\xdf\xff"),
            (4095, b"\xcf\xff"),
            (-4096, b"\xd0\x00"),
            (4096, b"\xf1\x00\x10"),
            (-32_768, b"\xf1\x00\x80"),
            (32_768, b"\xf2\x00\x80\x00"),
            (-8_388_608, b"\xf2\x00\x00\x80"),
            (8_388_608, b"\xf3\x00\x00\x80\x00"),
            (i64::MIN, b"\xf4\x00\x00\x00\x00\x00\x00\x00\x80"),
        ] {
            let mut out = Vec::new();
            put(&mut out, &Element::Integer(integer));
            assert_eq!(&out[..out.len() - 1], encoded, "{integer}");
            assert_eq!(
                element(&mut Reader::new(&out)),
                Ok(Element::Integer(integer))
            );
        }
    }

    #[test]
    fn texts_of_all_lengths_are_read_back() {
        for length in [
            0, 1, 63, 64, 127, 128, 4095, 4096, 16_380, 16_390, 2_100_000,
        ] {
            let text = vec![b'x'; length];
            let mut out = Vec::new();
            put(&mut out, &Element::Text(&text));
            let mut reader = Reader::new(&out);
            assert_eq!(element(&mut reader), Ok(Element::Text(&text)));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn every_changed_length_is_found() {
        let good = of_hash(&hash_of(&[(b"a".to_vec(), b"1".to_vec())]));
        assert_eq!(read_all(&good), Ok(vec![(b"a".to_vec(), b"1".to_vec())]));
        for (at, byte) in [(0, 0), (4, 3), (6, 0x82), (8, 1), (10, 2), (11, 0xFE)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(read_all(&bad), Err(Unreadable::Damaged), "byte {at}");
        }
        let mut unknown = good.clone();
        unknown[4..6].copy_from_slice(&[0xFF, 0xFF]);
        assert_eq!(read_all(&unknown).map(|fields| fields.len()), Ok(1));
        for cut in 0..good.len() {
            assert_eq!(read_all(&good[..cut]), Err(Unreadable::Damaged));
        }
        let empty = b"\x07\0\0\0\0\0\xff";
        assert_eq!(read_all(empty), Err(Unreadable::Damaged));
        let odd = b"\x09\0\0\0\x01\0\x01\x01\xff";
        assert_eq!(read_all(odd), Err(Unreadable::Damaged));
    }
}
