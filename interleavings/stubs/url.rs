#[derive(Clone)]
pub(crate) struct Url;
