//! How keys are fetched and cached: fetched once, shared, refreshed ahead, and never replaced by a
//! failed fetch.
//!
//! The tests use real HTTP on loopback and a `TestClock`. Most disable the token cache, so that
//! every verification uses the keys.

mod concurrency;
mod discovery;
mod documents;
mod health;
mod http_caching;
mod model;
mod outage;
mod pem_keys;
mod requests;
mod rotation;
mod runtime;
mod scripted;
mod seed;
mod sockets;
mod support;
mod unknown_keys;

#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/poll_once.rs"]
mod poll_once;
#[path = "../support/verdict.rs"]
mod verdict;
