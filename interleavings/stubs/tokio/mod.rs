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

    /// A shorter pause is over at once. A longer one ends the task, as if its runtime were no
    /// longer driven: otherwise, a task that repeats itself would never end.
    pub(crate) async fn sleep(pause: Duration) {
        if pause >= Duration::from_secs(1) {
            super::runtime::end_this_task().await;
        }
    }
}

pub(crate) mod task {
    pub(crate) async fn yield_now() {}
}
