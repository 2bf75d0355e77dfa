//! Which fault is planted in this process.

use std::sync::OnceLock;

static PLANTED: OnceLock<&'static str> = OnceLock::new();

pub(crate) fn plant(name: &'static str) {
    let _ = PLANTED.set(name);
}

pub(crate) fn is(name: &str) -> bool {
    PLANTED.get().is_some_and(|planted| *planted == name)
}
