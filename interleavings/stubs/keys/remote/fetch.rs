#[derive(Clone)]
pub(crate) struct Validators;
