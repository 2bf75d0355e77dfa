use std::convert::Infallible;
use std::future;
use std::sync::Arc;

use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Behaviour, Shared};

/// Serves until dropped; the connections go with it.
pub(super) async fn serve(listener: TcpListener, issuer: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let issuer = Arc::clone(&issuer);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&issuer), request));
                    // An error here is a client that went away, or `Behaviour::Close`.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// RFC 9110 §13.1: whether the client has this already.
fn is_known(request: &Request<Incoming>, response: &Response<String>) -> bool {
    [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)].into_iter().any(|(asked, has)| {
        response.status() == StatusCode::OK
            && request.headers().get(asked).is_some_and(|value| response.headers().get(has) == Some(value))
    })
}

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

async fn answer(issuer: Arc<Shared>, request: Request<Incoming>) -> Result<Response<String>, Closed> {
    let (delay, behaviour) = {
        let state = issuer.lock();
        (state.delay, state.behaviour.clone())
    };
    tokio::time::sleep(delay).await;
    match issuer.answer(request.uri().path()) {
        Some(response) if is_known(&request, &response) => {
            let (mut parts, _) = response.into_parts();
            parts.status = StatusCode::NOT_MODIFIED;
            Ok(Response::from_parts(parts, String::new()))
        }
        Some(response) => Ok(response),
        None => match behaviour {
            Behaviour::Close => Err(Closed),
            Behaviour::Hang => match future::pending::<Infallible>().await {},
            _ => {
                let mut response = Response::new(String::new());
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
        },
    }
}
