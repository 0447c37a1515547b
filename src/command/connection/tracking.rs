//! CLIENT's commands about client-side caching, which is not supported: they answer as a Redis in
//! which nobody uses it.

use crate::command::SessionCommand;
use crate::command::connection::client::own;
use crate::command::spec::{Arg, Spec, Type};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// CLIENT GETREDIR
#[derive(Default)]
pub(super) struct GetRedir;

impl SessionCommand for GetRedir {
    const SPEC: Spec = own(
        "client|getredir",
        "Tells where invalidation messages are sent.",
    )
    .since("6.0.0")
    .reply("-1: tracking is off.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.integer(-1);
        Ok(Next::Done)
    }
}

/// CLIENT TRACKINGINFO
#[derive(Default)]
pub(super) struct TrackingInfo;

impl SessionCommand for TrackingInfo {
    const SPEC: Spec = own(
        "client|trackinginfo",
        "Tells the state of client-side caching.",
    )
    .since("6.2.0")
    .reply("Map: flags, redirect, prefixes.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.map(3);
        reply.bulk(b"flags");
        reply.set(1);
        reply.bulk(b"off");
        reply.bulk(b"redirect");
        reply.integer(-1);
        reply.bulk(b"prefixes");
        reply.array(0);
        Ok(Next::Done)
    }
}

/// CLIENT TRACKING
#[derive(Default)]
pub(super) struct Tracking {
    off: bool,
}

impl SessionCommand for Tracking {
    const SPEC: Spec = own(
        "client|tracking",
        "Client-side caching; it is not supported and can only be switched off.",
    )
    .since("6.0.0")
    .reply("OK for OFF, otherwise an error.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "status",
        "ON or OFF, and options",
        &[],
        |tracking: &mut Tracking, args, at| {
            tracking.off = args.get(at as usize).eq_ignore_ascii_case(b"OFF");
            if tracking.off || args.get(at as usize).eq_ignore_ascii_case(b"ON") {
                Ok(())
            } else {
                Err(Reject::syntax())
            }
        },
    )
    .of(Type::Text)];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if !self.off {
            return Err(Reject::fixed(
                "ERR CLIENT TRACKING is not supported by this server",
            ));
        }
        reply.ok();
        Ok(Next::Done)
    }
}

/// CLIENT CACHING
#[derive(Default)]
pub(super) struct Caching;

impl SessionCommand for Caching {
    const SPEC: Spec = own(
        "client|caching",
        "Belongs to client-side caching, which is not supported.",
    )
    .since("6.0.0")
    .reply("An error.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::one_of(
        "mode",
        "whether the next command is tracked",
        &[
            Arg::flag("YES", "it is", |_| ()),
            Arg::flag("NO", "it is not", |_| ()),
        ],
    )
    .required()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        Err(Reject::fixed(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with \
             OPTIN or OPTOUT mode enabled",
        ))
    }
}
