//! Tokens that their issuer is asked about: RFC 7662, RFC 9701.

mod answers;
mod bound;
mod caching;
mod failures;
mod hostile;
mod requests;
mod signed;
mod support;

#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/poll_once.rs"]
mod poll_once;
#[path = "../support/verdict.rs"]
mod verdict;
