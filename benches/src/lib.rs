//! What the measurements share.

pub mod contenders;
pub mod limit;
pub mod rounds;
