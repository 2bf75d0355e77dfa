//! Contenders that are measured in rounds within one process. Each round sends some requests to
//! each of them, so that other load on the machine affects all of them alike.

use std::hint::black_box;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use portcullis::testing::DpopClient;
use tokio::runtime::Runtime;
use tower::Service as _;

use crate::contenders::{Failure, PROOF_URL};

/// A service, and the tokens that its requests use in order.
pub struct Way<'a> {
    pub name: String,
    app: Router,
    tokens: &'a [String],
    /// Makes the proof of each request, if the tokens are bound to a key.
    client: Option<&'a DpopClient>,
    next: usize,
    /// Seconds per request, for each round.
    pub times: Vec<f64>,
}

impl<'a> Way<'a> {
    /// With its state, as a server does. Without it, axum applies the layers again for each
    /// request.
    pub fn new(name: impl Into<String>, app: Router, tokens: &'a [String]) -> Self {
        Self::without_state(name, app.with_state(()), tokens)
    }

    /// With a DPoP proof for each request.
    pub fn with_proofs(
        name: impl Into<String>,
        app: Router,
        tokens: &'a [String],
        client: &'a DpopClient,
    ) -> Self {
        Self { client: Some(client), ..Self::new(name, app, tokens) }
    }

    /// Without its state: axum applies the layers again for each request.
    pub fn without_state(name: impl Into<String>, app: Router, tokens: &'a [String]) -> Self {
        Self { name: name.into(), app, tokens, client: None, next: 0, times: Vec::new() }
    }

    /// Creates the next requests, before they are measured.
    pub fn requests(&mut self, count: usize) -> Result<Vec<Request<Body>>, Failure> {
        let mut request = || {
            let request = Request::get("/");
            let token = self.tokens.get(self.next % self.tokens.len().max(1));
            let request = match (token, self.client) {
                (Some(token), None) => {
                    request.header(header::AUTHORIZATION, format!("Bearer {token}"))
                }
                (Some(token), Some(client)) => request
                    .header(header::AUTHORIZATION, format!("DPoP {token}"))
                    .header("dpop", client.proof("GET", PROOF_URL, token).build()),
                (None, _) => request,
            };
            self.next += 1;
            Ok(request.body(Body::empty())?)
        };
        (0..count).map(|_| request()).collect()
    }

    /// Serves requests that are not measured. The first one may fetch keys.
    ///
    /// Returns an error if a token is rejected.
    pub fn warm_up(&mut self, runtime: &Runtime) -> Result<(), Failure> {
        for request in self.requests(3)? {
            let status = runtime.block_on(self.app.call(request))?.status();
            if status != 200 && !self.tokens.is_empty() {
                return Err(format!("{}: expected 200, found {status}", self.name).into());
            }
        }
        Ok(())
    }

    pub fn serve(&mut self, requests: Vec<Request<Body>>, runtime: &Runtime) -> Duration {
        let app = &mut self.app;
        runtime.block_on(async {
            let start = Instant::now();
            for request in requests {
                let _ = black_box(app.call(request).await);
            }
            start.elapsed()
        })
    }

    pub fn round(&mut self, count: usize, runtime: &Runtime) -> Result<(), Failure> {
        let requests = self.requests(count)?;
        let time = self.serve(requests, runtime);
        self.times.push(time.as_secs_f64() / count as f64);
        Ok(())
    }
}

pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

pub fn median(values: &[f64]) -> f64 {
    sorted(values.to_vec()).get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn minimum(values: &[f64]) -> f64 {
    sorted(values.to_vec()).first().copied().unwrap_or(f64::NAN)
}
