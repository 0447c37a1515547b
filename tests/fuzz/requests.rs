//! The request reader: what it takes for an array of arguments, redis-protocol takes for the same;
//! and bytes that come in pieces are read as if they had come at once.

use redis_protocol::resp2::{decode::decode, types::OwnedFrame};
use tallyman::resp::decode::{DecodeLimits, Decoded, Decoder};

use crate::{Outcome, kind_of};

const LIMITS: DecodeLimits = DecodeLimits {
    args_max: 1_000,
    bulk_bytes_max: 100_000,
    request_bytes_max: 1_000_000,
    authenticated: true,
};

pub fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 9] = [
        b"*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\n",
        b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\n",
        b"PING\r\n",
        b"SET a \"x\\x00\\n\\\"y\" 'z\\'' \r\n",
        b"*0\r\n*-1\r\n\r\n",
        b"*2\r\n$3\r\nGET\r\n$536870913\r\n",
        b"*1048577\r\n",
        b"*1\r\n+PING\r\n",
    ];
    texts.iter().map(|text| text.to_vec()).collect()
}

/// What the reader makes of all of it: requests, and the error that ended it.
#[derive(Debug, PartialEq)]
struct Readout {
    requests: Vec<(usize, Vec<Vec<u8>>)>,
    error: Option<String>,
    consumed: usize,
}

fn read(input: &[u8], piece: usize) -> Readout {
    let mut decoder = Decoder::new();
    let (mut requests, mut begin, mut end) = (Vec::new(), 0, 0);
    loop {
        match decoder.decode(&input[begin..end], &LIMITS) {
            Ok(Decoded::Incomplete { want }) => {
                assert!(want > 0, "wants nothing");
                if end == input.len() {
                    break;
                }
                end = input.len().min(end + piece);
            }
            Ok(Decoded::Request { consumed }) => {
                assert!((1..=end - begin).contains(&consumed));
                let args = decoder.args(&input[begin..end]);
                assert!(!args.is_empty());
                requests.push((begin, args.iter().map(<[u8]>::to_vec).collect()));
                begin += consumed;
            }
            Ok(Decoded::Empty { consumed }) => {
                assert!((1..=end - begin).contains(&consumed));
                begin += consumed;
            }
            Err(error) => {
                assert!(!error.text().contains(['\r', '\n']));
                let error = Some(error.text().to_owned());
                return Readout {
                    requests,
                    error,
                    consumed: begin,
                };
            }
        }
    }
    Readout {
        requests,
        error: None,
        consumed: begin,
    }
}

pub fn act(input: &[u8]) -> Outcome {
    let whole = read(input, usize::MAX - input.len());
    for piece in [1, 2, 7] {
        let pieces = read(input, piece);
        // A text with a long line may be refused before its end has come; the rest is the same.
        assert_eq!(pieces.requests, whole.requests, "in pieces of {piece}");
        assert_eq!(pieces.error, whole.error, "in pieces of {piece}");
    }
    for (at, args) in &whole.requests {
        if input[*at] == b'*' {
            assert_eq!(
                oracle(&input[*at..]).as_ref(),
                Some(args),
                "the oracle reads it otherwise"
            );
        }
    }
    // What the oracle takes for a request where this reader stopped, this reader has to take.
    let rest = &input[whole.consumed..];
    if let Some(args) = oracle(rest).filter(|_| rest.first() == Some(&b'*')) {
        let fits = args.iter().all(|arg| arg.len() <= LIMITS.bulk_bytes_max);
        let refused = whole.error.is_some() && canonical(rest, &args);
        assert!(
            !(fits && refused && args.len() <= LIMITS.args_max),
            "refused: {args:?}"
        );
    }
    kind_of(whole.error.as_deref().unwrap_or("")) ^ whole.requests.len().min(4) as u64
}

/// An array of bulk strings at the beginning, as redis-protocol reads it. It does not bear deep
/// nesting, so that is kept from it.
fn oracle(input: &[u8]) -> Option<Vec<Vec<u8>>> {
    if input.iter().filter(|byte| **byte == b'*').count() > 50 {
        return oracle_of_flat(input);
    }
    match decode(input) {
        Ok(Some((OwnedFrame::Array(frames), _))) => texts(frames),
        _ => None,
    }
}

/// With many asterisks it is asked only about the first request, which this rebuilds.
fn oracle_of_flat(input: &[u8]) -> Option<Vec<Vec<u8>>> {
    let first = read(input, usize::MAX - input.len())
        .requests
        .into_iter()
        .next();
    first.map(|(_, args)| args)
}

fn texts(frames: Vec<OwnedFrame>) -> Option<Vec<Vec<u8>>> {
    let texts = frames.into_iter().map(|frame| match frame {
        OwnedFrame::BulkString(text) => Some(text),
        _ => None,
    });
    texts
        .collect::<Option<Vec<_>>>()
        .filter(|all| !all.is_empty())
}

/// Whether `input` begins with these arguments as every client writes them: no signs or zeros in
/// front of a number, which the two readers need not see alike.
fn canonical(input: &[u8], args: &[Vec<u8>]) -> bool {
    let mut text = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        text.extend(format!("${}\r\n", arg.len()).bytes());
        text.extend(arg);
        text.extend(b"\r\n");
    }
    input.starts_with(&text)
}
