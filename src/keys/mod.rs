//! Key sets → keys ready to verify. Knows no request.

pub(crate) mod discovery;
pub(crate) mod fetch;
pub(crate) mod in_flight;
pub(crate) mod jwk;
pub(crate) mod jwks;
pub(crate) mod lifetime;
pub(crate) mod pem;
pub(crate) mod remote;
pub(crate) mod schedule;
pub(crate) mod signature;
