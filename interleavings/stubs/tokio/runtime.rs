//! A runtime with a thread for each task. One that is shut down drops them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use loom::thread::{self, JoinHandle};

thread_local! {
    /// All threads of an exploration are one for std.
    static IS_SHUT_DOWN: Cell<bool> = const { Cell::new(false) };
    static ENDS: Cell<bool> = const { Cell::new(false) };
    static TASKS: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
}

pub(crate) struct Handle;

#[derive(Debug)]
pub(crate) struct TryCurrentError;

impl Handle {
    pub(crate) fn try_current() -> Result<Self, TryCurrentError> {
        Ok(Self)
    }

    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        if IS_SHUT_DOWN.get() {
            drop(task);
        } else {
            let task = thread::spawn(move || loom::future::block_on(until_it_ends(task)));
            TASKS.with_borrow_mut(|tasks| tasks.push(task));
        }
    }
}

/// Drops a task as soon as it calls [`end_this_task`].
async fn until_it_ends<F: Future<Output = ()>>(task: F) {
    let mut task = pin!(task);
    poll_fn(|context| match task.as_mut().poll(context) {
        Poll::Pending if !ENDS.take() => Poll::Pending,
        Poll::Pending | Poll::Ready(()) => Poll::Ready(()),
    })
    .await;
}

pub(super) async fn end_this_task() {
    poll_fn(|_| {
        ENDS.set(true);
        Poll::Pending
    })
    .await
}

/// Waits until all tasks have ended.
pub(crate) fn join_all() {
    while let Some(task) = TASKS.with_borrow_mut(Vec::pop) {
        task.join().expect("no panic: it would have ended the process");
    }
}

/// From now on, tasks are dropped before they have begun.
pub(crate) fn shut_down(is_shut_down: bool) {
    IS_SHUT_DOWN.set(is_shut_down);
}
