//! The expiry options that many commands share: EX, PX, EXAT, PXAT, and what goes with them.
//!
//! Always true: a deadline that comes out of here is absolute, in ms since the Unix epoch, and
//! above zero; what cannot be one is refused with the command's name.

use crate::command::KeyCommand;
use crate::command::spec::{Arg, Type};
use crate::keyspace::{Key, Txn};
use crate::number::parse_i64;
use crate::reply::Reject;

/// What a command was told about expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing.
    #[default]
    None,
    /// EX: seconds from now.
    Seconds(i64),
    /// PX: milliseconds from now.
    Milliseconds(i64),
    /// EXAT: Unix time in seconds.
    AtSeconds(i64),
    /// PXAT: Unix time in milliseconds.
    AtMilliseconds(i64),
    /// KEEPTTL: as it is.
    Keep,
    /// PERSIST: none any more.
    Persist,
}

impl Expiry {
    /// The absolute deadline in ms, if one was given. `command` is named in the error.
    ///
    /// # Errors
    /// A time that is not positive or overflows: `invalid expire time in 'set' command`.
    pub fn deadline_ms(self, now_ms: u64, command: &str) -> Result<Option<u64>, Reject> {
        let (amount, unit_ms, base_ms) = match self {
            Expiry::None | Expiry::Keep | Expiry::Persist => return Ok(None),
            Expiry::Seconds(amount) => (amount, 1000, now_ms),
            Expiry::Milliseconds(amount) => (amount, 1, now_ms),
            Expiry::AtSeconds(amount) => (amount, 1000, 0),
            Expiry::AtMilliseconds(amount) => (amount, 1, 0),
        };
        let invalid = || Reject::invalid_expire(command);
        if amount <= 0 {
            return Err(invalid());
        }
        let ms = amount.checked_mul(unit_ms).ok_or_else(invalid)?;
        let at_ms = ms.checked_add(base_ms as i64).ok_or_else(invalid)?;
        Ok(Some(at_ms as u64))
    }

    /// The absolute deadline in ms, if one was given, for what would be pointless if it ended
    /// before it begins.
    ///
    /// # Errors
    /// A time that is no time, or that has passed.
    pub fn future_ms(self, now_ms: u64, command: &str) -> Result<Option<u64>, Reject> {
        let deadline_ms = self.deadline_ms(now_ms, command)?;
        if deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            let text = format!("{command}: the deadline of EXAT or PXAT has passed");
            return Err(Reject::err(text));
        }
        Ok(deadline_ms)
    }
}

/// Sets a string and deadline (0: none) of a key, whatever it was. A deadline that has passed
/// deletes the key, as EXAT and PXAT do in Redis.
pub fn put_until(txn: &mut Txn<'_>, key: &Key<'_>, text: &[u8], deadline_ms: u64) {
    if deadline_ms != 0 && deadline_ms <= txn.now_ms() {
        txn.delete(key);
    } else {
        txn.put_text(key, text, deadline_ms);
    }
}

/// A command with expiry options.
pub trait HasExpiry: 'static {
    /// Where they are kept.
    fn expiry(&mut self) -> &mut Expiry;
}

/// The expiry options as arguments of the command `C`.
pub struct ExpiryArgs<C>(std::marker::PhantomData<C>);

impl<C: HasExpiry> ExpiryArgs<C> {
    /// `EX seconds`
    pub const EX: Arg<C> = Arg::integer(
        "seconds",
        "lifetime in seconds",
        |command: &mut C, amount| {
            *command.expiry() = Expiry::Seconds(amount);
        },
    )
    .after("EX");
    /// `PX milliseconds`
    pub const PX: Arg<C> = Arg::integer(
        "milliseconds",
        "lifetime in milliseconds",
        |command: &mut C, amount| {
            *command.expiry() = Expiry::Milliseconds(amount);
        },
    )
    .after("PX");
    /// `EXAT unix-time-seconds`
    pub const EXAT: Arg<C> = Arg::integer(
        "unix-time-seconds",
        "deadline as Unix time in seconds",
        |command: &mut C, at| {
            *command.expiry() = Expiry::AtSeconds(at);
        },
    )
    .after("EXAT")
    .of(Type::UnixTime);
    /// `PXAT unix-time-milliseconds`
    pub const PXAT: Arg<C> = Arg::integer(
        "unix-time-milliseconds",
        "deadline as Unix time in milliseconds",
        |command: &mut C, at| *command.expiry() = Expiry::AtMilliseconds(at),
    )
    .after("PXAT")
    .of(Type::UnixTime);
    /// `KEEPTTL`
    pub const KEEPTTL: Arg<C> = Arg::flag(
        "KEEPTTL",
        "keep the deadline as it is",
        |command: &mut C| {
            *command.expiry() = Expiry::Keep;
        },
    );
    /// `PERSIST`
    pub const PERSIST: Arg<C> = Arg::flag("PERSIST", "remove the deadline", |command: &mut C| {
        *command.expiry() = Expiry::Persist;
    });
}

/// The expiry options of tallyman's own commands: as Redis's, with errors that name them.
pub struct OwnExpiryArgs<C>(std::marker::PhantomData<C>);

fn integer<C: KeyCommand>(option: &str, text: &[u8]) -> Result<i64, Reject> {
    parse_i64(text).ok_or_else(|| {
        let command = C::SPEC.name.to_ascii_uppercase();
        Reject::err(format!("{command}: {option} must be an integer"))
    })
}

impl<C: HasExpiry + KeyCommand> OwnExpiryArgs<C> {
    /// `EX seconds`
    pub const EX: Arg<C> = Arg::parsed(
        "seconds",
        "lifetime in seconds",
        Type::Integer,
        |command: &mut C, text, _| {
            *command.expiry() = Expiry::Seconds(integer::<C>("EX", text)?);
            Ok(())
        },
    )
    .after("EX");
    /// `PX milliseconds`
    pub const PX: Arg<C> = Arg::parsed(
        "milliseconds",
        "lifetime in milliseconds",
        Type::Integer,
        |command: &mut C, text, _| {
            *command.expiry() = Expiry::Milliseconds(integer::<C>("PX", text)?);
            Ok(())
        },
    )
    .after("PX");
    /// `EXAT unix-time-seconds`
    pub const EXAT: Arg<C> = Arg::parsed(
        "unix-time-seconds",
        "deadline as Unix time in seconds",
        Type::UnixTime,
        |command: &mut C, text, _| {
            *command.expiry() = Expiry::AtSeconds(integer::<C>("EXAT", text)?);
            Ok(())
        },
    )
    .after("EXAT");
    /// `PXAT unix-time-milliseconds`
    pub const PXAT: Arg<C> = Arg::parsed(
        "unix-time-milliseconds",
        "deadline as Unix time in milliseconds",
        Type::UnixTime,
        |command: &mut C, text, _| {
            *command.expiry() = Expiry::AtMilliseconds(integer::<C>("PXAT", text)?);
            Ok(())
        },
    )
    .after("PXAT");
}
