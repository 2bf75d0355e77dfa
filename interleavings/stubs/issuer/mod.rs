pub(crate) mod active;
pub(crate) mod resolution;
