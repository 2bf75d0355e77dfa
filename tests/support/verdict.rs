//! The outcome of a verification in one word.

use portcullis::Verifier;

/// Returns `ok`, or the code of the error.
pub(crate) async fn verdict(verifier: &Verifier, token: &str) -> &'static str {
    verifier.verify(token).await.map_or_else(|error| error.code(), |_| "ok")
}
