//! The documented windows: which good requests may fail during a disturbance, how, and for how long
//! after it has ended. Every other failure of a good request is a failure of the soak.

use std::time::Duration;

use crate::load::kind::Kind;
use crate::world::World;

/// What is disturbed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cause {
    /// The key sets at this server of the issuers.
    Keys(usize),
    /// This issuer has begun to sign with a new key.
    Rotation(usize),
    Introspection,
    StatusList,
    Redis,
    /// It is late, because the machine is busy.
    SlowRedis,
}

pub(crate) struct Window {
    pub(crate) name: &'static str,
    disturbs: fn(Cause, Option<usize>) -> bool,
    pub(crate) kinds: &'static [Kind],
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    /// When it begins, after the disturbance has.
    pub(crate) after: Duration,
    /// How long it lasts, after the disturbance has ended.
    pub(crate) lasts: Duration,
    /// For which part of the requests it may be open.
    pub(crate) open_at_most: f64,
    /// Which part of the requests for which it is open may be lost: about twice the highest part
    /// that was measured, where a comment says nothing else.
    pub(crate) lost_at_most: f64,
}

impl Window {
    /// Whether a disturbance of this cause opens the window for requests with a token of `issuer`.
    pub(crate) fn is_opened_by(&self, cause: Cause, issuer: Option<usize>) -> bool {
        (self.disturbs)(cause, issuer)
    }
}

/// Kinds of requests with a JWT of an issuer whose key may have been replaced a moment ago.
const SIGNED: &[Kind] = &[
    Kind::TenantCached,
    Kind::TenantNew,
    Kind::TenantRare,
    Kind::PlainCached,
    Kind::PlainNew,
    Kind::Bound,
    Kind::Status,
    Kind::Mcp,
    Kind::Revocable,
];

/// How late a request may notice what has ended, on a busy machine.
const BUSY: Duration = Duration::from_millis(1500);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds).saturating_add(BUSY)
}

/// A machine on which Redis is late more often is too busy for a soak.
const LATE_AT_MOST: f64 = 0.5;

/// One late answer can suspend the store for the first second of a window of 7.5 seconds. Most late
/// answers come within the 250 ms that the server waits, so that nothing is lost.
const LOST_WHILE_LATE: f64 = 0.3;

/// The part of all good requests that may be lost in windows.
pub(crate) const LOST_AT_MOST: f64 = 0.08;

/// Of fewer requests, the lost part says nothing.
pub(crate) const FEWEST: u64 = 30;

/// The part of the hostile requests of a kind that may be answered 503 because a window is open.
pub(crate) const UNAVAILABLE_AT_MOST: f64 = 0.15;

/// That part is judged for kinds with more requests than this.
pub(crate) const FEWEST_HOSTILE: u64 = 200;

pub(crate) const WINDOWS: &[Window] = &[
    // docs/errors.md, `keys_unavailable`: the keys could not be fetched. docs/testing.md, "An
    // outage": "the first request after the back-off, 30 seconds at most, fetches the keys". A
    // request waits for a fetch for 5 seconds at most. Only tenants that are not cached need a
    // fetch: cached keys are used for an hour.
    Window {
        name: "issuer down: a tenant that is not cached",
        disturbs: |cause, issuer| {
            issuer.is_some_and(|issuer| cause == Cause::Keys(World::server_of(issuer)))
        },
        kinds: &[Kind::TenantRare],
        status: 503,
        code: "keys_unavailable",
        after: Duration::ZERO,
        lasts: seconds(30 + 5),
        open_at_most: 0.4,
        lost_at_most: 0.4,
    },
    // docs/operations.md, `portcullis_unknown_kids_total`: "the budget is spent, and the next fetch
    // may start within 5 seconds". Forged tokens spend it. The fetch itself is fast here.
    Window {
        name: "key replaced: a token with the new key",
        disturbs: |cause, issuer| issuer.is_some_and(|issuer| cause == Cause::Rotation(issuer)),
        kinds: SIGNED,
        status: 401,
        code: "unknown_key",
        after: Duration::ZERO,
        lasts: seconds(5),
        open_at_most: 0.3,
        lost_at_most: 0.45,
    },
    // docs/revocation.md, "Several replicas": the receivers answer 503 meanwhile.
    Window {
        name: "key replaced: a logout token or an event with the new key",
        disturbs: |cause, issuer| issuer.is_some_and(|issuer| cause == Cause::Rotation(issuer)),
        kinds: &[Kind::Revoke],
        status: 503,
        code: "",
        after: Duration::ZERO,
        lasts: seconds(5),
        open_at_most: 0.55,
        lost_at_most: 0.45,
    },
    // docs/opaque-tokens.md, "When the endpoint fails": tokens that are not cached are answered
    // 503, and the endpoint is not asked for up to 30 seconds after 5 failures in a row. A question
    // takes 2 seconds at most.
    Window {
        name: "introspection down: an opaque token",
        disturbs: |cause, _| cause == Cause::Introspection,
        kinds: &[Kind::OpaqueCached, Kind::OpaqueNew],
        status: 503,
        code: "introspection_unavailable",
        after: Duration::ZERO,
        lasts: seconds(30 + 2),
        open_at_most: 0.6,
        lost_at_most: 0.12,
    },
    // docs/sender-constrained.md, "Replays": 503 for requests with DPoP, and after three failures
    // the store is not asked for 1 to 5 seconds. The connection is tried twice a second.
    Window {
        name: "Redis down: a proof",
        disturbs: |cause, _| cause == Cause::Redis,
        kinds: &[Kind::Bound],
        status: 503,
        code: "replays_unavailable",
        after: Duration::ZERO,
        lasts: seconds(5 + 1),
        open_at_most: 0.4,
        // All are lost during an outage, and for up to 5.5 of the 7.5 seconds after it.
        lost_at_most: 0.92,
    },
    // docs/revocation.md, "Several replicas": an entry that cannot be appended within 250 ms is an
    // error, and a receiver answers 503.
    Window {
        name: "Redis down: a revocation",
        disturbs: |cause, _| cause == Cause::Redis,
        kinds: &[Kind::Revoke],
        status: 503,
        code: "",
        after: Duration::ZERO,
        lasts: seconds(1),
        open_at_most: 0.35,
        // All are lost during an outage, and for up to 1 of the 2.5 seconds after it.
        lost_at_most: 0.9,
    },
    // The same on a busy machine. A late answer opens the first one for 7.5 seconds.
    Window {
        name: "Redis late: a proof",
        disturbs: |cause, _| cause == Cause::SlowRedis,
        kinds: &[Kind::Bound],
        status: 503,
        code: "replays_unavailable",
        after: Duration::ZERO,
        lasts: seconds(5 + 1),
        open_at_most: LATE_AT_MOST,
        lost_at_most: LOST_WHILE_LATE,
    },
    Window {
        name: "Redis late: a revocation",
        disturbs: |cause, _| cause == Cause::SlowRedis,
        kinds: &[Kind::Revoke],
        status: 503,
        code: "",
        after: Duration::ZERO,
        lasts: seconds(1),
        open_at_most: LATE_AT_MOST,
        lost_at_most: LOST_WHILE_LATE,
    },
    // docs/revocation.md, "Several replicas": after 60 seconds (`max_stale`), all tokens are
    // answered 503 until the log is read again, which is tried every 250 ms. API keys are not
    // affected ("What revocation does not do").
    Window {
        name: "Redis down for longer than max_stale: any token",
        disturbs: |cause, _| cause == Cause::Redis,
        kinds: &[
            Kind::TenantCached,
            Kind::TenantNew,
            Kind::TenantRare,
            Kind::PlainCached,
            Kind::PlainNew,
            Kind::OpaqueCached,
            Kind::OpaqueNew,
            Kind::Bound,
            Kind::Status,
            Kind::Mcp,
            Kind::Revocable,
        ],
        status: 503,
        code: "revocations_unavailable",
        // It was last read up to a second before the disturbance.
        after: Duration::from_secs(58),
        lasts: seconds(1),
        open_at_most: 0.2,
        // All are lost, as documented.
        lost_at_most: 1.0,
    },
    // docs/revocation.md, "How to choose": a list is used for 60 seconds past its `ttl`, then 503.
    // It is fetched before its end, so nothing is lost in the first 60 seconds. The back-off is
    // that of key fetches, 30 seconds at most.
    Window {
        name: "status list unavailable for longer than max_stale: a token with a status",
        disturbs: |cause, _| cause == Cause::StatusList,
        kinds: &[Kind::Status],
        status: 503,
        code: "revocations_unavailable",
        after: Duration::from_secs(60),
        lasts: seconds(30 + 5),
        open_at_most: 0.25,
        // A list that was fetched long before the outage is stale soon after the window opens.
        lost_at_most: 0.85,
    },
];
