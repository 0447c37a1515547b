//! Requests as bytes, and stored replies in the other protocol.

/// Encoded bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Appends a request as a client sends it.
pub fn encode_command(args: &[&[u8]], out: &mut Vec<u8>) {
    let _ = (args, out);
    todo!()
}

/// Appends the replies in `resp3` (any number, complete) as RESP2.
pub fn transcode_to_resp2(resp3: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let _ = (resp3, out);
    todo!()
}
