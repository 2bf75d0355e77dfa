//! The kinds of requests, how often each is sent, and which answers they may get.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    // Good.
    /// A token that was sent before, of one of the tenants in constant use.
    TenantCached,
    /// A new token of such a tenant.
    TenantNew,
    /// A new token of the next of all tenants, most of which the server has evicted.
    TenantRare,
    /// The same, of the configured issuer.
    PlainCached,
    PlainNew,
    OpaqueCached,
    OpaqueNew,
    /// A token that is bound to a key, with a new proof.
    Bound,
    ApiKey,
    /// A token with a status in a status list.
    Status,
    Mcp,
    /// A token that will be revoked.
    Revocable,
    /// The revocation of a token: by the application, a logout token or a security event.
    Revoke,
    // Hostile.
    WrongSignature,
    WrongAudience,
    Expired,
    Unsigned,
    UnknownKid,
    UnknownIssuer,
    /// Signed by one tenant, in the name of another.
    OtherTenant,
    Garbage,
    NoToken,
    TwoTokens,
    MissingScope,
    TooLarge,
    ManyHeaders,
    NoHttp,
    InventedOpaque,
    /// Revoked at its issuer longer ago than answers are cached.
    RevokedOpaque,
    UsedProof,
    OtherKey,
    BoundAsBearer,
    /// Well-formed, with the right checksum, but not registered.
    InventedApiKey,
    /// The identifier of one key, the secret of another, and the right checksum.
    WrongApiKey,
    Revoked,
    StatusRevoked,
    /// Signed with a key that was withdrawn, and that the server has noticed to be.
    WithdrawnKey,
    McpBroken,
    McpForbidden,
    McpWithoutToken,
    ForgedLogout,
    /// For another client.
    LogoutOtherAudience,
    LogoutWithoutEvents,
    ForgedEvent,
    /// For another receiver.
    EventOtherAudience,
    EventWithoutEvents,
}

use Kind::*;

/// How often each kind is sent, in about a thousand requests. `Revocable` and `Revoke` have a pace
/// of their own.
pub(crate) const MIXTURE: &[(Kind, u32)] = &[
    (TenantCached, 250),
    (TenantNew, 80),
    (TenantRare, 60),
    (PlainCached, 70),
    (PlainNew, 30),
    (OpaqueCached, 40),
    (OpaqueNew, 10),
    (Bound, 60),
    (ApiKey, 40),
    (Status, 40),
    (Mcp, 40),
    (WrongSignature, 30),
    (WrongAudience, 15),
    (Expired, 15),
    (Unsigned, 15),
    (UnknownKid, 20),
    (UnknownIssuer, 20),
    (OtherTenant, 15),
    (Garbage, 15),
    (NoToken, 10),
    (TwoTokens, 5),
    (MissingScope, 10),
    (TooLarge, 5),
    (ManyHeaders, 2),
    (NoHttp, 3),
    (InventedOpaque, 10),
    (RevokedOpaque, 5),
    (UsedProof, 20),
    (OtherKey, 5),
    (BoundAsBearer, 5),
    (InventedApiKey, 5),
    (WrongApiKey, 5),
    (Revoked, 20),
    (StatusRevoked, 10),
    (WithdrawnKey, 3),
    (McpBroken, 10),
    (McpForbidden, 5),
    (McpWithoutToken, 3),
    (ForgedLogout, 2),
    (LogoutOtherAudience, 2),
    (LogoutWithoutEvents, 2),
    (ForgedEvent, 2),
    (EventOtherAudience, 2),
    (EventWithoutEvents, 2),
];

impl Kind {
    pub(crate) fn is_good(self) -> bool {
        self < WrongSignature
    }

    /// The answers that a bad request of this kind must get: the status and `Error::code()`, or the
    /// error in the body. Each soak must see the first one, which is the reason why the request is
    /// bad. The others are found before that reason in some of the requests.
    pub(crate) fn answers(self) -> &'static [(u16, &'static str)] {
        match self {
            WrongSignature => &[(401, "bad_signature")],
            WrongAudience => &[(401, "wrong_audience")],
            Expired => &[(401, "expired")],
            Unsigned => &[(401, "unsupported_algorithm")],
            // Keys of two tenants have different `kid`s.
            UnknownKid | OtherTenant | WithdrawnKey => &[(401, "unknown_key")],
            UnknownIssuer => &[(401, "unknown_issuer")],
            // Most of what has no two dots is an opaque token.
            Garbage => &[
                (401, "malformed"),
                (401, "inactive"),
                (401, "bad_signature"),
                (401, "missing_claim"),
            ],
            NoToken | McpWithoutToken => &[(401, "missing")],
            TwoTokens => &[(400, "invalid_request")],
            MissingScope | McpForbidden => &[(403, "insufficient_scope")],
            TooLarge => &[(401, "too_large")],
            ManyHeaders => &[(431, "")],
            NoHttp => &[(400, "")],
            InventedOpaque | RevokedOpaque => &[(401, "inactive")],
            // While Redis is down, no proof is used: the last ones are too old after a while.
            UsedProof => &[(401, "proof_used"), (401, "proof_wrong_time"), (401, "unknown_key")],
            OtherKey => &[(401, "other_key")],
            BoundAsBearer => &[(401, "sender_constrained")],
            InventedApiKey | WrongApiKey => &[(401, "unknown_api_key")],
            // Its issuer has withdrawn the key after a while.
            Revoked => &[(401, "revoked"), (401, "unknown_key")],
            StatusRevoked => &[(401, "revoked")],
            McpBroken => &[(400, ""), (413, "")],
            ForgedLogout | LogoutOtherAudience | LogoutWithoutEvents => &[(400, "invalid_request")],
            ForgedEvent => &[(400, "invalid_key")],
            EventOtherAudience => &[(400, "invalid_audience")],
            EventWithoutEvents => &[(400, "invalid_request")],
            _ => &[],
        }
    }

    /// Whether the server may close the connection without an answer.
    pub(crate) fn may_be_cut_off(self) -> bool {
        matches!(self, ManyHeaders | NoHttp)
    }
}
