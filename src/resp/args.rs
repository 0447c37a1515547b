//! The arguments of a request: borrowed from the read buffer, or owned.
//!
//! Always true here: each range lies inside the bytes that it belongs to.

use std::ops::RangeFrom;

use smallvec::SmallVec;

/// Start (inclusive) and end (exclusive) of an argument, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range32 {
    /// First byte.
    pub start: u32,
    /// One behind the last byte.
    pub end: u32,
}

/// The arguments of a request, borrowed: bytes and the ranges in them. The first is the name.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [Range32],
}

impl<'a> Args<'a> {
    /// The ranges must lie inside `bytes`.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], ranges: &'a [Range32]) -> Self {
        Args { bytes, ranges }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Argument `index`. Panics if there are not so many: the table checks the arity before.
    #[inline]
    pub fn get(&self, index: usize) -> &'a [u8] {
        let range = self.ranges[index];
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Argument `index`, if there is one.
    #[inline]
    pub fn try_get(&self, index: usize) -> Option<&'a [u8]> {
        let range = self.ranges.get(index)?;
        Some(&self.bytes[range.start as usize..range.end as usize])
    }

    /// The arguments from `from.start` on; none if there are not so many.
    #[inline]
    pub fn slice(&self, from: RangeFrom<usize>) -> Args<'a> {
        let ranges = self.ranges.get(from).unwrap_or(&[]);
        Args {
            bytes: self.bytes,
            ranges,
        }
    }

    /// All arguments in order.
    #[inline]
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        let bytes = self.bytes;
        self.ranges
            .iter()
            .map(move |range| &bytes[range.start as usize..range.end as usize])
    }

    /// The sum of the arguments' lengths, in bytes.
    pub fn bytes_total(&self) -> usize {
        self.ranges
            .iter()
            .map(|range| (range.end - range.start) as usize)
            .sum()
    }
}

impl std::fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.iter().map(String::from_utf8_lossy))
            .finish()
    }
}

/// The arguments of a request that outlives its read buffer: queued by MULTI, or sent to another
/// shard. One buffer holds the bytes of all.
#[derive(Clone, Default)]
pub struct OwnedArgs {
    bytes: Box<[u8]>,
    ranges: SmallVec<[Range32; 4]>,
}

impl OwnedArgs {
    /// From any arguments in order. Panics above 4 GiB together: no request is so long.
    pub fn from_slices<'s>(arguments: impl IntoIterator<Item = &'s [u8], IntoIter: Clone>) -> Self {
        let arguments = arguments.into_iter();
        // One allocation of the right size: this is done for every command that waits or travels.
        let mut bytes = Vec::with_capacity(arguments.clone().map(<[u8]>::len).sum());
        let mut ranges = SmallVec::new();
        for argument in arguments {
            let start = bytes.len();
            bytes.extend_from_slice(argument);
            assert!(
                bytes.len() <= u32::MAX as usize,
                "arguments of more than 4 GiB"
            );
            ranges.push(Range32 {
                start: start as u32,
                end: bytes.len() as u32,
            });
        }
        OwnedArgs {
            bytes: bytes.into_boxed_slice(),
            ranges,
        }
    }

    /// The arguments, borrowed.
    #[inline]
    pub fn args(&self) -> Args<'_> {
        Args {
            bytes: &self.bytes,
            ranges: &self.ranges,
        }
    }

    /// Bytes of memory outside the struct itself.
    pub fn heap_bytes(&self) -> usize {
        let spilled = if self.ranges.spilled() {
            self.ranges.capacity()
        } else {
            0
        };
        self.bytes.len() + spilled * size_of::<Range32>()
    }
}

impl From<Args<'_>> for OwnedArgs {
    fn from(args: Args<'_>) -> Self {
        let mut bytes = Vec::with_capacity(args.bytes_total());
        let mut ranges = SmallVec::with_capacity(args.len());
        for argument in args.iter() {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(argument);
            ranges.push(Range32 {
                start,
                end: bytes.len() as u32,
            });
        }
        OwnedArgs {
            bytes: bytes.into_boxed_slice(),
            ranges,
        }
    }
}

impl std::fmt::Debug for OwnedArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.args().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_sliced_and_owned() {
        let request = OwnedArgs::from_slices([&b"SET"[..], b"a", b"b c"]);
        let args = request.args();
        assert_eq!(args.len(), 3);
        assert_eq!(args.get(2), b"b c");
        assert_eq!(
            (args.try_get(0), args.try_get(3)),
            (Some(&b"SET"[..]), None)
        );
        assert_eq!(args.bytes_total(), 7);
        assert_eq!(
            args.slice(1..).iter().collect::<Vec<_>>(),
            [&b"a"[..], b"b c"]
        );
        assert!(args.slice(3..).is_empty() && args.slice(9..).is_empty());
        let owned = OwnedArgs::from(args.slice(1..));
        assert_eq!(format!("{owned:?}"), r#"["a", "b c"]"#);
        assert_eq!(owned.heap_bytes(), 4);
        assert_eq!(
            OwnedArgs::from_slices(vec![&b"ab"[..]; 5]).heap_bytes(),
            10 + 8 * 8
        );
    }
}
