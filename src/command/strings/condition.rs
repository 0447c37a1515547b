//! The conditions under which SET, MSETEX and DELEX act: NX, XX, IFEQ, IFNE, IFDEQ, IFDNE.

use xxhash_rust::xxh3::xxh3_64;

use crate::command::spec::{Arg, Type, Word};
use crate::keyspace::{Key, Txn};
use crate::reply::Reject;
use crate::resp::decode::Args;

/// When a command acts on a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// NX: there is no key.
    Missing,
    /// XX: there is a key.
    Exists,
    /// IFEQ: the string is this one.
    Equal(Word),
    /// IFNE: the string is another one, or there is no key.
    Differs(Word),
    /// IFDEQ: the string has this digest.
    DigestEqual(u64),
    /// IFDNE: the string has another digest, or there is no key.
    DigestDiffers(u64),
}

impl Condition {
    /// Whether it is met.
    ///
    /// # Errors
    /// WRONGTYPE where the string is asked for and the key holds something else.
    pub fn is_met(self, txn: &mut Txn<'_>, key: &Key<'_>, args: Args<'_>) -> Result<bool, Reject> {
        Ok(match self {
            Condition::Always => true,
            Condition::Missing => !txn.exists(key),
            Condition::Exists => txn.exists(key),
            Condition::Equal(word) => {
                compare(txn, key, |bytes| bytes == args.word(word))? == Some(true)
            }
            Condition::Differs(word) => {
                compare(txn, key, |bytes| bytes == args.word(word))? != Some(true)
            }
            Condition::DigestEqual(hash) => {
                compare(txn, key, |bytes| digest(bytes) == hash)? == Some(true)
            }
            Condition::DigestDiffers(hash) => {
                compare(txn, key, |bytes| digest(bytes) == hash)? != Some(true)
            }
        })
    }
}

/// What `same` says about the string at a key; nothing if there is no key.
fn compare(
    txn: &mut Txn<'_>,
    key: &Key<'_>,
    same: impl FnOnce(&[u8]) -> bool,
) -> Result<Option<bool>, Reject> {
    Ok(txn.string(key)?.map(|text| text.with(same)))
}

/// The digest of a string: XXH3-64 without a seed, as in Redis 8.4.
pub fn digest(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Reads 16 hexadecimal digits of either case.
fn parse_digest(text: &[u8]) -> Result<u64, Reject> {
    const INVALID: Reject = Reject::fixed("ERR digest must be exactly 16 hexadecimal characters");
    if text.len() != 16 || !text.iter().all(u8::is_ascii_hexdigit) {
        return Err(INVALID);
    }
    let digits = std::str::from_utf8(text).map_err(|_| INVALID)?;
    u64::from_str_radix(digits, 16).map_err(|_| INVALID)
}

/// A command with a condition.
pub trait HasCondition: 'static {
    /// Where it is kept.
    fn condition(&mut self) -> &mut Condition;
}

/// The conditions as arguments of the command `C`.
pub struct ConditionArgs<C>(std::marker::PhantomData<C>);

impl<C: HasCondition> ConditionArgs<C> {
    /// `NX`
    pub const NX: Arg<C> = Arg::flag("NX", "only if there is no key", |command: &mut C| {
        *command.condition() = Condition::Missing;
    });
    /// `XX`
    pub const XX: Arg<C> = Arg::flag("XX", "only if there is a key", |command: &mut C| {
        *command.condition() = Condition::Exists;
    });
    /// `IFEQ value`
    pub const IFEQ: Arg<C> = Arg::text(
        "ifeq-value",
        "only if the string is this one",
        |command: &mut C, word| *command.condition() = Condition::Equal(word),
    )
    .after("IFEQ")
    .once();
    /// `IFNE value`
    pub const IFNE: Arg<C> = Arg::text(
        "ifne-value",
        "only if the string is another one or missing",
        |command: &mut C, word| *command.condition() = Condition::Differs(word),
    )
    .after("IFNE")
    .once();
    /// `IFDEQ digest`
    pub const IFDEQ: Arg<C> = Arg::parsed(
        "ifdeq-digest",
        "only if the string has this digest",
        Type::Text,
        |command: &mut C, text, _| {
            *command.condition() = Condition::DigestEqual(parse_digest(text)?);
            Ok(())
        },
    )
    .after("IFDEQ")
    .once();
    /// `IFDNE digest`
    pub const IFDNE: Arg<C> = Arg::parsed(
        "ifdne-digest",
        "only if the string has another digest or is missing",
        Type::Text,
        |command: &mut C, text, _| {
            *command.condition() = Condition::DigestDiffers(parse_digest(text)?);
            Ok(())
        },
    )
    .after("IFDNE")
    .once();
}
