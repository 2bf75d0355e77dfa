pub(crate) mod under_way;
