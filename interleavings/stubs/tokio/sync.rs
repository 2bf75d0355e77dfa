//! `watch`, `oneshot` and `OnceCell`.

pub(crate) use once_cell::OnceCell;

pub(crate) mod watch {
    use std::future::poll_fn;
    use std::ops::Deref;
    use std::sync::Arc;
    use std::task::{Poll, Waker};

    use loom::sync::{Mutex, MutexGuard};

    struct State<T> {
        value: T,
        version: u64,
        is_closed: bool,
        waiting: Vec<Waker>,
    }

    type Shared<T> = Arc<Mutex<State<T>>>;

    fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, State<T>> {
        shared.lock().expect("no panic under this lock")
    }

    pub(crate) struct Sender<T>(Shared<T>);

    pub(crate) struct Receiver<T> {
        shared: Shared<T>,
        seen: u64,
    }

    pub(crate) struct Ref<T>(T);

    impl<T> Deref for Ref<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    #[derive(Debug)]
    pub(crate) struct RecvError;

    pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
        let sender = Sender::new(value);
        let receiver = sender.subscribe();
        (sender, receiver)
    }

    impl<T> Sender<T> {
        pub(crate) fn new(value: T) -> Self {
            let state = State { value, version: 0, is_closed: false, waiting: Vec::new() };
            Self(Arc::new(Mutex::new(state)))
        }

        pub(crate) fn subscribe(&self) -> Receiver<T> {
            let seen = lock(&self.0).version;
            Receiver { shared: Arc::clone(&self.0), seen }
        }

        pub(crate) fn send_replace(&self, value: T) -> T {
            let (previous, waiting) = {
                let mut state = lock(&self.0);
                state.version += 1;
                let previous = std::mem::replace(&mut state.value, value);
                (previous, std::mem::take(&mut state.waiting))
            };
            waiting.into_iter().for_each(Waker::wake);
            previous
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let waiting = {
                let mut state = lock(&self.0);
                state.is_closed = true;
                std::mem::take(&mut state.waiting)
            };
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self { shared: Arc::clone(&self.shared), seen: self.seen }
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn same_channel(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.shared, &other.shared)
        }

        pub(crate) async fn changed(&mut self) -> Result<(), RecvError> {
            poll_fn(|context| {
                let mut state = lock(&self.shared);
                if state.version != self.seen {
                    self.seen = state.version;
                    return Poll::Ready(Ok(()));
                }
                if state.is_closed {
                    return Poll::Ready(Err(RecvError));
                }
                state.waiting.push(context.waker().clone());
                Poll::Pending
            })
            .await
        }
    }

    impl<T: Clone> Receiver<T> {
        pub(crate) async fn wait_for(
            &mut self,
            mut is_it: impl FnMut(&T) -> bool,
        ) -> Result<Ref<T>, RecvError> {
            loop {
                let value = lock(&self.shared).value.clone();
                if is_it(&value) {
                    return Ok(Ref(value));
                }
                self.changed().await?;
            }
        }
    }
}

mod once_cell {
    use std::future::{Future, poll_fn};
    use std::sync::OnceLock;
    use std::task::{Poll, Waker};

    use loom::sync::{Mutex, MutexGuard};

    pub(crate) struct OnceCell<T> {
        value: OnceLock<T>,
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        is_set: bool,
        is_computing: bool,
        waiting: Vec<Waker>,
    }

    /// Who computes the value. Dropped without one, another one computes it.
    struct Computing<'a, T>(&'a OnceCell<T>);

    impl<T> OnceCell<T> {
        pub(crate) fn new() -> Self {
            Self { value: OnceLock::new(), state: Mutex::default() }
        }

        pub(crate) fn initialized(&self) -> bool {
            self.lock().is_set
        }

        fn lock(&self) -> MutexGuard<'_, State> {
            self.state.lock().expect("no panic under this lock")
        }

        pub(crate) async fn get_or_init<F: Future<Output = T>>(
            &self,
            compute: impl FnOnce() -> F,
        ) -> &T {
            let computing = poll_fn(|context| {
                let mut state = self.lock();
                if state.is_set {
                    return Poll::Ready(None);
                }
                if state.is_computing {
                    state.waiting.push(context.waker().clone());
                    return Poll::Pending;
                }
                state.is_computing = true;
                Poll::Ready(Some(Computing(self)))
            })
            .await;
            if let Some(computing) = computing {
                let value = compute().await;
                let _ = self.value.set(value);
                self.lock().is_set = true;
                drop(computing);
            }
            self.value.get().expect("set before `is_set`")
        }
    }

    impl<T> Drop for Computing<'_, T> {
        fn drop(&mut self) {
            let waiting = {
                let mut state = self.0.lock();
                state.is_computing = false;
                std::mem::take(&mut state.waiting)
            };
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

pub(crate) mod oneshot {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use loom::sync::{Mutex, MutexGuard};

    struct State<T> {
        value: Option<T>,
        is_sender_gone: bool,
        is_receiver_gone: bool,
        waiting: Option<Waker>,
    }

    type Shared<T> = Arc<Mutex<State<T>>>;

    fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, State<T>> {
        shared.lock().expect("no panic under this lock")
    }

    pub(crate) struct Sender<T>(Shared<T>);

    pub(crate) struct Receiver<T>(Shared<T>);

    #[derive(Debug)]
    pub(crate) struct RecvError;

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let state =
            State { value: None, is_sender_gone: false, is_receiver_gone: false, waiting: None };
        let shared = Arc::new(Mutex::new(state));
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    impl<T> Sender<T> {
        pub(crate) fn is_closed(&self) -> bool {
            lock(&self.0).is_receiver_gone
        }

        pub(crate) fn send(self, value: T) -> Result<(), T> {
            let mut state = lock(&self.0);
            if state.is_receiver_gone {
                return Err(value);
            }
            state.value = Some(value);
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let waiting = {
                let mut state = lock(&self.0);
                state.is_sender_gone = true;
                state.waiting.take()
            };
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, RecvError>;

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            let mut state = lock(&self.0);
            if let Some(value) = state.value.take() {
                return Poll::Ready(Ok(value));
            }
            if state.is_sender_gone {
                return Poll::Ready(Err(RecvError));
            }
            state.waiting = Some(context.waker().clone());
            Poll::Pending
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let unread = {
                let mut state = lock(&self.0);
                state.is_receiver_gone = true;
                state.value.take()
            };
            drop(unread);
        }
    }
}
