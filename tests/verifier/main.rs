//! The verifier: its cache of verified tokens, and its errors.

mod errors;
mod settings;
mod token_cache;

#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/verdict.rs"]
mod verdict;
