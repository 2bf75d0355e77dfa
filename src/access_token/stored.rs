//! How a token stores its claims: as text within its payload, and as types of the application.

use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The text of a claim: a range of the payload, or a copy if the payload contains escapes.
pub(super) enum Text {
    Within(Range<usize>),
    Own(Box<str>),
}

impl Text {
    pub(super) fn new(text: &str, payload: &str) -> Self {
        // The address of `text` tells its range in the payload, if it has one, without a copy.
        let start = (text.as_ptr() as usize).checked_sub(payload.as_ptr() as usize);
        let range = start.map(|start| start..start + text.len());
        match range.filter(|range| payload.get(range.clone()) == Some(text)) {
            Some(range) => Self::Within(range),
            None => Self::Own(text.into()),
        }
    }

    pub(super) fn of<'a>(&'a self, payload: &'a str) -> &'a str {
        match self {
            Self::Within(range) => payload.get(range.clone()).unwrap_or_default(),
            Self::Own(text) => text,
        }
    }
}

/// One value for each type. The list only grows, so that reading it takes no lock.
#[derive(Default)]
pub(super) struct Typed(OnceLock<Box<(Arc<dyn Any + Send + Sync>, Typed)>>);

impl Typed {
    /// Returns the value of type `T`. The first call creates it with `make`, and stores it if
    /// `reserve` finds memory for it.
    pub(super) fn get_or<T: Any + Send + Sync, E>(
        &self,
        reserve: impl FnOnce() -> bool,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut last = self;
        while let Some(entry) = last.0.get() {
            if let Ok(value) = Arc::clone(&entry.0).downcast() {
                return Ok(value);
            }
            last = &entry.1;
        }
        let value = Arc::new(make()?);
        if !reserve() {
            return Ok(value);
        }
        // If another thread was faster, this value is not stored.
        let _ = last
            .0
            .set(Box::new((Arc::clone(&value) as Arc<dyn Any + Send + Sync>, Typed::default())));
        Ok(value)
    }
}
