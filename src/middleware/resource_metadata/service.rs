//! The HTTP responses with a metadata document (RFC 9728 §3.2), as a service and as a layer.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue,
};
use http::{Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{ResourceMetadata, WELL_KNOWN};

/// How long clients and proxies may cache the document, and browsers the result of a preflight. It
/// changes when the application is deployed.
const CACHE_FOR: HeaderValue = HeaderValue::from_static("public, max-age=3600");
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("3600");

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// Responds to a request for the document. Nothing of the request but its method matters.
fn respond<R: From<String>>(metadata: &ResourceMetadata, method: &Method) -> Response<R> {
    let document = &metadata.0.document;
    let (status, body) = match *method {
        Method::GET => (StatusCode::OK, document.clone()),
        Method::HEAD => (StatusCode::OK, String::new()),
        Method::OPTIONS => (StatusCode::NO_CONTENT, String::new()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
    };
    let mut response = Response::new(R::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // The document is public, so pages of every origin may read it. A wildcard suffices, because
    // the request needs no credentials.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    match status {
        StatusCode::OK => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CONTENT_LENGTH, document.len().into());
            headers.insert(CACHE_CONTROL, CACHE_FOR);
        }
        StatusCode::NO_CONTENT => {
            headers.insert(ALLOW, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
            // MCP clients send `MCP-Protocol-Version`, so browsers send a preflight.
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
            headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
        }
        _ => {
            headers.insert(ALLOW, METHODS);
        }
    }
    response
}

/// Responds with a metadata document. Created by [`ResourceMetadata::service`].
#[derive(Clone, Debug)]
pub struct ResourceMetadataService(pub(super) ResourceMetadata);

impl<B> Service<Request<B>> for ResourceMetadataService {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(respond(&self.0, request.method())))
    }
}

/// Responds with the metadata documents of one or more resources, and passes all other requests on.
///
/// For one resource, [`ResourceMetadata::layer`] creates it. For several, each document is served
/// at its own path only: at the well-known URI of the host, a client would find the document of
/// another resource. The exception is a resource whose URL has no path, whose own path that is.
///
/// ```
/// use portcullis::{Audience, Issuer, ResourceMetadata, ResourceMetadataLayer, Verifier};
///
/// let urls = ["https://api.example.com/notes", "https://api.example.com/orders"];
/// let verifier = Verifier::new(Issuer::new("https://issuer.example.com/", urls)?)?;
/// let app: axum::Router = axum::Router::new()
///     // Routes and their layers first.
///     .layer(ResourceMetadataLayer::new([
///         ResourceMetadata::new(urls[0], &verifier)?,
///         ResourceMetadata::new(urls[1], &verifier)?,
///     ]));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ResourceMetadataLayer {
    resources: Arc<[ResourceMetadata]>,
}

impl ResourceMetadataLayer {
    /// Creates the layer for these resources.
    pub fn new(resources: impl IntoIterator<Item = ResourceMetadata>) -> Self {
        Self { resources: resources.into_iter().collect() }
    }
}

impl<S> Layer<S> for ResourceMetadataLayer {
    type Service = ServeResourceMetadata<S>;

    fn layer(&self, inner: S) -> ServeResourceMetadata<S> {
        ServeResourceMetadata { inner, resources: Arc::clone(&self.resources) }
    }
}

/// The service of [`ResourceMetadataLayer`].
#[derive(Clone)]
pub struct ServeResourceMetadata<S> {
    inner: S,
    resources: Arc<[ResourceMetadata]>,
}

impl<S> ServeResourceMetadata<S> {
    fn find<B>(&self, request: &Request<B>) -> Option<&ResourceMetadata> {
        let (path, query) = (request.uri().path(), request.uri().query());
        self.resources.iter().find(|one| one.is_at(path, query)).or_else(|| {
            match &*self.resources {
                [only] if only.0.is_at_root && path == WELL_KNOWN => Some(only),
                _ => None,
            }
        })
    }
}

impl<S: fmt::Debug> fmt::Debug for ServeResourceMetadata<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServeResourceMetadata")
            .field("inner", &self.inner)
            .field("resources", &self.resources)
            .finish()
    }
}

impl<S, B, R> Service<Request<B>> for ServeResourceMetadata<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResourceMetadataFuture<S::Future, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = match self.find(&request) {
            Some(metadata) => {
                State::Document { response: Some(respond(metadata, request.method())) }
            }
            None => State::Inner { future: self.inner.call(request) },
        };
        ResourceMetadataFuture { state }
    }
}

pin_project! {
    /// The future of [`ServeResourceMetadata`].
    #[derive(Debug)]
    pub struct ResourceMetadataFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProjection]
    enum State<F, R> {
        Document { response: Option<Response<R>> },
        Inner { #[pin] future: F },
    }
}

impl<F, R, E> Future for ResourceMetadataFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Inner { future } => future.poll(context),
            // `None` after completion: stay pending rather than panic.
            StateProjection::Document { response } => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
            }
        }
    }
}
