//! `std::hash` without random keys: a repeated execution must take the same branches.

use std::collections::hash_map::DefaultHasher;
pub(crate) use std::hash::BuildHasher;

#[derive(Clone, Debug, Default)]
pub(crate) struct RandomState;

impl RandomState {
    pub(crate) fn new() -> Self {
        Self
    }
}

impl BuildHasher for RandomState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        DefaultHasher::new()
    }
}
