//! `std::collections`, in an order that is the same in each execution.

pub(crate) use std::collections::{BTreeMap, BTreeMap as HashMap, BTreeSet as HashSet, VecDeque};
