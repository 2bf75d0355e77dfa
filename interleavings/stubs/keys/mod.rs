pub(crate) mod jwks;
pub(crate) mod pem;
pub(crate) mod remote;
