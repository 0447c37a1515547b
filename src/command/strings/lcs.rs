//! LCS: the longest common subsequence of two strings, by the table that every textbook has.
//!
//! Always true: the table is at most as large as the largest string; larger ones are refused before
//! anything is copied.

use crate::command::KeyCommand;
use crate::command::spec::{Arg, Group, Spec, Word};
use crate::keyspace::Txn;
use crate::limits::STRING_BYTES_MAX;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

const NOT_STRINGS: Reject = Reject::fixed("ERR The specified keys must contain string values");
const TOO_LARGE: Reject =
    Reject::fixed("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
const NO_MEMORY: Reject =
    Reject::fixed("ERR Insufficient memory, failed allocating transient memory for LCS");
const BOTH_LEN_AND_IDX: Reject =
    Reject::fixed("ERR If you want both the length and indexes, please just use IDX.");

/// The longest common subsequence.
#[derive(Default)]
pub struct Lcs {
    first: Word,
    second: Word,
    len: bool,
    indexes: bool,
    match_len_min: i64,
    with_match_len: bool,
}

impl KeyCommand for Lcs {
    const SPEC: Spec = Spec::read(
        "lcs",
        Group::String,
        "Returns the longest common subsequence of two strings.",
    )
    .since("7.0.0")
    .complexity("O(N*M) where N and M are the lengths of the strings")
    .keys(1, 2, 1)
    .reply(
        "Bulk string: the subsequence. With LEN, integer: its length in bytes. With IDX, map: \
         `matches`, for each run of both strings, from the end, first and last byte in each; and \
         `len`.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key1", "one key", |c, word| c.first = word),
        Arg::key("key2", "the other key", |c, word| c.second = word),
        Arg::flag("LEN", "return the length alone", |c| c.len = true),
        Arg::flag("IDX", "return where the runs are", |c| c.indexes = true),
        Arg::integer(
            "min-match-len",
            "shortest run that is returned",
            |c: &mut Lcs, len| {
                c.match_len_min = len;
            },
        )
        .after("MINMATCHLEN")
        .optional(),
        Arg::flag("WITHMATCHLEN", "return the length of each run", |c| {
            c.with_match_len = true;
        }),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        if self.len && self.indexes {
            return Err(BOTH_LEN_AND_IDX);
        }
        let (first, second) = (
            txn.key(args.word(self.first)),
            txn.key(args.word(self.second)),
        );
        let mut len_of = |key| match txn.string(key) {
            Ok(text) => Ok(text.map_or(0, |text| text.len())),
            Err(_) => Err(NOT_STRINGS),
        };
        let cells = (len_of(&first)? + 1) * (len_of(&second)? + 1);
        if cells * size_of::<u32>() > STRING_BYTES_MAX {
            return Err(TOO_LARGE);
        }
        let first = txn.string(&first)?.map_or(Vec::new(), |text| text.to_vec());
        let second = txn
            .string(&second)?
            .map_or(Vec::new(), |text| text.to_vec());
        let table = LcsTable::of(&first, &second)?;
        if self.len {
            reply.count(table.len());
        } else if self.indexes {
            self.reply_indexes(&table, reply);
        } else {
            let mut subsequence = Vec::with_capacity(table.len());
            table.runs(|run| {
                subsequence.extend(first[run.first..run.first + run.len].iter().rev());
            });
            subsequence.reverse();
            reply.bulk(&subsequence);
        }
        Ok(())
    }
}

impl Lcs {
    fn reply_indexes(&self, table: &LcsTable<'_>, reply: &mut Reply<'_>) {
        reply.map(2);
        reply.bulk(b"matches");
        let matches = reply.deferred_array();
        let mut count = 0;
        table.runs(|run| {
            if (run.len as i64) < self.match_len_min {
                return;
            }
            count += 1;
            reply.array(2 + usize::from(self.with_match_len));
            for from in [run.first, run.second] {
                reply.array(2);
                reply.count(from);
                reply.count(from + run.len - 1);
            }
            if self.with_match_len {
                reply.count(run.len);
            }
        });
        reply.finish(matches, count);
        reply.bulk(b"len");
        reply.count(table.len());
    }
}

/// Bytes that follow each other in both strings.
struct Run {
    first: usize,
    second: usize,
    len: usize,
}

/// At (i, j): the length of the longest common subsequence of the first i bytes of one string and
/// the first j bytes of the other.
struct LcsTable<'a> {
    first: &'a [u8],
    second: &'a [u8],
    lens: Vec<u32>,
}

impl<'a> LcsTable<'a> {
    fn of(first: &'a [u8], second: &'a [u8]) -> Result<LcsTable<'a>, Reject> {
        let width = second.len() + 1;
        let mut lens: Vec<u32> = Vec::new();
        lens.try_reserve_exact((first.len() + 1) * width)
            .map_err(|_| NO_MEMORY)?;
        lens.resize(width, 0);
        for byte in first {
            let above = lens.len() - width;
            let mut left = 0;
            lens.push(0);
            for (column, other) in second.iter().enumerate() {
                left = if byte == other {
                    lens[above + column] + 1
                } else {
                    lens[above + column + 1].max(left)
                };
                lens.push(left);
            }
        }
        Ok(LcsTable {
            first,
            second,
            lens,
        })
    }

    fn at(&self, first: usize, second: usize) -> u32 {
        self.lens[first * (self.second.len() + 1) + second]
    }

    fn len(&self) -> usize {
        self.at(self.first.len(), self.second.len()) as usize
    }

    /// The runs of one longest common subsequence, the last one first. Where there are several
    /// subsequences it is the one that Redis finds.
    fn runs(&self, mut visit: impl FnMut(Run)) {
        let (mut i, mut j) = (self.first.len(), self.second.len());
        let mut len = 0;
        while i > 0 && j > 0 {
            let same = self.first[i - 1] == self.second[j - 1];
            if same {
                (i, j, len) = (i - 1, j - 1, len + 1);
            }
            if len > 0 && (!same || i == 0 || j == 0) {
                visit(Run {
                    first: i,
                    second: j,
                    len,
                });
                len = 0;
            }
            if !same {
                if self.at(i - 1, j) > self.at(i, j - 1) {
                    i -= 1;
                } else {
                    j -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn the_subsequence_its_length_and_its_runs() {
        let mut t = Transcript::new();
        t.check("MSET a ohmytext b mynewtext", "OK");
        t.check("LCS a b", "\"mytext\"");
        t.check("LCS a b LEN", "(integer) 6");
        let runs = "1) \"matches\"\n\
                    2) 1) 1) 1) (integer) 4\n         2) (integer) 7\n      \
                    2) 1) (integer) 5\n         2) (integer) 8\n   \
                    2) 1) 1) (integer) 2\n         2) (integer) 3\n      \
                    2) 1) (integer) 0\n         2) (integer) 1\n\
                    3) \"len\"\n4) (integer) 6";
        t.check("LCS a b IDX", runs);
        let long_runs = "1) \"matches\"\n\
                         2) 1) 1) 1) (integer) 4\n         2) (integer) 7\n      \
                         2) 1) (integer) 5\n         2) (integer) 8\n      \
                         3) (integer) 4\n\
                         3) \"len\"\n4) (integer) 6";
        t.check("LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN", long_runs);
        t.check("LCS a missing", "\"\"");
        t.check("LCS a missing LEN", "(integer) 0");
        t.check(
            "LCS a missing IDX",
            "1) \"matches\"\n2) (empty array)\n3) \"len\"\n4) (integer) 0",
        );
        t.check("LCS a a", "\"ohmytext\"");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let mut t = Transcript::new();
        t.make_hash("h");
        t.check(
            "LCS h a",
            "(error) ERR The specified keys must contain string values",
        );
        t.check(
            "LCS a h",
            "(error) ERR The specified keys must contain string values",
        );
        t.check(
            "LCS a b LEN IDX",
            "(error) ERR If you want both the length and indexes, please just use IDX.",
        );
        t.check("LCS a b FOO", "(error) ERR syntax error");
        t.check("LCS a b MINMATCHLEN", "(error) ERR syntax error");
        t.check("SETRANGE a 20000 x", "(integer) 20001");
        t.check("SETRANGE b 20000 x", "(integer) 20001");
        t.check(
            "LCS a b",
            "(error) ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        );
    }
}
