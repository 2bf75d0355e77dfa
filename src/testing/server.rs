use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as BoundListener};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{future, io};

use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::issuer::{Answered, Shared};

/// A free loopback port, bound but not served yet.
pub(super) struct Port {
    listener: BoundListener,
    pub(super) address: SocketAddr,
}

impl Port {
    pub(super) fn bind() -> io::Result<Self> {
        let listener = BoundListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, address })
    }
}

/// Serves an issuer at its port, until dropped.
///
/// It has a thread of its own, because the runtime of the test that starts it ends with that test,
/// and other tests may share the issuer.
pub(super) struct Server {
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(port: Port, issuer: Arc<Shared>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let (started, has_started) = mpsc::channel();
        // The runtime is also created on that thread: a runtime panics if it is dropped on the
        // thread of an asynchronous test.
        let run = move || {
            let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            runtime.block_on(async {
                let listener = match TcpListener::from_std(port.listener) {
                    Ok(listener) => listener,
                    Err(error) => {
                        let _ = started.send(Err(error));
                        return;
                    }
                };
                let _ = started.send(Ok(()));
                tokio::select! {
                    () = serve(listener, issuer) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("test-issuer".to_owned()).spawn(run)?;
        has_started.recv().map_err(io::Error::other)??;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        // Wait for the thread, so that the port is closed when this returns. The thread itself
        // waits for nothing.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves until dropped, which closes all connections.
async fn serve(listener: TcpListener, issuer: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // For example, too many open files: wait until other connections are closed.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let issuer = Arc::clone(&issuer);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&issuer), request));
                    // An error is a client that disconnected, or `Behavior::Close`.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// RFC 9110 §13.1: whether the client already has this response.
fn is_known(asked_with: &HeaderMap, response: &Response<String>) -> bool {
    [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)].into_iter().any(|(asked, has)| {
        response.status() == StatusCode::OK
            && asked_with.get(asked).is_some_and(|value| response.headers().get(has) == Some(value))
    })
}

/// Makes hyper close the connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

/// Maximum length of a form, in bytes: a token of 16 KiB and credentials.
const MAX_FORM: usize = 64 * 1024;

/// Reads a form. Closes the connection if it is too long.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Closed> {
    let mut form = Vec::new();
    while let Some(frame) = future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let data = frame.map_err(|_| Closed)?.into_data().unwrap_or_default();
        form.extend_from_slice(&data);
        if form.len() > MAX_FORM {
            return Err(Closed);
        }
    }
    Ok(form)
}

async fn answer(
    issuer: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<String>, Closed> {
    let delay = issuer.lock().delay;
    tokio::time::sleep(delay).await;
    let path = request.uri().path().to_owned();
    let is_post = request.method() == Method::POST;
    let (head, body) = request.into_parts();
    let form = if is_post { Some(read(body).await?) } else { None };
    match issuer.answer(&path, form.as_deref()) {
        Answered::With(response) if is_known(&head.headers, &response) => {
            let (mut parts, _) = response.into_parts();
            parts.status = StatusCode::NOT_MODIFIED;
            Ok(Response::from_parts(parts, String::new()))
        }
        Answered::With(response) => Ok(response),
        Answered::Close => Err(Closed),
        Answered::Never => match future::pending::<Infallible>().await {},
        Answered::NotHere => {
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok(response)
        }
    }
}
