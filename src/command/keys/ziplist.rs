//! Ziplists: the form in which Redis 2.6 to 6.2 dumped small hashes; only read. Total length (4
//! bytes, little-endian), place of the last element (4), number of elements (2), elements, 0xFF.
//! Each element begins with the length of the one before it.
//!
//! Always true: every length is checked against the bytes that are there.

use super::listpack::{Element, int24, pairs};
use super::payload::{OnField, Reader, Unreadable};

const HEADER_BYTES: usize = 10;
const END: u8 = 0xFF;
/// The number of elements when it does not fit.
const COUNT_UNKNOWN: u16 = u16::MAX;

/// Gives the fields of a hash to `on_field`.
///
/// # Errors
/// It is no ziplist, or one without pairs; or what `on_field` says.
pub(super) fn read(bytes: &[u8], on_field: &mut OnField<'_>) -> Result<(), Unreadable> {
    let mut header = Reader::new(bytes);
    let total = u32::from_le_bytes(header.array()?);
    let tail = u32::from_le_bytes(header.array()?);
    let count = u16::from_le_bytes(header.array()?);
    let body = header.take(header.left().checked_sub(1).ok_or(Unreadable::Damaged)?)?;
    if total as usize != bytes.len() || header.byte()? != END {
        return Err(Unreadable::Damaged);
    }
    let mut reader = Reader::new(body);
    let (mut seen, mut last_at, mut last_bytes) = (0, HEADER_BYTES, 0);
    let elements = std::iter::from_fn(|| {
        if reader.is_empty() {
            return None;
        }
        let before = reader.left();
        seen += 1;
        last_at = HEADER_BYTES + body.len() - before;
        let element = element(&mut reader, last_bytes);
        last_bytes = before - reader.left();
        Some(element)
    });
    pairs(elements, on_field)?;
    let counted = count == COUNT_UNKNOWN || seen == usize::from(count);
    if counted && tail as usize == last_at {
        Ok(())
    } else {
        Err(Unreadable::Damaged)
    }
}

fn element<'a>(reader: &mut Reader<'a>, bytes_before: usize) -> Result<Element<'a>, Unreadable> {
    let told = match reader.byte()? {
        254 => u32::from_le_bytes(reader.array()?) as usize,
        255 => return Err(Unreadable::Damaged),
        short => short.into(),
    };
    if told != bytes_before {
        return Err(Unreadable::Damaged);
    }
    let first = reader.byte()?;
    Ok(match first {
        0x00..=0x3F => Element::Text(reader.take(first.into())?),
        0x40..=0x7F => {
            let length = usize::from(first & 0x3F) << 8 | usize::from(reader.byte()?);
            Element::Text(reader.take(length)?)
        }
        0x80 => {
            let length = u32::from_be_bytes(reader.array()?);
            Element::Text(reader.take(length as usize)?)
        }
        0xC0 => Element::Integer(i16::from_le_bytes(reader.array()?).into()),
        0xD0 => Element::Integer(i32::from_le_bytes(reader.array()?).into()),
        0xE0 => Element::Integer(i64::from_le_bytes(reader.array()?)),
        0xF0 => Element::Integer(int24(reader.array()?)),
        0xFE => Element::Integer((reader.byte()? as i8).into()),
        0xF1..=0xFD => Element::Integer(i64::from(first & 0x0F) - 1),
        _ => return Err(Unreadable::Damaged),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<(String, String)>, Unreadable> {
        let mut fields = Vec::new();
        read(bytes, &mut |name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            fields.push((text(name), text(value)));
            Ok(())
        })?;
        Ok(fields)
    }

    /// Puts header and end around elements, given without the length of the one before.
    fn ziplist(elements: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        let (mut tail, mut before) = (HEADER_BYTES, 0);
        for element in elements {
            tail = bytes.len();
            if before < 254 {
                bytes.push(before as u8);
            } else {
                bytes.push(254);
                bytes.extend_from_slice(&(before as u32).to_le_bytes());
            }
            bytes.extend_from_slice(element);
            before = bytes.len() - tail;
        }
        bytes.push(END);
        let total = bytes.len() as u32;
        bytes[..4].copy_from_slice(&total.to_le_bytes());
        bytes[4..8].copy_from_slice(&(tail as u32).to_le_bytes());
        bytes[8..10].copy_from_slice(&(elements.len() as u16).to_le_bytes());
        bytes
    }

    #[test]
    fn all_forms_of_elements_are_read() {
        let long = [&b"\x41\x2c"[..], &[b'y'; 300]].concat();
        let longer = [&b"\x80\0\0\x01\x2c"[..], &[b'z'; 300]].concat();
        let bytes = ziplist(&[
            b"\x01a",
            &long,
            b"\x00",
            &longer,
            b"\xf1",
            b"\xfd",
            b"\xfe\x80",
            b"\xc0\xff\x7f",
            b"\xf0\x00\x00\x80",
            b"\xd0\x00\x00\x00\x80",
            b"\xe0\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x01b",
        ]);
        let expected = [
            ("a", "y".repeat(300)),
            ("", "z".repeat(300)),
            ("0", "12".into()),
            ("-128", "32767".into()),
            ("-8388608", "-2147483648".into()),
            ("9223372036854775807", "b".into()),
        ];
        let expected: Vec<_> = expected.map(|(name, value)| (name.into(), value)).into();
        assert_eq!(read_all(&bytes), Ok(expected));
    }

    #[test]
    fn every_changed_length_is_found() {
        let good = ziplist(&[b"\x01a", b"\x01b", b"\x01c", b"\xf2"]);
        assert_eq!(read_all(&good).map(|fields| fields.len()), Ok(2));
        for at in [0, 4, 8, 10, 11, 13, 16, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(read_all(&bad), Err(Unreadable::Damaged), "byte {at}");
        }
        for cut in 0..good.len() {
            assert_eq!(read_all(&good[..cut]), Err(Unreadable::Damaged));
        }
        assert_eq!(read_all(&ziplist(&[])), Err(Unreadable::Damaged));
        assert_eq!(read_all(&ziplist(&[b"\x01a"])), Err(Unreadable::Damaged));
    }
}
