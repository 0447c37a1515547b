//! Taking a key while it is idle, holding it, and giving it back: SETIFIDLE, RENEW, SETIDLE.

use bytes::Bytes;

use crate::command::KeyCommand;
use crate::command::expiry::{Expiry, HasExpiry, OwnExpiryArgs};
use crate::command::spec::{Arg, Group, Spec, Type, Word, flag};
use crate::command::states::{Current, may_be_set};
use crate::keyspace::{Cell, Txn, tokens};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Takes a key while it is idle.
#[derive(Default)]
pub struct SetIfIdle {
    key: Word,
    state: Word,
    expiry: Expiry,
    owner: Option<Word>,
    fingerprint: Option<Word>,
}

impl HasExpiry for SetIfIdle {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

/// What SETIFIDLE found.
#[derive(Clone, Copy)]
enum Status {
    Started,
    Renewed,
    Busy,
    Done,
    Mismatch,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Status::Started => "STARTED",
            Status::Renewed => "RENEWED",
            Status::Busy => "BUSY",
            Status::Done => "DONE",
            Status::Mismatch => "MISMATCH",
        }
    }
}

impl KeyCommand for SetIfIdle {
    const SPEC: Spec = Spec::write(
        "setifidle",
        Group::States,
        "Sets the state of a key if it is idle, and says who may work on it now.",
    )
    .since("tallyman")
    .with(flag::FAST | flag::DENYOOM)
    .reply(
        "Array: status, token, milliseconds left (-1 without a deadline), value. STARTED: it was \
         idle and is yours. RENEWED: you, the same OWNER, hold it already; state and deadline \
         are replaced. BUSY: somebody else holds it, or it is an ordinary string (token 0). DONE: \
         it is finished, the value is the kept result. MISMATCH: held or done under another \
         fingerprint.",
    )
    .notes(
        "A key is idle if it is missing, expired, or its value is idle; a kept result never is. \
         Decided in this order: idle, another fingerprint, a kept result, the same owner, else \
         BUSY. At the deadline the key is idle again and its token is dead. RENEWED without an \
         expiration option leaves the deadline, and always the owner and the fingerprint. A \
         state, OWNER or FP that is empty, the state idle, and a deadline that has passed are \
         errors. OWNER must be unique per attempt: a request id, not a host name.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::parsed(
            "state",
            "the state while you hold it",
            Type::Text,
            |c, text, word| {
                c.state = word;
                not_reserved(text)
            },
        ),
        Arg::one_of(
            "expiration",
            "when the key is idle again",
            &[
                OwnExpiryArgs::<SetIfIdle>::EX,
                OwnExpiryArgs::<SetIfIdle>::PX,
                OwnExpiryArgs::<SetIfIdle>::EXAT,
                OwnExpiryArgs::<SetIfIdle>::PXAT,
            ],
        ),
        Arg::parsed(
            "id",
            "who holds it, unique per attempt",
            Type::Text,
            |c: &mut SetIfIdle, text, word| {
                c.owner = Some(word);
                not_empty(text, "ERR SETIFIDLE: OWNER must not be empty")
            },
        )
        .after("OWNER")
        .optional()
        .once(),
        Arg::parsed(
            "fingerprint",
            "what the work is about, as a hash of the request",
            Type::Text,
            |c: &mut SetIfIdle, text, word| {
                c.fingerprint = Some(word);
                not_empty(text, "ERR SETIFIDLE: FP must not be empty")
            },
        )
        .after("FP")
        .optional()
        .once(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let now_ms = txn.now_ms();
        let given_ms = self.expiry.future_ms(now_ms, "SETIFIDLE")?;
        let key = txn.key(args.word(self.key));
        let shared = |word: Word| Bytes::copy_from_slice(args.word(word));
        let found = Current::at(txn, &key)?;
        let (status, current) = match found {
            Some(held) if !held.is_idle() => match self.status(&held.cell, args) {
                Status::Renewed => {
                    let mut renewed = held;
                    renewed.cell.state = shared(self.state);
                    renewed.deadline_ms = given_ms.unwrap_or(renewed.deadline_ms);
                    renewed.put(txn, &key);
                    (Status::Renewed, renewed)
                }
                refusal => (refusal, held),
            },
            _ => {
                let cell = Cell {
                    token: txn.token(&key)?,
                    owner: self.owner.map(shared),
                    fingerprint: self.fingerprint.map(shared),
                    done: false,
                    state: shared(self.state),
                };
                let deadline_ms = given_ms.unwrap_or(0);
                let started = Current { cell, deadline_ms };
                started.put(txn, &key);
                (Status::Started, started)
            }
        };
        reply.array(4);
        reply.bulk(status.name().as_bytes());
        reply.integer(current.cell.token as i64);
        reply.integer(current.left_ms(now_ms));
        reply.bulk(&current.cell.state);
        Ok(())
    }
}

impl SetIfIdle {
    /// What to answer where the key is not idle.
    fn status(&self, cell: &Cell, args: Args<'_>) -> Status {
        let given = |word: Option<Word>| word.map(|word| args.word(word));
        if let (Some(theirs), Some(ours)) = (&cell.fingerprint, given(self.fingerprint))
            && theirs != ours
        {
            return Status::Mismatch;
        }
        if cell.done {
            return Status::Done;
        }
        match (&cell.owner, given(self.owner)) {
            (Some(theirs), Some(ours)) if theirs == ours => Status::Renewed,
            _ => Status::Busy,
        }
    }
}

fn not_reserved(state: &[u8]) -> Result<(), Reject> {
    match may_be_set(state) {
        true => Ok(()),
        false => Err(Reject::fixed(
            "ERR SETIFIDLE: state must not be empty or \"idle\"",
        )),
    }
}

fn not_empty(text: &[u8], error: &'static str) -> Result<(), Reject> {
    match text.is_empty() {
        true => Err(Reject::fixed(error)),
        false => Ok(()),
    }
}

/// Gives a key back, or leaves the result of the work.
#[derive(Default)]
pub struct SetIdle {
    key: Word,
    token: u64,
    result: Option<Word>,
    expiry: Expiry,
}

impl HasExpiry for SetIdle {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl KeyCommand for SetIdle {
    const SPEC: Spec = Spec::write(
        "setidle",
        Group::States,
        "Finishes the work on a key: idle again, or done with a result, if the token is current.",
    )
    .since("tallyman")
    .with(flag::FAST | flag::DENYOOM)
    .reply(
        "Array of two integers: 1 and the token if the token is the current one; 0 and the \
         current token (0 for an ordinary string or a missing key) otherwise, and nothing changes.",
    )
    .notes(
        "Without RESULT the key is deleted. With RESULT it is kept until the deadline given here, \
         for ever without one, and SETIFIDLE answers DONE; the lease's own deadline no longer \
         counts. Repeated on a cell that it finished with RESULT it answers 1 and the token, \
         whatever result it brings, and changes nothing; after a delete it answers 0 and 0, so \
         use RESULT where the finish may be retried. Token 0 is never current. A deadline that \
         has passed is an error.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::parsed(
            "token",
            "the token that SETIFIDLE gave",
            Type::Integer,
            |c: &mut SetIdle, text, _| {
                c.token = tokens::parse(text).ok_or(Reject::fixed(
                    "ERR SETIDLE: token must be an integer from 0 to 9007199254740991",
                ))?;
                Ok(())
            },
        ),
        Arg::block(
            "result",
            "keeps a result",
            &[
                Arg::text("value", "what the work came to", |c: &mut SetIdle, word| {
                    c.result = Some(word);
                }),
                Arg::one_of(
                    "expiration",
                    "when the result is forgotten",
                    &[
                        OwnExpiryArgs::<SetIdle>::EX,
                        OwnExpiryArgs::<SetIdle>::PX,
                        OwnExpiryArgs::<SetIdle>::EXAT,
                        OwnExpiryArgs::<SetIdle>::PXAT,
                    ],
                ),
            ],
        )
        .after("RESULT")
        .optional()
        .once(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let given_ms = self.expiry.future_ms(txn.now_ms(), "SETIDLE")?;
        let key = txn.key(args.word(self.key));
        let found = Current::at(txn, &key)?;
        let current_token = found.as_ref().map_or(0, |current| current.cell.token);
        let ours = found.filter(|_| self.token != 0 && self.token == current_token);
        reply.array(2);
        reply.integer(i64::from(ours.is_some()));
        reply.integer(current_token as i64);
        match (ours, self.result) {
            (Some(current), _) if current.cell.done => {}
            (Some(mut current), Some(result)) => {
                current.cell.done = true;
                current.cell.state = Bytes::copy_from_slice(args.word(result));
                current.deadline_ms = given_ms.unwrap_or(0);
                current.put(txn, &key);
            }
            (Some(_), None) => {
                txn.delete(&key);
            }
            (None, _) => {}
        }
        Ok(())
    }
}

/// Moves the deadline of a key that is held.
#[derive(Default)]
pub struct Renew {
    key: Word,
    token: u64,
    expiry: Expiry,
}

impl HasExpiry for Renew {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl KeyCommand for Renew {
    const SPEC: Spec = Spec::write(
        "renew",
        Group::States,
        "Sets the deadline of a key that you hold: a heartbeat.",
    )
    .since("tallyman")
    .with(flag::FAST)
    .reply("Integer: 1 if the token is current, 0 if it is not or the work is finished.")
    .notes(
        "The deadline is replaced, also by an earlier one. Token 0 is never current. A deadline \
         that has passed is an error.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::parsed(
            "token",
            "the token that you hold",
            Type::Integer,
            |c: &mut Renew, text, _| {
                c.token = tokens::parse(text).ok_or(Reject::fixed(
                    "ERR RENEW: token must be an integer from 0 to 9007199254740991",
                ))?;
                Ok(())
            },
        ),
        Arg::one_of(
            "expiration",
            "when the key is idle again",
            &[
                OwnExpiryArgs::<Renew>::EX,
                OwnExpiryArgs::<Renew>::PX,
                OwnExpiryArgs::<Renew>::EXAT,
                OwnExpiryArgs::<Renew>::PXAT,
            ],
        )
        .required(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let given_ms = self.expiry.future_ms(txn.now_ms(), "RENEW")?;
        let key = txn.key(args.word(self.key));
        let ours = Current::at(txn, &key)?.is_some_and(|current| {
            self.token != 0 && current.cell.token == self.token && !current.cell.done
        });
        if ours {
            txn.set_deadline(&key, given_ms.unwrap_or(0));
        }
        reply.integer(i64::from(ours));
        Ok(())
    }
}
