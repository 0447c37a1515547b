//! How a command answers: `Reply` writes values in the connection's protocol, `Reject` is an error
//! to the client in Redis's words.
//!
//! Always true here: what is written is well-formed for both protocols, and an error text holds no
//! CR or LF, whatever user input it repeats. Containers are written as a header and then their
//! members: that the number fits is the caller's duty.

use std::borrow::Cow;

use crate::limits::ERROR_ECHO_BYTES_MAX;
use crate::number::format_double;
use crate::resp::Protocol;

/// Writes replies of one connection at the end of its output buffer.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

/// A place in the output, to go back to with `Reply::truncate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

/// A container whose number of members is told at its end; see `Reply::finish`.
#[derive(Debug)]
#[must_use = "the container has no header before `Reply::finish`"]
pub struct Deferred {
    at: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Array,
    Map,
    Set,
}

impl<'a> Reply<'a> {
    /// Replies in `protocol`, appended to `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Reply { out, protocol }
    }

    /// The protocol that replies are written in.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The same reply, borrowed for a shorter time.
    #[inline]
    pub fn reborrow(&mut self) -> Reply<'_> {
        Reply {
            out: self.out,
            protocol: self.protocol,
        }
    }

    /// `HELLO` changes the protocol before it answers.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// A status such as `OK`. The text must not hold CR or LF.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.bytes().any(is_line_end));
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.end_line();
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A count, as an integer.
    #[inline]
    pub fn count(&mut self, value: usize) {
        self.header(b':', value as i64);
    }

    /// A binary-safe string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.header(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.end_line();
    }

    /// A string that holds a decimal integer, as GET of a counter.
    #[inline]
    pub fn bulk_integer(&mut self, value: i64) {
        let mut buffer = itoa::Buffer::new();
        self.bulk(buffer.format(value).as_bytes());
    }

    /// A string, or null.
    #[inline]
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// No value.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// No value where an array was expected (a failed EXEC).
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// An array: `len` replies follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.container(Kind::Array, len);
    }

    /// A map: `len` pairs follow, key and value each as a reply. In RESP2 a flat array.
    pub fn map(&mut self, len: usize) {
        self.container(Kind::Map, len);
    }

    /// A set: `len` replies follow. In RESP2 an array.
    pub fn set(&mut self, len: usize) {
        self.container(Kind::Set, len);
    }

    /// An out-of-band message: `len` replies follow. In RESP2 an array.
    pub fn push(&mut self, len: usize) {
        let kind = if self.protocol == Protocol::Resp3 {
            b'>'
        } else {
            b'*'
        };
        self.header(kind, len as i64);
    }

    /// An array whose length is given to `finish`, after its members.
    pub fn deferred_array(&mut self) -> Deferred {
        Deferred {
            at: self.out.len(),
            kind: Kind::Array,
        }
    }

    /// A map whose number of pairs is given to `finish`.
    pub fn deferred_map(&mut self) -> Deferred {
        Deferred {
            at: self.out.len(),
            kind: Kind::Map,
        }
    }

    /// A set whose length is given to `finish`.
    pub fn deferred_set(&mut self) -> Deferred {
        Deferred {
            at: self.out.len(),
            kind: Kind::Set,
        }
    }

    /// Puts the header before the members that were written since. `len` counts as in `array`,
    /// `map` and `set`. Moves the members once.
    pub fn finish(&mut self, deferred: Deferred, len: usize) {
        assert!(
            deferred.at <= self.out.len(),
            "the container was taken back"
        );
        let members_end = self.out.len();
        self.container(deferred.kind, len);
        let header_bytes = self.out.len() - members_end;
        self.out[deferred.at..].rotate_right(header_bytes);
    }

    /// A floating-point number; in RESP2 as a string.
    pub fn double(&mut self, value: f64) {
        let text = format_double(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk(&text),
            Protocol::Resp3 => self.typed_line(b',', &text),
        }
    }

    /// True or false; in RESP2 1 or 0.
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        });
    }

    /// Text for people; `format` is `txt` or `mkd`. In RESP2 a string.
    pub fn verbatim(&mut self, format: [u8; 3], text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.header(b'=', text.len() as i64 + 4);
                self.out.extend_from_slice(&format);
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.end_line();
            }
        }
    }

    /// An integer of any size as decimal digits; in RESP2 a string.
    pub fn big_number(&mut self, digits: &str) {
        debug_assert!(
            digits
                .trim_start_matches('-')
                .bytes()
                .all(|b| b.is_ascii_digit())
        );
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_bytes()),
            Protocol::Resp3 => self.typed_line(b'(', digits.as_bytes()),
        }
    }

    /// An error.
    pub fn error(&mut self, reject: &Reject) {
        self.typed_line(b'-', reject.text());
    }

    /// Bytes that are a whole reply already, or a part of one.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }

    /// The end of what was written so far.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark(self.out.len())
    }

    /// Takes back what was written since `mark`.
    #[inline]
    pub fn truncate(&mut self, mark: Mark) {
        self.out.truncate(mark.0);
    }

    /// What was written since `mark`.
    pub fn written_since(&self, mark: Mark) -> &[u8] {
        &self.out[mark.0..]
    }

    #[inline]
    fn container(&mut self, kind: Kind, len: usize) {
        let (kind, len) = match (kind, self.protocol) {
            (Kind::Array, _) | (Kind::Set, Protocol::Resp2) => (b'*', len),
            (Kind::Map, Protocol::Resp2) => (b'*', len * 2),
            (Kind::Map, Protocol::Resp3) => (b'%', len),
            (Kind::Set, Protocol::Resp3) => (b'~', len),
        };
        self.header(kind, len as i64);
    }

    /// A type byte, a number and the line's end. Most are one digit.
    #[inline]
    fn header(&mut self, kind: u8, value: i64) {
        if (0..10).contains(&value) {
            self.out
                .extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']);
            return;
        }
        let mut buffer = itoa::Buffer::new();
        self.typed_line(kind, buffer.format(value).as_bytes());
    }

    #[inline]
    fn typed_line(&mut self, kind: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.end_line();
    }

    #[inline]
    fn end_line(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// An error to the client: a code word and a text, as in `ERR syntax error`.
///
/// Nothing was changed by the command that returns it.
#[derive(Clone, PartialEq, Eq)]
pub struct Reject {
    text: Cow<'static, [u8]>,
}

impl Reject {
    /// A fixed text, the code word included; without CR and LF.
    pub const fn fixed(text: &'static str) -> Self {
        Reject {
            text: Cow::Borrowed(text.as_bytes()),
        }
    }

    /// A text with parts of the input, the code word included. CR and LF become spaces.
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        let mut text = text.into();
        for byte in text.iter_mut().filter(|byte| is_line_end(**byte)) {
            *byte = b' ';
        }
        Reject {
            text: Cow::Owned(text),
        }
    }

    /// `ERR {text}`.
    pub fn err(text: impl AsRef<str>) -> Self {
        Self::new(format!("ERR {}", text.as_ref()))
    }

    /// The whole text, code word first, without the leading `-`.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The code word, such as `ERR` or `WRONGTYPE` (INFO's errorstats count by it).
    pub fn code(&self) -> &[u8] {
        self.text
            .split(|&byte| byte == b' ')
            .next()
            .unwrap_or_default()
    }
}

/// Redis's shared errors.
impl Reject {
    /// The key holds a value of another type.
    pub const fn wrong_type() -> Self {
        Self::fixed("WRONGTYPE Operation against a key holding the wrong kind of value")
    }

    /// No decimal 64-bit integer.
    pub const fn not_an_integer() -> Self {
        Self::fixed("ERR value is not an integer or out of range")
    }

    /// No floating-point number.
    pub const fn not_a_float() -> Self {
        Self::fixed("ERR value is not a valid float")
    }

    /// Options that do not fit together or are unknown.
    pub const fn syntax() -> Self {
        Self::fixed("ERR syntax error")
    }

    /// The counter would leave 64 bits.
    pub const fn overflow() -> Self {
        Self::fixed("ERR increment or decrement would overflow")
    }

    /// The floating-point counter would leave its range.
    pub const fn nan_or_infinity() -> Self {
        Self::fixed("ERR increment would produce NaN or Infinity")
    }

    /// The source key is missing.
    pub const fn no_such_key() -> Self {
        Self::fixed("ERR no such key")
    }

    /// An index outside of the value.
    pub const fn index_out_of_range() -> Self {
        Self::fixed("ERR index out of range")
    }

    /// A number outside of what the option allows.
    pub const fn out_of_range() -> Self {
        Self::fixed("ERR value is out of range")
    }

    /// A number that must not be negative.
    pub const fn not_positive() -> Self {
        Self::fixed("ERR value is out of range, must be positive")
    }

    /// A value would become longer than the limit.
    pub const fn string_too_long() -> Self {
        Self::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
    }

    /// SETRANGE's and GETBIT's offset is no offset.
    pub const fn offset_out_of_range() -> Self {
        Self::fixed("ERR offset is out of range")
    }

    /// A bit that is neither 0 nor 1.
    pub const fn bit_not_an_integer() -> Self {
        Self::fixed("ERR bit is not an integer or out of range")
    }

    /// A bit offset that is no integer or too large.
    pub const fn bit_offset() -> Self {
        Self::fixed("ERR bit offset is not an integer or out of range")
    }

    /// A cursor that no SCAN gave out.
    pub const fn invalid_cursor() -> Self {
        Self::fixed("ERR invalid cursor")
    }

    /// SELECT, MOVE, COPY, SWAPDB: no such database.
    pub const fn db_index_out_of_range() -> Self {
        Self::fixed("ERR DB index is out of range")
    }

    /// Source and destination are one key.
    pub const fn same_object() -> Self {
        Self::fixed("ERR source and destination objects are the same")
    }

    /// A timeout that is no number of seconds.
    pub const fn timeout_not_a_number() -> Self {
        Self::fixed("ERR timeout is not an integer or out of range")
    }

    /// A timeout below zero.
    pub const fn timeout_negative() -> Self {
        Self::fixed("ERR timeout is negative")
    }

    /// The command needs an authenticated client.
    pub const fn authentication_required() -> Self {
        Self::fixed("NOAUTH Authentication required.")
    }

    /// Name and password do not fit.
    pub const fn wrong_password() -> Self {
        Self::fixed("WRONGPASS invalid username-password pair or user is disabled.")
    }

    /// HELLO asks for a protocol other than 2 and 3.
    pub const fn unsupported_protocol() -> Self {
        Self::fixed("NOPROTO unsupported protocol version")
    }

    /// A command is running for too long.
    pub const fn busy() -> Self {
        Self::fixed("BUSY the server is busy with a long command, try again later")
    }

    /// The destination exists.
    pub const fn busy_key() -> Self {
        Self::fixed("BUSYKEY Target key name already exists.")
    }

    /// The server is reading its data.
    pub const fn loading() -> Self {
        Self::fixed("LOADING the server is loading its data")
    }

    /// The disk is full.
    pub const fn no_space() -> Self {
        Self::fixed("NOSPACE the disk is full: writes are refused until there is space again")
    }

    /// Memory is full and nothing can be evicted.
    pub const fn out_of_memory() -> Self {
        Self::fixed("OOM command not allowed when used memory > 'maxmemory'.")
    }

    /// A transaction was refused because one of its commands was.
    pub const fn exec_abort() -> Self {
        Self::fixed("EXECABORT Transaction discarded because of previous errors.")
    }

    /// As many clients as the server takes.
    pub const fn max_clients() -> Self {
        Self::fixed("ERR max number of clients reached")
    }

    /// The key is longer than `KEY_BYTES_MAX`.
    pub fn key_too_long() -> Self {
        Self::new(format!(
            "ERR key is longer than {} bytes",
            crate::limits::KEY_BYTES_MAX
        ))
    }

    /// A wrong number of arguments; `name` as the table has it, `client|kill` for a subcommand.
    pub fn wrong_arity(name: &str) -> Self {
        Self::err(format!(
            "wrong number of arguments for '{}' command",
            name.to_lowercase()
        ))
    }

    /// No such command; the arguments behind the name are repeated in part, as in Redis 7.
    pub fn unknown_command<'b>(name: &[u8], args: impl IntoIterator<Item = &'b [u8]>) -> Self {
        let mut text = b"ERR unknown command '".to_vec();
        text.extend_from_slice(&name[..name.len().min(ERROR_ECHO_BYTES_MAX)]);
        text.extend_from_slice(b"', with args beginning with: ");
        let args_start = text.len();
        for arg in args {
            let room = ERROR_ECHO_BYTES_MAX.saturating_sub(text.len() - args_start);
            if room == 0 {
                break;
            }
            text.push(b'\'');
            text.extend_from_slice(&arg[..arg.len().min(room)]);
            text.extend_from_slice(b"' ");
        }
        Self::new(text)
    }

    /// No such subcommand of `command`.
    pub fn unknown_subcommand(command: &str, subcommand: &[u8]) -> Self {
        let mut text = b"ERR unknown subcommand '".to_vec();
        text.extend_from_slice(&subcommand[..subcommand.len().min(ERROR_ECHO_BYTES_MAX)]);
        text.extend_from_slice(b"'. Try ");
        text.extend_from_slice(command.to_uppercase().as_bytes());
        text.extend_from_slice(b" HELP.");
        Self::new(text)
    }

    /// A deadline or lifetime that is no positive time.
    pub fn invalid_expire(command: &str) -> Self {
        Self::err(format!(
            "invalid expire time in '{}' command",
            command.to_lowercase()
        ))
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

impl std::fmt::Debug for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reject({self})")
    }
}

impl std::error::Error for Reject {}

impl From<crate::resp::decode::ProtocolError> for Reject {
    fn from(error: crate::resp::decode::ProtocolError) -> Self {
        Self::err(error.text())
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::value::Value;

    fn written(protocol: Protocol, write: impl FnOnce(&mut Reply<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Reply::new(&mut out, protocol));
        let parsed = Value::parse(&out).expect("malformed").expect("incomplete");
        assert_eq!(parsed.1, out.len(), "more than one reply");
        out.escape_ascii().to_string().replace("\\r\\n", " ")
    }

    #[test]
    fn each_type_has_its_form_in_both_protocols() {
        let check = |resp2: &str, resp3: &str, write: fn(&mut Reply<'_>)| {
            assert_eq!(written(Protocol::Resp2, write), resp2);
            assert_eq!(written(Protocol::Resp3, write), resp3);
        };
        check("+OK ", "+OK ", |reply| reply.ok());
        check("+QUEUED ", "+QUEUED ", |reply| reply.simple("QUEUED"));
        check(":9 ", ":9 ", |reply| reply.integer(9));
        check(":-9223372036854775808 ", ":-9223372036854775808 ", |r| {
            r.integer(i64::MIN)
        });
        check(
            "$12 abc\\x00\\xff1234567 ",
            "$12 abc\\x00\\xff1234567 ",
            |reply| {
                reply.bulk(b"abc\0\xff1234567");
            },
        );
        check("$2 10 ", "$2 10 ", |reply| reply.bulk_integer(10));
        check("$-1 ", "_ ", |reply| reply.null());
        check("$-1 ", "_ ", |reply| reply.bulk_or_null(None));
        check("*-1 ", "_ ", |reply| reply.null_array());
        check("$3 1.5 ", ",1.5 ", |reply| reply.double(1.5));
        check("$3 inf ", ",inf ", |reply| reply.double(f64::INFINITY));
        check(":1 ", "#t ", |reply| reply.boolean(true));
        check(":0 ", "#f ", |reply| reply.boolean(false));
        check("$2 ab ", "=6 txt:ab ", |reply| {
            reply.verbatim(*b"txt", b"ab")
        });
        check("$2 12 ", "(12 ", |reply| reply.big_number("12"));
        check("-ERR syntax error ", "-ERR syntax error ", |r| {
            r.error(&Reject::syntax())
        });
        check("*0 ", "~0 ", |reply| reply.set(0));
        check("*1 :1 ", ">1 :1 ", |reply| {
            reply.push(1);
            reply.integer(1);
        });
    }

    #[test]
    fn a_container_may_tell_its_length_at_the_end() {
        let write = |reply: &mut Reply<'_>| {
            reply.array(2);
            let outer = reply.deferred_map();
            for key in 0..12 {
                reply.integer(key);
                let inner = reply.deferred_array();
                reply.bulk(b"x");
                reply.finish(inner, 1);
            }
            reply.finish(outer, 12);
            let set = reply.deferred_set();
            reply.finish(set, 0);
        };
        let pairs: String = (0..12).map(|key| format!(":{key} *1 $1 x ")).collect();
        assert_eq!(
            written(Protocol::Resp2, write),
            format!("*2 *24 {pairs}*0 ")
        );
        assert_eq!(
            written(Protocol::Resp3, write),
            format!("*2 %12 {pairs}~0 ")
        );
    }

    #[test]
    fn what_was_written_can_be_taken_back() {
        let mut out = b":1\r\n".to_vec();
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        let mark = reply.mark();
        reply.array(5);
        assert_eq!(reply.written_since(mark), b"*5\r\n");
        reply.truncate(mark);
        reply.reborrow().error(&Reject::wrong_type());
        assert!(out.starts_with(b":1\r\n-WRONGTYPE Operation"));
    }

    #[test]
    fn errors_have_the_words_of_redis() {
        let no_args: [&[u8]; 0] = [];
        let text = Reject::unknown_command(b"foo", [&b"a"[..], b"b"]).to_string();
        assert_eq!(
            text,
            "ERR unknown command 'foo', with args beginning with: 'a' 'b' "
        );
        let text = Reject::unknown_command(b"foo", no_args).to_string();
        assert_eq!(
            text,
            "ERR unknown command 'foo', with args beginning with: "
        );
        let text = Reject::unknown_subcommand("client", b"x").to_string();
        assert_eq!(text, "ERR unknown subcommand 'x'. Try CLIENT HELP.");
        let text = Reject::wrong_arity("GET").to_string();
        assert_eq!(text, "ERR wrong number of arguments for 'get' command");
        let text = Reject::invalid_expire("SET").to_string();
        assert_eq!(text, "ERR invalid expire time in 'set' command");
        assert_eq!(Reject::wrong_type().code(), b"WRONGTYPE");
        assert_eq!(Reject::fixed("NOAUTH").code(), b"NOAUTH");
    }

    #[test]
    fn an_error_is_one_line_whatever_it_repeats() {
        let hostile = b"a\r\n+OK\r\n".repeat(1_000);
        let rejects = [
            Reject::unknown_command(&hostile, [&hostile[..], &hostile]),
            Reject::unknown_subcommand("config", &hostile),
            Reject::new(hostile),
        ];
        for reject in rejects {
            assert!(!reject.text().iter().any(|&byte| is_line_end(byte)));
            written(Protocol::Resp2, |reply| reply.error(&reject));
        }
        let long = vec![b'x'; 1_000];
        let args = vec![&long[..]; 100];
        assert!(Reject::unknown_command(&long, args).text().len() < 320);
    }
}
