//! Requests → credentials, errors → challenges. Never sees a key.

pub(crate) mod answer;
pub(crate) mod challenge;
pub(crate) mod credentials;
pub(crate) mod layer;
pub(crate) mod origin;
pub(crate) mod service;
