pub(crate) mod documents;
pub(crate) mod introspections;
