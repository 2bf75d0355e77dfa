//! [`McpBody`]: the body of the service's response, or of a rejection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The response body of [`Mcp`](crate::mcp::Mcp): that of the inner service, or that of a
    /// rejection.
    #[derive(Debug)]
    pub struct McpBody<R> {
        #[pin]
        kind: Kind<R>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = KindProjection]
    enum Kind<R> {
        Inner { #[pin] body: R },
        Own { bytes: Option<Bytes> },
    }
}

impl<R> McpBody<R> {
    pub(super) fn inner(body: R) -> Self {
        Self { kind: Kind::Inner { body } }
    }
}

/// An empty body.
impl<R> Default for McpBody<R> {
    fn default() -> Self {
        Self { kind: Kind::Own { bytes: None } }
    }
}

impl<R> From<String> for McpBody<R> {
    fn from(text: String) -> Self {
        Self { kind: Kind::Own { bytes: (!text.is_empty()).then(|| text.into()) } }
    }
}

impl<R: Body<Data = Bytes>> Body for McpBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        match self.project().kind.project() {
            KindProjection::Inner { body } => body.poll_frame(context),
            KindProjection::Own { bytes } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Own { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Own { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}
