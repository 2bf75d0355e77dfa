//! Key sets → keys that verify signatures. No network in this folder's own files: `remote/` fetches.

pub(crate) mod jwk;
pub(crate) mod jwks;
pub(crate) mod pem;
pub(crate) mod remote;
pub(crate) mod signature;
pub(crate) mod url;
