//! Code shared by the benchmarks.

pub mod contenders;
pub mod limit;
pub mod rounds;
