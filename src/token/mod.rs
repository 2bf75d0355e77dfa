//! Bytes → claims. Knows no HTTP, no network, no clock.

pub(crate) mod audience;
pub(crate) mod claims;
pub(crate) mod json;
pub(crate) mod jws;
pub(crate) mod path;
pub(crate) mod scope;
pub(crate) mod shape;
pub(crate) mod typ;
