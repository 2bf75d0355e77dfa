//! An HTTP client whose connections are kept: what the server's file descriptors are counted
//! against.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::judge::{Answer, Answered};
use crate::server::REASON;

pub(crate) type Outgoing = Request<Full<Bytes>>;
type Connection = SendRequest<Full<Bytes>>;

/// A good request that takes longer has failed. The server's own limits are 5 seconds.
const LIMIT: Duration = Duration::from_secs(20);
/// How many idle connections are kept.
const IDLE: usize = 64;

pub(crate) struct Client {
    address: String,
    idle: Mutex<Vec<Connection>>,
}

impl Client {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), idle: Mutex::default() }
    }

    /// Opens the connections that are kept, so that their number does not grow later.
    pub(crate) async fn open(&self) -> Result<(), String> {
        for _ in 0..IDLE {
            let connection = self.connect().await?;
            self.put(connection);
        }
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.lock().clear();
    }

    pub(crate) async fn send(&self, request: Outgoing) -> Answered {
        match timeout(LIMIT, self.exchange(request)).await {
            Ok(answered) => answered.map(|(answer, _)| answer),
            Err(_) => Err(format!("no answer within {LIMIT:?}")),
        }
    }

    pub(crate) async fn body(&self, request: Outgoing) -> Result<Bytes, String> {
        match timeout(LIMIT, self.exchange(request)).await {
            Ok(answered) => answered.map(|(_, body)| body),
            Err(_) => Err(format!("no answer within {LIMIT:?}")),
        }
    }

    /// Sends bytes at a connection of their own, and reads the status of the answer.
    pub(crate) async fn send_bytes(&self, bytes: &[u8]) -> Answered {
        let exchange = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(bytes).await?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = match timeout(Duration::from_secs(5), exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer".to_owned()),
        };
        let status =
            std::str::from_utf8(&answer).ok().and_then(|line| line.get(9..12)?.parse().ok());
        let status = status.ok_or("no HTTP")?;
        Ok(Answer { status, code: String::new(), has_retry_after: false })
    }

    async fn exchange(&self, request: Outgoing) -> Result<(Answer, Bytes), String> {
        let mut connection = self.take().await?;
        let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        let body = Self::read(body).await?;
        // It can be used again once it is ready; a connection that the server has closed is not.
        if connection.ready().await.is_ok() {
            self.put(connection);
        }
        let code = header(&parts.headers, REASON);
        let code = if code.is_empty() { error_in(&body) } else { code };
        let has_retry_after = parts.headers.contains_key("retry-after");
        let response = Response::from_parts(parts, ());
        let status = response.status().as_u16();
        Ok((Answer { status, code, has_retry_after }, body))
    }

    async fn read(body: Incoming) -> Result<Bytes, String> {
        Ok(body.collect().await.map_err(|error| error.to_string())?.to_bytes())
    }

    async fn take(&self) -> Result<Connection, String> {
        loop {
            let Some(mut idle) = self.lock().pop() else { return self.connect().await };
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.lock();
        if idle.len() < IDLE {
            idle.push(connection);
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let (connection, driver) =
            handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        Ok(connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// The error in the body of the answer to a logout token (`error`) or a security event (`err`).
fn error_in(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = body["error"].as_str().or(body["err"].as_str());
    error.unwrap_or_default().to_owned()
}
