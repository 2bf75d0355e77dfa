//! Requests → credentials, errors → responses. This module never handles a key.

pub(crate) mod authorization;
pub(crate) mod challenge;
pub(crate) mod config;
pub(crate) mod credentials;
pub(crate) mod effects;
pub(crate) mod future;
pub(crate) mod layer;
pub(crate) mod origin;
pub(crate) mod rejection;
pub(crate) mod resource_metadata;
pub(crate) mod service;
pub(crate) mod verify_request;
