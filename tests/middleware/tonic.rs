//! A gRPC service behind the layer.

use portcullis::testing::{Behavior, TestIssuer, TokenBuilder};
use portcullis::{AccessToken, Algorithm, ProtectLayer, Verifier};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Reports `SERVING` only if the subject of the token is "alice".
struct OnlyAlice;

#[tonic::async_trait]
impl Health for OnlyAlice {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let token = request
            .extensions()
            .get::<AccessToken>()
            .ok_or_else(|| Status::internal("no layer"))?;
        let status = if token.subject() == Some("alice") {
            ServingStatus::Serving
        } else {
            ServingStatus::Unknown
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

async fn client(issuer: &TestIssuer) -> HealthClient<Channel> {
    let protect = ProtectLayer::new(Verifier::new(issuer.issuer()).unwrap()).scope("health:read");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let service = HealthServer::new(OnlyAlice);
    tokio::spawn(
        Server::builder().layer(protect).add_service(service).serve_with_incoming(incoming),
    );
    HealthClient::new(Endpoint::new(address).unwrap().connect().await.unwrap())
}

async fn check(
    client: &mut HealthClient<Channel>,
    token: Option<TokenBuilder>,
) -> Result<i32, Code> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(token) = token {
        let value = format!("Bearer {}", token.build()).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    client
        .check(request)
        .await
        .map(|answer| answer.into_inner().status)
        .map_err(|status| status.code())
}

#[tokio::test]
async fn a_grpc_service_receives_the_token_and_its_client_the_rejection() {
    struct Case {
        name: &'static str,
        token: Option<TokenBuilder>,
        expected: Result<i32, Code>,
    }

    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let mut client = client(&issuer).await;
    issuer.set_behavior(Behavior::Status(500));
    let good = || issuer.token().subject("alice").scope("health:read");
    assert_eq!(check(&mut client, Some(good())).await, Err(Code::Unavailable), "no keys");

    issuer.set_behavior(Behavior::Serve);
    let fresh = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let mut client = self::client(&fresh).await;
    let good = || fresh.token().subject("alice").scope("health:read");
    for Case { name, token, expected } in [
        Case { name: "valid", token: Some(good()), expected: Ok(ServingStatus::Serving.into()) },
        Case {
            name: "another subject",
            token: Some(good().subject("bob")),
            expected: Ok(ServingStatus::Unknown.into()),
        },
        Case { name: "no token", token: None, expected: Err(Code::Unauthenticated) },
        Case {
            name: "expired",
            token: Some(good().expired()),
            expected: Err(Code::Unauthenticated),
        },
        Case {
            name: "forged",
            token: Some(good().tampered()),
            expected: Err(Code::Unauthenticated),
        },
        Case {
            name: "without scope",
            token: Some(good().scope("x")),
            expected: Err(Code::PermissionDenied),
        },
    ] {
        assert_eq!(check(&mut client, token).await, expected, "{name}");
    }
}
