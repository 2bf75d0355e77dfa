//! Polling a future a single time.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Polls a future once, without a task that it could wake.
pub(crate) fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
