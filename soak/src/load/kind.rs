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
    InventedApiKey,
    WrongApiKey,
    Revoked,
    StatusRevoked,
    /// Signed with a key that was withdrawn, and that the server has noticed to be.
    WithdrawnKey,
    McpBroken,
    McpForbidden,
    McpWithoutToken,
    ForgedLogout,
    ForgedEvent,
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
    (ForgedEvent, 2),
];

impl Kind {
    pub(crate) fn is_good(self) -> bool {
        self < WrongSignature
    }

    /// Whether a bad request may be answered with this status. 401 is an answer to any, because the
    /// key of its token may be new, and 503 to what cannot be checked at the moment.
    pub(crate) fn expects(self, status: u16) -> bool {
        let expected: &[u16] = match self {
            TwoTokens => &[400],
            MissingScope | McpForbidden => &[403],
            ManyHeaders => &[431],
            NoHttp => &[400],
            McpBroken => &[400, 413],
            ForgedLogout | ForgedEvent => &[400],
            _ => &[],
        };
        matches!(status, 401 | 503) || expected.contains(&status)
    }

    /// Whether the server may close the connection without an answer.
    pub(crate) fn may_be_cut_off(self) -> bool {
        matches!(self, ManyHeaders | NoHttp)
    }
}
