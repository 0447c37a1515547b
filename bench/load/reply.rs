//! Finds the ends of replies and looks into them; nothing is copied.

/// What one whole reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its bytes.
    pub bytes: usize,
    /// An error is in it, at the top or deeper.
    pub error: bool,
}

/// The reply at the beginning of `buffer`; nothing if it is not whole yet.
///
/// # Errors
/// What is there is no reply.
pub fn next(buffer: &[u8]) -> Result<Option<Found>, String> {
    let mut at = 0;
    let mut wanted = 1_usize;
    let mut error = false;
    while wanted > 0 {
        let Some((kind, number, line_end)) = line(buffer, at)? else {
            return Ok(None);
        };
        at = line_end;
        wanted -= 1;
        match kind {
            b'-' => error = true,
            b'$' | b'=' | b'!' if number >= 0 => {
                error |= kind == b'!';
                at += number as usize + 2;
                if at > buffer.len() {
                    return Ok(None);
                }
            }
            b'*' | b'~' | b'>' => wanted += number.max(0) as usize,
            b'%' => wanted += 2 * number.max(0) as usize,
            _ => {}
        }
    }
    Ok(Some(Found { bytes: at, error }))
}

/// Kind and number of the line at `at`, and where it ends.
fn line(buffer: &[u8], at: usize) -> Result<Option<(u8, i64, usize)>, String> {
    let rest = &buffer[at.min(buffer.len())..];
    let Some(end) = memchr::memchr(b'\n', rest) else {
        return Ok(None);
    };
    let kind = rest[0];
    if !b"+-:$*_,#!=%~>(".contains(&kind) {
        let shown = String::from_utf8_lossy(&rest[..end.min(80)]).into_owned();
        return Err(format!("not a reply: {shown:?}"));
    }
    let mut number = 0_i64;
    if matches!(kind, b'$' | b'*' | b'=' | b'!' | b'%' | b'~' | b'>') {
        let digits = rest[1..end].strip_suffix(b"\r").unwrap_or(&rest[1..end]);
        number = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or("a length that is no number")?;
    }
    Ok(Some((kind, number, at + end + 1)))
}

/// The text of element `index` of an array reply, or of the reply itself if it is no array.
pub fn element(reply: &[u8], index: usize) -> Option<&[u8]> {
    let mut at = 0;
    if reply.first() == Some(&b'*') {
        let (_, elements, end) = line(reply, 0).ok()??;
        if index as i64 >= elements {
            return None;
        }
        at = end;
        for _ in 0..index {
            at += next(&reply[at..]).ok()??.bytes;
        }
    } else if index > 0 {
        return None;
    }
    let (kind, number, end) = line(reply, at).ok()??;
    match kind {
        b'$' if number >= 0 => reply.get(end..end + number as usize),
        b'+' | b'-' | b':' => reply[at + 1..end].strip_suffix(b"\r\n"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_found_only_when_it_is_whole() {
        let replies: [&[u8]; 8] = [
            b"+OK\r\n",
            b":12\r\n",
            b"$3\r\nabc\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*3\r\n:1\r\n*2\r\n$1\r\na\r\n+b\r\n$0\r\n\r\n",
            b"%1\r\n+a\r\n_\r\n",
        ];
        for reply in replies {
            for cut in 0..reply.len() {
                assert_eq!(next(&reply[..cut]), Ok(None), "{reply:?} at {cut}");
            }
            let mut more = reply.to_vec();
            more.extend_from_slice(b"+next\r\n");
            let bytes = reply.len();
            assert_eq!(
                next(&more),
                Ok(Some(Found {
                    bytes,
                    error: false
                }))
            );
        }
        assert!(next(b"HTTP/1.1 400\r\n").is_err());
    }

    #[test]
    fn an_error_is_seen_at_any_depth() {
        for reply in [&b"-ERR no\r\n"[..], b"*2\r\n:1\r\n-ERR no\r\n"] {
            assert!(next(reply).unwrap().unwrap().error);
        }
    }

    #[test]
    fn elements_are_found_by_number() {
        let reply = b"*3\r\n$7\r\nSTARTED\r\n:901\r\n*1\r\n:1\r\n";
        assert_eq!(element(reply, 0), Some(&b"STARTED"[..]));
        assert_eq!(element(reply, 1), Some(&b"901"[..]));
        assert_eq!(element(reply, 2), None);
        assert_eq!(element(reply, 3), None);
        assert_eq!(element(b":7\r\n", 0), Some(&b"7"[..]));
    }
}
