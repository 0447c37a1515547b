//! What stands behind the key in the commands on fields with deadlines: options, and then
//! `FIELDS numfields field …` to the end of the request.
//!
//! Redis gives every mistake here a text of its own, so the clause has a parser of its own. FIELDS
//! is last; the options before it may come in any order.

use crate::command::expiry::Expiry;
use crate::command::spec::{Arg, Needs, Type, Words};
use crate::limits::FIELD_DEADLINE_MS_MAX;
use crate::number::parse_i64;
use crate::reply::Reject;
use crate::resp::decode::Args;

/// When a command changes a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Condition {
    /// In any case.
    #[default]
    Always,
    /// NX: the field has no deadline.
    Nx,
    /// XX: the field has one.
    Xx,
    /// GT: the new deadline is later; none is later than any.
    Gt,
    /// LT: the new deadline is earlier; none is later than any.
    Lt,
    /// FNX: none of the fields exists.
    Fnx,
    /// FXX: all of the fields exist.
    Fxx,
}

/// The parsed clause.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clause {
    /// The condition.
    pub(super) condition: Condition,
    /// The expiry option.
    pub(super) expiry: Expiry,
    /// The fields, or fields and values.
    pub(super) fields: Words,
}

impl Clause {
    /// Fields that get deadlines need all others to be there.
    pub(super) fn needs(&self) -> Needs {
        match self.expiry {
            Expiry::None | Expiry::Keep | Expiry::Persist => Needs::Fields(self.fields),
            _ => Needs::AllFields,
        }
    }
}

/// Which clause a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `FIELDS numfields field …`
    Fields,
    /// `[NX|XX|GT|LT] FIELDS numfields field …`
    Expire,
    /// `[EX|PX|EXAT|PXAT|PERSIST] FIELDS numfields field …`
    GetEx,
    /// `[FNX|FXX] [EX|PX|EXAT|PXAT|KEEPTTL] FIELDS numfields field value …`
    SetEx,
}

/// Makes an expiry from its amount.
type Timed = fn(i64) -> Expiry;

impl Form {
    /// Parses everything from place `at` on.
    ///
    /// # Errors
    /// In Redis's words for this form.
    pub(super) fn parse(self, args: Args<'_>, at: u32) -> Result<Clause, Reject> {
        let mut clause = Clause::default();
        let (mut at, count) = (at as usize, args.len());
        loop {
            if at >= count {
                return Err(missing_fields());
            }
            let word = args.get(at);
            at += 1;
            if word.eq_ignore_ascii_case(b"FIELDS") {
                clause.fields = self.fields(args, at)?;
                return Ok(clause);
            } else if let Some(condition) = self.condition(word) {
                if clause.condition != Condition::Always {
                    return Err(self.two_conditions());
                }
                clause.condition = condition;
            } else if let Some(expiry) = self.bare_expiry(word) {
                self.first_expiry(&clause)?;
                clause.expiry = expiry;
            } else if let Some(timed) = self.timed_expiry(word) {
                self.first_expiry(&clause)?;
                if at >= count {
                    return Err(Reject::fixed("ERR missing expire time"));
                }
                let amount = parse_i64(args.get(at)).ok_or(Reject::not_an_integer())?;
                clause.expiry = timed(amount);
                at += 1;
            } else {
                return Err(self.unknown(word));
            }
        }
    }

    /// The count at place `at` and the fields behind it.
    fn fields(self, args: Args<'_>, at: usize) -> Result<Words, Reject> {
        let left = args.len().saturating_sub(at + 1);
        let step = if self == Form::SetEx { 2 } else { 1 };
        if left < step {
            return Err(self.wrong_count());
        }
        let groups = parse_i64(args.get(at)).filter(|groups| *groups > 0);
        let groups = groups.ok_or(self.no_count())?;
        if !left.is_multiple_of(step) || groups != (left / step) as i64 {
            return Err(self.wrong_count());
        }
        Ok(Words {
            first: at as u32 + 1,
            count: left as u32,
            step: step as u32,
        })
    }

    fn condition(self, word: &[u8]) -> Option<Condition> {
        let known: &[(&str, Condition)] = match self {
            Form::Expire => &[
                ("NX", Condition::Nx),
                ("XX", Condition::Xx),
                ("GT", Condition::Gt),
                ("LT", Condition::Lt),
            ],
            Form::SetEx => &[("FNX", Condition::Fnx), ("FXX", Condition::Fxx)],
            Form::Fields | Form::GetEx => &[],
        };
        named(known, word)
    }

    fn bare_expiry(self, word: &[u8]) -> Option<Expiry> {
        let known: &[(&str, Expiry)] = match self {
            Form::GetEx => &[("PERSIST", Expiry::Persist)],
            Form::SetEx => &[("KEEPTTL", Expiry::Keep)],
            Form::Fields | Form::Expire => &[],
        };
        named(known, word)
    }

    fn timed_expiry(self, word: &[u8]) -> Option<Timed> {
        const KNOWN: &[(&str, Timed)] = &[
            ("EX", Expiry::Seconds),
            ("PX", Expiry::Milliseconds),
            ("EXAT", Expiry::AtSeconds),
            ("PXAT", Expiry::AtMilliseconds),
        ];
        match self {
            Form::GetEx | Form::SetEx => named(KNOWN, word),
            Form::Fields | Form::Expire => None,
        }
    }

    // ---- errors ------------------------------------------------------------------------------

    fn first_expiry(self, clause: &Clause) -> Result<(), Reject> {
        match (clause.expiry, self) {
            (Expiry::None, _) => Ok(()),
            (_, Form::SetEx) => Err(Reject::fixed(
                "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
            )),
            _ => Err(missing_fields()),
        }
    }

    fn two_conditions(self) -> Reject {
        match self {
            Form::SetEx => Reject::fixed("ERR Only one of FXX or FNX arguments can be specified"),
            _ => missing_fields(),
        }
    }

    fn unknown(self, word: &[u8]) -> Reject {
        match self {
            Form::SetEx => {
                let shown = &word[..word.len().min(crate::limits::ERROR_ECHO_BYTES_MAX)];
                Reject::new([b"ERR unknown argument: ", shown].concat())
            }
            _ => missing_fields(),
        }
    }

    fn no_count(self) -> Reject {
        match self {
            Form::SetEx => Reject::fixed("ERR invalid number of fields"),
            Form::Expire => Reject::fixed("ERR Parameter `numFields` should be greater than 0"),
            _ => Reject::fixed("ERR Number of fields must be a positive integer"),
        }
    }

    fn wrong_count(self) -> Reject {
        match self {
            Form::SetEx => Reject::wrong_arity("hsetex"),
            _ => Reject::fixed("ERR The `numfields` parameter must match the number of arguments"),
        }
    }
}

fn named<T: Copy>(known: &[(&str, T)], word: &[u8]) -> Option<T> {
    let mut known = known.iter();
    let found = known.find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, value)| *value)
}

fn missing_fields() -> Reject {
    Reject::fixed("ERR Mandatory argument FIELDS is missing or not at the right position")
}

impl Condition {
    /// Whether the deadline of a field, `before_ms` (0: none), may become `after_ms`.
    pub(super) fn allows(self, before_ms: u64, after_ms: u64) -> bool {
        match self {
            Condition::Nx => before_ms == 0,
            Condition::Xx => before_ms != 0,
            Condition::Gt => before_ms != 0 && after_ms > before_ms,
            Condition::Lt => before_ms == 0 || after_ms < before_ms,
            Condition::Always | Condition::Fnx | Condition::Fxx => true,
        }
    }
}

/// The deadline of a field, in ms since the Unix epoch, that the options say, if they say one. It
/// may have passed.
///
/// # Errors
/// A negative time, or one that is too late.
pub(super) fn deadline_ms(
    expiry: Expiry,
    now_ms: u64,
    command: &str,
) -> Result<Option<u64>, Reject> {
    let (amount, unit_ms, base_ms) = match expiry {
        Expiry::Seconds(amount) => (amount, 1000, now_ms),
        Expiry::Milliseconds(amount) => (amount, 1, now_ms),
        Expiry::AtSeconds(amount) => (amount, 1000, 0),
        Expiry::AtMilliseconds(amount) => (amount, 1, 0),
        Expiry::None | Expiry::Keep | Expiry::Persist => return Ok(None),
    };
    let amount = u64::try_from(amount);
    let amount = amount.map_err(|_| Reject::fixed("ERR invalid expire time, must be >= 0"))?;
    let at_ms = amount
        .checked_mul(unit_ms)
        .and_then(|ms| ms.checked_add(base_ms))
        .filter(|at_ms| *at_ms <= FIELD_DEADLINE_MS_MAX);
    at_ms
        .map(Some)
        .ok_or_else(|| Reject::invalid_expire(command))
}

/// The clause as arguments of the command `C`, for its documentation.
pub(super) struct ClauseArgs<C>(std::marker::PhantomData<C>);

impl<C: 'static> ClauseArgs<C> {
    const FIELD: &'static [Arg<C>] = &[Arg::text("field", "a name", |_, _| {})];
    const PAIR: &'static [Arg<C>] = &[
        Arg::text("field", "a name", |_, _| {}),
        Arg::text("value", "its value", |_, _| {}),
    ];
    const EXPIRE_CONDITIONS: &'static [Arg<C>] = &[
        Arg::flag("NX", "only fields without a deadline", |_| {}),
        Arg::flag("XX", "only fields with a deadline", |_| {}),
        Arg::flag("GT", "only if the new deadline is later", |_| {}),
        Arg::flag("LT", "only if the new deadline is earlier", |_| {}),
    ];
    const SET_CONDITIONS: &'static [Arg<C>] = &[
        Arg::flag("FNX", "only if none of the fields exists", |_| {}),
        Arg::flag("FXX", "only if all of the fields exist", |_| {}),
    ];
    const SET_EXPIRIES: &'static [Arg<C>] = &[
        Self::EX,
        Self::PX,
        Self::EXAT,
        Self::PXAT,
        Arg::flag("KEEPTTL", "keep the deadlines as they are", |_| {}),
    ];
    const GET_EXPIRIES: &'static [Arg<C>] = &[
        Self::EX,
        Self::PX,
        Self::EXAT,
        Self::PXAT,
        Arg::flag("PERSIST", "remove the deadlines", |_| {}),
    ];
    const EX: Arg<C> = Arg::integer("seconds", "lifetime in seconds", |_, _| {}).after("EX");
    const PX: Arg<C> =
        Arg::integer("milliseconds", "lifetime in milliseconds", |_, _| {}).after("PX");
    const EXAT: Arg<C> = Arg::integer(
        "unix-time-seconds",
        "deadline as Unix time in seconds",
        |_, _| {},
    )
    .after("EXAT")
    .of(Type::UnixTime);
    const PXAT: Arg<C> = Arg::integer(
        "unix-time-milliseconds",
        "deadline as Unix time in milliseconds",
        |_, _| {},
    )
    .after("PXAT")
    .of(Type::UnixTime);

    /// Parts of [`Form::Fields`].
    pub(super) const FIELDS: &'static [Arg<C>] = &[Self::THE_FIELDS];
    /// Parts of [`Form::Expire`].
    pub(super) const EXPIRE: &'static [Arg<C>] = &[
        Arg::one_of("condition", "which fields", Self::EXPIRE_CONDITIONS),
        Self::THE_FIELDS,
    ];
    /// Parts of [`Form::GetEx`].
    pub(super) const GET_EX: &'static [Arg<C>] = &[
        Arg::one_of("expiration", "when the fields expire", Self::GET_EXPIRIES),
        Self::THE_FIELDS,
    ];
    /// Parts of [`Form::SetEx`].
    pub(super) const SET_EX: &'static [Arg<C>] = &[
        Arg::one_of("condition", "whether they are set", Self::SET_CONDITIONS),
        Arg::one_of("expiration", "when the fields expire", Self::SET_EXPIRIES),
        Arg::counted("fields", "what is set", Self::PAIR, |_, _| {}).after("FIELDS"),
    ];
    const THE_FIELDS: Arg<C> =
        Arg::counted("fields", "the fields", Self::FIELD, |_, _| {}).after("FIELDS");
}
