use crate::url::Url;

pub(crate) struct OriginLimit;

impl OriginLimit {
    pub(crate) fn at(_: &Url) -> Self {
        Self
    }
}
