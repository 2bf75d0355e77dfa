//! Key sets, and the keys that verify signatures. Only `remote/` uses the network.

pub(crate) mod jwk;
pub(crate) mod jwks;
pub(crate) mod pem;
pub(crate) mod remote;
pub(crate) mod signature;
pub(crate) mod signer;
pub(crate) mod url;
