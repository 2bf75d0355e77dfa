//! Issuers: which keys verify which tokens, from which issuers keys are fetched, and how issuers
//! are configured.

mod addresses;
mod changes;
mod config_errors;
mod forget;
mod lookup;
mod lookup_limits;
mod providers;
mod refresh;
mod registry;
mod support;
mod templates;

#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/poll_once.rs"]
mod poll_once;
#[path = "../support/verdict.rs"]
mod verdict;
