//! Hedged requests (Dean and Barroso, *The Tail at Scale*): a second request beside one that is
//! late.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Returns the first success, or the last error if all attempts fail.
pub(super) async fn first_good<const N: usize, F, T, E>(mut tries: [Pin<&mut F>; N]) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let (mut has_ended, mut failures) = ([false; N], 0);
    poll_fn(|context| {
        for (attempt, has_ended) in
            tries.iter_mut().zip(&mut has_ended).filter(|(_, has_ended)| !**has_ended)
        {
            if let Poll::Ready(answer) = attempt.as_mut().poll(context) {
                *has_ended = true;
                failures += 1;
                if answer.is_ok() || failures == N {
                    return Poll::Ready(answer);
                }
            }
        }
        Poll::Pending
    })
    .await
}
