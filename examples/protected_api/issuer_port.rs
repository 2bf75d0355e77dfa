//! The embedded issuer's port, which the operator closes and opens: to see what an API does while its issuer is away.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

/// A server that can be stopped and started again at the same address.
#[derive(Clone)]
pub(crate) struct IssuerPort(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    router: Router,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<io::Result<()>>,
}

impl IssuerPort {
    /// Serves at once.
    pub(crate) fn serve(listener: TcpListener, router: Router) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let running = Mutex::new(Some(Running::new(listener, router.clone())));
        Ok(Self(Arc::new(Inner { address, router, running })))
    }

    pub(crate) async fn is_open(&self) -> bool {
        self.0.running.lock().await.is_some()
    }

    /// # Errors
    ///
    /// When somebody else has taken the address meanwhile.
    pub(crate) async fn open(&self) -> io::Result<()> {
        let mut running = self.0.running.lock().await;
        if running.is_none() {
            let listener = TcpListener::bind(self.0.address).await?;
            *running = Some(Running::new(listener, self.0.router.clone()));
        }
        Ok(())
    }

    /// Refuses connections, and ends those that there are.
    pub(crate) async fn close(&self) {
        let mut running = self.0.running.lock().await;
        if let Some(Running { stop, mut ended }) = running.take() {
            let _ = stop.send(());
            // Answers under way are written; whoever hangs does not keep the port open.
            if tokio::time::timeout(Duration::from_secs(1), &mut ended).await.is_err() {
                ended.abort();
            }
        }
    }
}

impl Running {
    fn new(listener: TcpListener, router: Router) -> Self {
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let ended = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        Self { stop, ended }
    }
}
