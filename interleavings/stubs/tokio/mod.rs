//! What the explored modules use of tokio, on the primitives of loom. Nothing times out: a request
//! that would wait for its limit is reported as a deadlock.

pub(crate) mod runtime;
pub(crate) mod sync;

pub(crate) mod time {
    use std::future::Future;
    use std::time::Duration;

    pub(crate) use std::time::Instant;

    pub(crate) struct Elapsed;

    pub(crate) async fn timeout<F: Future>(_: Duration, future: F) -> Result<F::Output, Elapsed> {
        Ok(future.await)
    }

    pub(crate) async fn sleep(_: Duration) {}
}

pub(crate) mod task {
    pub(crate) async fn yield_now() {}
}
