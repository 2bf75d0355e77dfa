pub(crate) enum AddressPolicy {}
