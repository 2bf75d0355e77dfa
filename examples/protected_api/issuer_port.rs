//! The embedded issuer's port. The operator closes and opens it to see how an API behaves while its
//! issuer is down.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

/// A server that can be stopped and restarted at the same address.
#[derive(Clone)]
pub(crate) struct IssuerPort(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    router: Router,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl IssuerPort {
    /// Starts to serve immediately.
    pub(crate) fn serve(listener: TcpListener, router: Router) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let running = Mutex::new(Some(tokio::spawn(serve(listener, router.clone()))));
        Ok(Self(Arc::new(Inner { address, router, running })))
    }

    pub(crate) async fn is_open(&self) -> bool {
        self.0.running.lock().await.is_some()
    }

    /// # Errors
    ///
    /// Returns an error if another process has taken the address.
    pub(crate) async fn open(&self) -> io::Result<()> {
        let mut running = self.0.running.lock().await;
        if running.is_none() {
            let listener = TcpListener::bind(self.0.address).await?;
            *running = Some(tokio::spawn(serve(listener, self.0.router.clone())));
        }
        Ok(())
    }

    /// Closes the port and all open connections, as if the machine had lost power.
    pub(crate) async fn close(&self) {
        let mut running = self.0.running.lock().await;
        if let Some(running) = running.take() {
            running.abort();
            // The port stays open until the task ends.
            let _ = running.await;
        }
    }
}

/// Serves until dropped. Dropping it closes the connections, which `axum::serve` would leave open.
async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // For example, too many open files: wait for others to be closed.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    // An error here means that the client disconnected.
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
