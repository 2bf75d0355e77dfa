//! `std::collections`, in an order that is the same in each execution.

pub(crate) use std::collections::{BTreeMap, BTreeMap as HashMap, BTreeSet as HashSet, VecDeque};

pub(crate) mod hash_map {
    pub(crate) use std::collections::BTreeMap as HashMap;
    pub(crate) use std::collections::btree_map::Entry;
}
