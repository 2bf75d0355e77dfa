//! From the bytes of a token to its claims. No HTTP, no network, no clock.

pub(crate) mod audience;
pub(crate) mod claim_path;
pub(crate) mod claims;
pub(crate) mod json;
pub(crate) mod jws;
pub(crate) mod profile;
pub(crate) mod scope;
pub(crate) mod spiffe;
pub(crate) mod tenant;
pub(crate) mod token_type;
