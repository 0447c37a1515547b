//! Changing a state only from the states and the token that the caller knows: SETSTATE, GETSTATE.

use bytes::Bytes;

use crate::command::KeyCommand;
use crate::command::expiry::{Expiry, ExpiryArgs, HasExpiry, OwnExpiryArgs};
use crate::command::spec::{Arg, Group, Spec, Type, Word, Words, flag};
use crate::command::states::{Current, IDLE, may_be_set};
use crate::keyspace::{Cell, Txn, tokens};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Changes a state.
#[derive(Default)]
pub struct SetState {
    key: Word,
    state: Word,
    from: Words,
    if_token: Option<u64>,
    expiry: Expiry,
}

impl HasExpiry for SetState {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl KeyCommand for SetState {
    const SPEC: Spec = Spec::write(
        "setstate",
        Group::States,
        "Sets the state of a key if it is one of the given states and the token did not move on.",
    )
    .since("tallyman")
    .with(flag::FAST | flag::DENYOOM)
    .complexity("O(N), where N is the number of states in FROM.")
    .reply(
        "Array: 1, the state, its new token; or 0, the current state (null for a missing key), \
         the current token (0 for an ordinary string or a missing key), and nothing changes.",
    )
    .notes(
        "Without conditions it always applies; FROM and IFTOKEN together must both be met. idle \
         in FROM also means a missing key, and never a kept result; any other state in FROM is \
         compared with what GET sees. IFTOKEN 0 means an ordinary string or a missing key. Every \
         change takes a new token, also to the same state, and clears owner, fingerprint and a \
         kept result: who held the key before is told so by its old token. Without an expiration \
         option the deadline is cleared, as SET does. A state that is empty or idle, and a \
         deadline that has passed, are errors.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::parsed("state", "the new state", Type::Text, |c, text, word| {
            c.state = word;
            match may_be_set(text) {
                true => Ok(()),
                false => Err(Reject::fixed(
                    "ERR SETSTATE: state must not be empty or \"idle\"",
                )),
            }
        }),
        Arg::counted(
            "from",
            "the states that it may have now",
            &[Arg::text(
                "from-state",
                "a state; idle also means a missing key",
                |_, _| {},
            )],
            |c: &mut SetState, words| c.from = words,
        )
        .after("FROM")
        .count_error("ERR SETSTATE: FROM needs a number from 1 up and so many states")
        .optional()
        .once(),
        Arg::parsed(
            "token",
            "the token that it must have now",
            Type::Integer,
            |c: &mut SetState, text, _| {
                let token = tokens::parse(text).ok_or(Reject::fixed(
                    "ERR SETSTATE: IFTOKEN must be an integer from 0 to 9007199254740991",
                ))?;
                c.if_token = Some(token);
                Ok(())
            },
        )
        .after("IFTOKEN")
        .optional()
        .once(),
        Arg::one_of(
            "expiration",
            "when the key expires",
            &[
                OwnExpiryArgs::<SetState>::EX,
                OwnExpiryArgs::<SetState>::PX,
                OwnExpiryArgs::<SetState>::EXAT,
                OwnExpiryArgs::<SetState>::PXAT,
                ExpiryArgs::<SetState>::KEEPTTL,
            ],
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let given_ms = self.expiry.future_ms(txn.now_ms(), "SETSTATE")?;
        let key = txn.key(args.word(self.key));
        let current = Current::at(txn, &key)?;
        let current_token = current.as_ref().map_or(0, |current| current.cell.token);
        let applies = self.is_from(current.as_ref(), args)
            && self.if_token.is_none_or(|token| token == current_token);
        reply.array(3);
        reply.integer(i64::from(applies));
        if !applies {
            reply.bulk_or_null(current.as_ref().map(|current| &*current.cell.state));
            reply.integer(current_token as i64);
            return Ok(());
        }
        let before_ms = current.map_or(0, |current| current.deadline_ms);
        let state = args.word(self.state);
        let cell = Cell {
            token: txn.token(&key)?,
            owner: None,
            fingerprint: None,
            done: false,
            state: Bytes::copy_from_slice(state),
        };
        reply.bulk(state);
        reply.integer(cell.token as i64);
        let deadline_ms = match self.expiry {
            Expiry::Keep => before_ms,
            _ => given_ms.unwrap_or(0),
        };
        Current { cell, deadline_ms }.put(txn, &key);
        Ok(())
    }
}

impl SetState {
    /// Whether the key has one of the states in FROM, if there is a FROM.
    fn is_from(&self, current: Option<&Current>, args: Args<'_>) -> bool {
        let mut states = self.from.each(args, 0);
        self.from.groups() == 0
            || states.any(|state| match current {
                None => state == IDLE,
                Some(current) if state == IDLE => current.is_idle(),
                Some(current) => current.cell.state == state,
            })
    }
}

/// Reads a state.
#[derive(Default)]
pub struct GetState {
    key: Word,
}

impl KeyCommand for GetState {
    const SPEC: Spec = Spec::read(
        "getstate",
        Group::States,
        "Returns the state of a key, its token, its owner and the time left.",
    )
    .since("tallyman")
    .with(flag::FAST)
    .reply(
        "Array: state, token (0 for an ordinary string), owner or null, milliseconds left (-1 \
         without a deadline); null for a missing key.",
    )
    .notes("The state of a finished cell is its result.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let Some(current) = Current::at(txn, &key)? else {
            reply.null_array();
            return Ok(());
        };
        reply.array(4);
        reply.bulk(&current.cell.state);
        reply.integer(current.cell.token as i64);
        reply.bulk_or_null(current.cell.owner.as_deref());
        reply.integer(current.left_ms(txn.now_ms()));
        Ok(())
    }
}
