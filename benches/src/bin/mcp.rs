//! What rules per tool cost: `tools/call` with a cached token through `McpLayer`, beside the same
//! request through `ProtectLayer` and through the bare service; and what `resource_metadata` costs.
//!
//! `benches/run mcp`
//!
//! One thread. Each of many rounds measures every row in turn. The table has the medians; the
//! allocations are exact.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use portcullis::mcp::McpLayer;
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, Issuer, ProtectLayer, ResourceMetadata, Rule, Verifier};
use portcullis_benches::contenders::Failure;
use portcullis_benches::rounds::{median, minimum};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 101;
const REQUESTS: usize = 200;
const URL: &str = "https://api.example.com/mcp";

type Service = BoxCloneSyncService<Request<Body>, usize, Infallible>;

struct Row {
    name: String,
    service: Service,
    token: Option<String>,
    body: Bytes,
    times: Vec<f64>,
}

impl Row {
    fn requests(&self) -> Vec<Request<Body>> {
        let request = || {
            let request = Request::post("/mcp").header("content-type", "application/json");
            let request = self.token.iter().fold(request, |request, token| {
                request.header("authorization", format!("Bearer {token}"))
            });
            // Each request copies the pointer to the body, not the body.
            request.body(Body::from(self.body.clone())).unwrap_or_default()
        };
        (0..REQUESTS).map(|_| request()).collect()
    }

    fn serve(&mut self, runtime: &Runtime) -> f64 {
        let requests = self.requests();
        let service = &mut self.service;
        runtime.block_on(async {
            let start = Instant::now();
            for request in requests {
                let _ = black_box(service.call(request).await);
            }
            start.elapsed().as_secs_f64() / REQUESTS as f64
        })
    }

    fn allocations(&mut self, runtime: &Runtime) -> usize {
        let requests = self.requests();
        let service = &mut self.service;
        let region = Region::new(ALLOCATOR);
        runtime.block_on(async {
            for request in requests {
                let _ = black_box(service.call(request).await);
            }
        });
        let change = region.change();
        (change.allocations + change.reallocations) / REQUESTS
    }
}

/// Reads its request, as every MCP server does, and responds with the number of bytes.
async fn bare(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let bytes = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
    Ok(Response::builder().header("x-bytes", bytes).body(Body::empty()).unwrap_or_default())
}

/// The same type for all rows: the status of the response.
fn boxed<S, B>(service: S) -> Service
where
    S: tower::Service<Request<Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: 'static,
{
    BoxCloneSyncService::new(
        service.map_response(|response| usize::from(response.status().as_u16())),
    )
}

fn call(size: usize) -> Bytes {
    let head = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"write_note","arguments":{"id":"1","text":""#;
    let tail = r#""},"_meta":{"progressToken":1}}}"#;
    let text = "words of a note, ".repeat(size / 17 + 1);
    let text = text.get(..size.saturating_sub(head.len() + tail.len())).unwrap_or_default();
    format!("{head}{text}{tail}").into()
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::RS256)?;
    let config = Issuer::new(issuer.iss(), URL)?.jwks(issuer.jwks());
    let verifier = Verifier::new(config)?;
    let metadata = ResourceMetadata::new(URL, &verifier)?;
    let token = |scope: &str| Some(issuer.token().audience(URL).scope(scope).build());
    let writer = token("notes:read notes:write");
    let plain = ProtectLayer::new(verifier).scope("notes:read");
    let protect = plain.clone().resource_metadata(&metadata);
    let mcp = |protect: &ProtectLayer| -> Result<McpLayer, Failure> {
        Ok(McpLayer::new(protect.clone())?
            .tool("write_note", Rule::scope("notes:write"))
            .resource("drafts://{id}", Rule::scope("notes:write")))
    };
    let service = service_fn(bare);
    let mut rows = Vec::new();
    let mut row = |name: &str, service: Service, token: &Option<String>, body: Bytes| {
        let (name, token) = (name.to_owned(), token.clone());
        rows.push(Row { name, service, token, body, times: Vec::new() });
    };
    for (size, label) in [(1 << 10, "1 KB"), (10 << 10, "10 KB"), (100 << 10, "100 KB")] {
        let body = call(size);
        row(&format!("{label}, the bare service"), boxed(service), &writer, body.clone());
        row(
            &format!("{label}, ProtectLayer"),
            boxed(protect.layer(service)),
            &writer,
            body.clone(),
        );
        let none = McpLayer::new(protect.clone())?;
        row(
            &format!("{label}, McpLayer without rules"),
            boxed(none.layer(service)),
            &writer,
            body.clone(),
        );
        row(
            &format!("{label}, McpLayer with rules"),
            boxed(mcp(&protect)?.layer(service)),
            &writer,
            body,
        );
    }
    let body = call(1 << 10);
    let reader = token("notes:read");
    row("accepted, without metadata", boxed(plain.layer(service)), &writer, body.clone());
    row("accepted, with metadata", boxed(protect.layer(service)), &writer, body.clone());
    row("401, without metadata", boxed(plain.layer(service)), &None, body.clone());
    row("401, with metadata", boxed(protect.layer(service)), &None, body.clone());
    row("403 of a tool, McpLayer", boxed(mcp(&protect)?.layer(service)), &reader, body);

    // The token is cached from its second use on.
    for row in &mut rows {
        row.serve(&runtime);
    }
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let time = row.serve(&runtime);
            row.times.push(time);
        }
    }
    println!("{:<36} {:>10} {:>10} {:>12}", "", "median", "minimum", "allocations");
    for row in &mut rows {
        let allocations = row.allocations(&runtime);
        let (middle, least) = (median(&row.times) * 1e6, minimum(&row.times) * 1e6);
        println!("{:<36} {middle:>7.2} µs {least:>7.2} µs {allocations:>12}", row.name);
    }
    Ok(())
}
