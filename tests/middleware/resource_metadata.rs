//! RFC 9728: the metadata document of a resource, where it is found, and the challenges that name
//! it.

use std::future::{Ready, ready};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::routing::get;
use axum::{Router, response::Response};
use portcullis::testing::{
    AUDIENCE, TestIssuer, assert_challenge, assert_discoverable, challenges,
};
use portcullis::{
    AccessToken, Algorithm, Audience, Error, Issuer, Issuers, ProtectLayer, ResourceMetadata,
    ResourceMetadataBuilder, ResourceMetadataLayer, Rule, TokenSource, Verifier, providers,
};
use serde_json::{Value, json};
use tower::{Layer as _, Service, ServiceExt as _};

use crate::text;

const ISS: &str = "https://issuer.example/";
const MCP: &str = "https://api.example.com/mcp";

fn issuer() -> TestIssuer {
    TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap()
}

/// A verifier of the issuer's tokens for this resource.
fn verifier(issuer: &TestIssuer, resource: &str) -> Verifier {
    let config = Issuer::new(issuer.iss(), Audience::resource(resource)).unwrap();
    Verifier::new(config.jwks(issuer.jwks())).unwrap()
}

fn builder(resource: &str) -> ResourceMetadataBuilder {
    ResourceMetadata::builder(resource, &verifier(&issuer(), resource))
}

fn document(metadata: &ResourceMetadata) -> Value {
    serde_json::from_str(metadata.document()).unwrap()
}

async fn answer(app: &Router, method: Method, uri: &str) -> Response {
    let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

#[test]
fn the_well_known_uri_is_inserted_before_the_path() {
    struct Case {
        resource: &'static str,
        url: &'static str,
        path: &'static str,
    }
    for Case { resource, url, path } in [
        Case {
            resource: "https://api.example.com/mcp",
            url: "https://api.example.com/.well-known/oauth-protected-resource/mcp",
            path: "/.well-known/oauth-protected-resource/mcp",
        },
        Case {
            resource: "https://api.example.com/a/b",
            url: "https://api.example.com/.well-known/oauth-protected-resource/a/b",
            path: "/.well-known/oauth-protected-resource/a/b",
        },
        // Only the slash right after the host is removed.
        Case {
            resource: "https://api.example.com/mcp/",
            url: "https://api.example.com/.well-known/oauth-protected-resource/mcp/",
            path: "/.well-known/oauth-protected-resource/mcp/",
        },
        Case {
            resource: "https://api.example.com",
            url: "https://api.example.com/.well-known/oauth-protected-resource",
            path: "/.well-known/oauth-protected-resource",
        },
        Case {
            resource: "https://api.example.com/",
            url: "https://api.example.com/.well-known/oauth-protected-resource",
            path: "/.well-known/oauth-protected-resource",
        },
        Case {
            resource: "https://api.example.com:8443/mcp",
            url: "https://api.example.com:8443/.well-known/oauth-protected-resource/mcp",
            path: "/.well-known/oauth-protected-resource/mcp",
        },
        Case {
            resource: "https://api.example.com/mcp?tenant=a",
            url: "https://api.example.com/.well-known/oauth-protected-resource/mcp?tenant=a",
            path: "/.well-known/oauth-protected-resource/mcp",
        },
        Case {
            resource: "http://127.0.0.1:3000/mcp",
            url: "http://127.0.0.1:3000/.well-known/oauth-protected-resource/mcp",
            path: "/.well-known/oauth-protected-resource/mcp",
        },
    ] {
        let metadata = builder(resource).build().unwrap();
        assert_eq!((metadata.url(), metadata.path()), (url, path), "{resource}");
        // Byte by byte as configured: clients compare it with what the user typed.
        assert_eq!(metadata.resource(), resource);
        assert_eq!(document(&metadata)["resource"], resource);
    }
}

#[test]
fn invalid_metadata_are_errors() {
    let gateway = providers::cloudflare_access("acme", "32eafc7626e737").unwrap();
    let template = providers::entra_multi_tenant("6e74172b-be56-4843-9ff4-e66a39bb12e3").unwrap();
    let of = |issuers: Issuers| {
        ResourceMetadata::builder(MCP, &Verifier::new(issuers).unwrap()).with_another_audience()
    };
    struct Case {
        name: &'static str,
        builder: ResourceMetadataBuilder,
        sentence: &'static str,
    }
    for Case { name, builder, sentence } in [
        Case { name: "http", builder: builder("http://api.example.com/mcp"), sentence: "https" },
        Case {
            name: "fragment",
            builder: builder("https://api.example.com/mcp#a"),
            sentence: "without a fragment",
        },
        Case { name: "not a URL", builder: builder("mcp"), sentence: "an absolute https URL" },
        Case {
            name: "user",
            builder: builder("https://alice:secret@api.example.com/mcp"),
            sentence: "without user and password",
        },
        Case {
            name: "upper case host",
            builder: builder("https://API.example.com/mcp"),
            sentence: "\"https://api.example.com/mcp\"",
        },
        Case {
            name: "upper case host, and a path that ends with a slash",
            builder: builder("https://API.example.com/mcp/"),
            sentence: "\"https://api.example.com/mcp/\"",
        },
        Case {
            name: "upper case host, and no path",
            builder: builder("https://API.example.com"),
            sentence: "\"https://api.example.com\"",
        },
        Case {
            name: "default port",
            builder: builder("https://api.example.com:443/mcp"),
            sentence: "\"https://api.example.com/mcp\"",
        },
        Case {
            name: "dots in the path",
            builder: builder("https://api.example.com/a/../mcp"),
            sentence: "\"https://api.example.com/mcp\"",
        },
        Case {
            name: "another audience",
            builder: ResourceMetadata::builder(
                MCP,
                &verifier(&issuer(), "https://other.example.com/mcp"),
            ),
            sentence: "with_another_audience",
        },
        Case {
            name: "any audience",
            builder: ResourceMetadata::builder(
                MCP,
                &Verifier::new(Issuer::new(ISS, Audience::danger_any_audience()).unwrap()).unwrap(),
            ),
            sentence: "with_another_audience",
        },
        Case {
            name: "a client as the audience",
            builder: ResourceMetadata::builder(
                MCP,
                &Verifier::new(Issuer::new(ISS, Audience::client_id([MCP])).unwrap()).unwrap(),
            ),
            sentence: "with_another_audience",
        },
        Case {
            name: "a lookup",
            builder: of(Issuers::lookup(|_| None)),
            sentence: "`authorization_servers`",
        },
        Case {
            name: "a gateway",
            builder: of(gateway.into()),
            sentence: "`authorization_servers`",
        },
        Case { name: "a template", builder: of(template.into()), sentence: "found the template" },
        Case {
            name: "no server",
            builder: builder(MCP).authorization_servers(Vec::<String>::new()),
            sentence: "an empty list",
        },
        Case {
            name: "a server over http",
            builder: builder(MCP).authorization_servers(["http://issuer.example/"]),
            sentence: "https",
        },
        Case {
            name: "a server with a query",
            builder: builder(MCP).authorization_servers(["https://issuer.example/?a"]),
            sentence: "without query",
        },
        Case {
            name: "offline_access",
            builder: builder(MCP).scopes(["notes:read", "offline_access"]),
            sentence: "offline_access",
        },
        Case {
            name: "an invalid scope",
            builder: builder(MCP).scopes(["a\"b"]),
            sentence: "printable ASCII",
        },
        Case {
            name: "an empty array",
            builder: builder(MCP).member("authorization_details_types_supported", json!([])),
            sentence: "no empty array",
        },
        Case {
            name: "a derived member",
            builder: builder(MCP).member("resource", "https://evil.example/"),
            sentence: "does not set itself",
        },
        Case {
            name: "documentation",
            builder: builder(MCP).documentation("javascript:alert(1)"),
            sentence: "resource_documentation",
        },
        Case {
            name: "metadata URL",
            builder: builder(MCP).metadata_url("http://api.example.com/metadata"),
            sentence: "https",
        },
    ] {
        let error = builder.build().expect_err(name).to_string();
        assert!(error.contains(sentence), "{name}: {error}");
        assert!(!error.contains("secret"), "{name}: {error}");
    }
}

#[test]
fn the_document_has_what_is_configured_and_no_empty_member() {
    let metadata = builder(MCP)
        .scopes(["notes:read profile"])
        .name("Notes")
        .documentation("https://example.com/docs")
        .policy("https://example.com/policy")
        .terms_of_service("https://example.com/terms")
        .member("x_region", "eu")
        .build()
        .unwrap();
    assert_eq!(
        document(&metadata),
        json!({
            "resource": MCP,
            "authorization_servers": [ISS],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["notes:read", "profile"],
            "resource_name": "Notes",
            "resource_documentation": "https://example.com/docs",
            "resource_policy_uri": "https://example.com/policy",
            "resource_tos_uri": "https://example.com/terms",
            "x_region": "eu",
        })
    );
    assert_eq!(
        document(&builder(MCP).build().unwrap()),
        json!({
            "resource": MCP,
            "authorization_servers": [ISS],
            "bearer_methods_supported": ["header"],
        })
    );
}

/// Byte by byte: clients compare them with `issuer` in the metadata of the server.
#[test]
fn authorization_servers_are_the_configured_issuers() {
    let issuer = |iss: &str| Issuer::new(iss, MCP).unwrap();
    let configured = [issuer("https://d.example"), issuer("https://b.example").alias("b").unwrap()];
    let metadata = ResourceMetadata::new(MCP, &Verifier::new(configured).unwrap()).unwrap();
    assert_eq!(
        document(&metadata)["authorization_servers"],
        json!(["https://b.example", "https://d.example"]),
        "sorted, so that each start has the same document"
    );
    // The workloads of a trust domain get their tokens elsewhere.
    let spiffe = || {
        let spiffe = portcullis::providers::spiffe("example.org", MCP).unwrap();
        spiffe.jwks_uri("https://spire.example.org/").unwrap()
    };
    let both = Verifier::new([issuer("https://b.example"), spiffe()]).unwrap();
    let metadata = ResourceMetadata::new(MCP, &both).unwrap();
    assert_eq!(document(&metadata)["authorization_servers"], json!(["https://b.example"]));
    assert!(ResourceMetadata::new(MCP, &Verifier::new(spiffe()).unwrap()).is_err());
    let named = builder(MCP).authorization_servers(["https://login.example/tenant"]).build();
    assert_eq!(
        document(&named.unwrap())["authorization_servers"],
        json!(["https://login.example/tenant"])
    );
    // A lookup cannot be listed, so the servers are named. Its audiences cannot be checked.
    let lookup = Verifier::new(Issuers::lookup(|_| None)).unwrap();
    assert!(ResourceMetadata::builder(MCP, &lookup).authorization_servers([ISS]).build().is_ok());
}

/// A resource without a path accepts both spellings of its URL as the audience.
#[tokio::test]
async fn tokens_for_the_advertised_resource_are_accepted() {
    struct Case {
        name: &'static str,
        resource: &'static str,
        aud: &'static str,
        status: u16,
    }
    let origin = "https://api.example.com";
    for Case { name, resource, aud, status } in [
        Case { name: "the resource", resource: MCP, aud: MCP, status: 200 },
        Case {
            name: "another resource",
            resource: MCP,
            aud: "https://api.example.com/x",
            status: 401,
        },
        Case { name: "its host", resource: MCP, aud: origin, status: 401 },
        Case {
            name: "with a slash",
            resource: MCP,
            aud: "https://api.example.com/mcp/",
            status: 401,
        },
        Case { name: "origin", resource: origin, aud: origin, status: 200 },
        Case { name: "origin/", resource: origin, aud: "https://api.example.com/", status: 200 },
        Case {
            name: "origin/ first",
            resource: "https://api.example.com/",
            aud: origin,
            status: 200,
        },
    ] {
        let issuer = issuer();
        let verifier = verifier(&issuer, resource);
        ResourceMetadata::new(resource, &verifier).unwrap();
        let app =
            Router::new().route("/", get(async || "")).route_layer(ProtectLayer::new(verifier));
        let token = issuer.token().audience(aud).build();
        let request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}"));
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
    }
}

/// The service and the layer give the same responses.
#[tokio::test]
async fn the_document_is_served_to_anyone() {
    let metadata = builder(MCP).name("Notes").build().unwrap();
    let protect = ProtectLayer::new(verifier(&issuer(), MCP));
    let routes = || Router::new().route("/mcp", get(async || "")).route_layer(protect.clone());
    let apps = [
        ("service", routes().route_service(metadata.path(), metadata.service())),
        ("layer", routes().layer(metadata.layer())),
    ];
    for (name, app) in &apps {
        let response = answer(app, Method::GET, metadata.path()).await;
        assert_eq!(response.status(), 200, "{name}");
        let headers = response.headers().clone();
        let cors = headers[header::ACCESS_CONTROL_ALLOW_ORIGIN].clone();
        assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{name}");
        assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=3600", "{name}");
        assert_eq!(cors, "*", "{name}");
        assert_eq!(text(response).await, metadata.document(), "{name}");

        let head = answer(app, Method::HEAD, metadata.path()).await;
        assert_eq!((head.status(), head.headers()), (StatusCode::OK, &headers), "{name}: HEAD");
        assert_eq!(text(head).await, "", "{name}: HEAD");

        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let response = answer(app, method.clone(), metadata.path()).await;
            assert_eq!(response.status(), 405, "{name}: {method}");
            assert_eq!(response.headers()[header::ALLOW], "GET, HEAD, OPTIONS", "{name}: {method}");
        }

        // As a browser asks before a page with an MCP client reads the document.
        let preflight = Request::options(metadata.path())
            .header(header::ORIGIN, "https://inspector.example")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "mcp-protocol-version");
        let response = app.clone().oneshot(preflight.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 204, "{name}: preflight");
        let headers = response.headers();
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "{name}");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_HEADERS], "*", "{name}");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD", "{name}");
    }
}

/// Behind a proxy, the request names another server; an attacker may have written any name.
#[tokio::test]
async fn forged_host_and_forwarded_headers_change_nothing() {
    let metadata = builder(MCP).build().unwrap();
    let protect = ProtectLayer::new(verifier(&issuer(), MCP)).resource_metadata(&metadata);
    let app =
        Router::new().route("/mcp", get(async || "")).route_layer(protect).layer(metadata.layer());
    for uri in [metadata.path(), "/mcp"] {
        let forged = Request::get(uri)
            .header(header::HOST, "evil.example")
            .header(header::FORWARDED, "host=evil.example;proto=http")
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-proto", "http")
            .header("x-original-url", "https://evil.example/");
        let forged = app.clone().oneshot(forged.body(Body::empty()).unwrap()).await.unwrap();
        let plain = answer(&app, Method::GET, uri).await;
        assert_eq!(forged.headers(), plain.headers(), "{uri}");
        assert_eq!(text(forged).await, text(plain).await, "{uri}");
    }
}

#[tokio::test]
async fn the_layer_takes_only_its_own_paths() {
    let origin = "https://api.example.com";
    struct Case {
        name: &'static str,
        resources: &'static [&'static str],
        at_root: bool,
        uri: &'static str,
        found: Option<&'static str>,
    }
    let inserted = "/.well-known/oauth-protected-resource";
    assert_eq!(ResourceMetadata::path(&builder(origin).build().unwrap()), inserted);
    for Case { name, resources, at_root, uri, found } in [
        Case {
            name: "its path",
            resources: &[MCP],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource/mcp",
            found: Some(MCP),
        },
        Case {
            name: "with a query",
            resources: &[MCP],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource/mcp?a=b",
            found: Some(MCP),
        },
        Case {
            name: "the host's",
            resources: &[MCP],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource",
            found: Some(MCP),
        },
        Case {
            name: "the host's, switched off",
            resources: &[MCP],
            at_root: false,
            uri: "/.well-known/oauth-protected-resource",
            found: None,
        },
        Case {
            name: "the host's, of two resources",
            resources: &[MCP, "https://api.example.com/orders"],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource",
            found: None,
        },
        Case {
            name: "the second of two",
            resources: &[MCP, "https://api.example.com/orders"],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource/orders",
            found: Some("https://api.example.com/orders"),
        },
        Case {
            name: "the host's, where one resource has no path",
            resources: &[MCP, "https://api.example.com"],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource",
            found: Some("https://api.example.com"),
        },
        Case {
            name: "the query of the resource",
            resources: &["https://api.example.com/mcp?t=a", "https://api.example.com/mcp?t=b"],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource/mcp?t=b",
            found: Some("https://api.example.com/mcp?t=b"),
        },
        Case {
            name: "a slash at the end",
            resources: &[MCP],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource/mcp/",
            found: None,
        },
        Case {
            name: "a longer path",
            resources: &[MCP],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource/mcpx",
            found: None,
        },
        Case {
            name: "an escaped dot",
            resources: &[MCP],
            at_root: true,
            uri: "/%2ewell-known/oauth-protected-resource/mcp",
            found: None,
        },
        Case {
            name: "upper case",
            resources: &[MCP],
            at_root: true,
            uri: "/.well-known/oauth-protected-resource/MCP",
            found: None,
        },
        Case { name: "the resource", resources: &[MCP], at_root: true, uri: "/mcp", found: None },
    ] {
        let build = |resource: &&str| {
            let builder = builder(resource);
            if at_root { builder } else { builder.only_at_its_path() }.build().unwrap()
        };
        let layer = ResourceMetadataLayer::new(resources.iter().map(build));
        let app = Router::new().fallback(async || "the application").layer(layer);
        let text = text(answer(&app, Method::GET, uri).await).await;
        match found {
            Some(resource) => {
                let document: Value = serde_json::from_str(&text).expect(name);
                assert_eq!(document["resource"], resource, "{name}");
            }
            None => assert_eq!(text, "the application", "{name}"),
        }
    }
}

#[tokio::test]
async fn challenges_name_the_document() {
    let issuer = issuer();
    let verifier = verifier(&issuer, MCP);
    let metadata = ResourceMetadata::builder(MCP, &verifier).build().unwrap();
    let url = metadata.url().to_owned();
    let named = format!("resource_metadata=\"{url}\"");
    let protect = ProtectLayer::new(verifier).resource_metadata(&metadata);
    let token = || issuer.token().audience(MCP);
    let good = format!("Bearer {}", token().scope("notes:read").build());
    struct Case {
        name: &'static str,
        layer: ProtectLayer,
        authorization: Vec<String>,
        status: u16,
        challenge: String,
    }
    for Case { name, layer, authorization, status, challenge } in [
        Case {
            name: "no token",
            layer: protect.clone().scope("notes:read"),
            authorization: vec![],
            status: 401,
            challenge: format!("Bearer realm=\"api\", scope=\"notes:read\", {named}"),
        },
        Case {
            name: "invalid token",
            layer: protect.clone(),
            authorization: vec!["Bearer x".to_owned()],
            status: 401,
            challenge: format!(
                "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"The access token is invalid\", {named}"
            ),
        },
        Case {
            name: "two tokens",
            layer: protect.clone(),
            authorization: vec![good.clone(), good.clone()],
            status: 400,
            challenge: format!(
                "Bearer realm=\"api\", error=\"invalid_request\", error_description=\"The request has more than one access token\", {named}"
            ),
        },
        Case {
            name: "missing scope",
            layer: protect.clone().scope("notes:read notes:write"),
            authorization: vec![good.clone()],
            status: 403,
            challenge: format!(
                "Bearer realm=\"api\", error=\"insufficient_scope\", error_description=\"The access token does not grant what this operation needs\", scope=\"notes:read notes:write\", {named}"
            ),
        },
        // Neither `error` nor `scope`: clients would sign in again and again.
        Case {
            name: "missing role",
            layer: protect.clone().role("admin"),
            authorization: vec![good.clone()],
            status: 403,
            challenge: format!("Bearer realm=\"api\", {named}"),
        },
        Case {
            name: "missing scope and role",
            layer: protect.clone().role("admin").scope("notes:write"),
            authorization: vec![good.clone()],
            status: 403,
            challenge: format!(
                "Bearer realm=\"api\", error=\"insufficient_scope\", error_description=\"The access token does not grant what this operation needs\", scope=\"notes:write\", {named}"
            ),
        },
        Case {
            name: "step-up",
            layer: protect.clone().acr(["gold"]),
            authorization: vec![good.clone()],
            status: 401,
            challenge: format!(
                "Bearer realm=\"api\", error=\"insufficient_user_authentication\", error_description=\"The user must sign in again, or in a stronger way\", acr_values=\"gold\", {named}"
            ),
        },
        // A realm cannot add a parameter.
        Case {
            name: "realm",
            layer: protect.clone().realm("a\", resource_metadata=\"https://evil.example/"),
            authorization: vec![],
            status: 401,
            challenge: format!(
                "Bearer realm=\"a\\\", resource_metadata=\\\"https://evil.example/\", {named}"
            ),
        },
    ] {
        let app = Router::new().route("/", get(async || "")).route_layer(layer);
        let request = authorization
            .iter()
            .fold(Request::get("/"), |request, value| request.header(header::AUTHORIZATION, value));
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
        let values: Vec<_> = response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(values, [challenge.as_str()], "{name}");
        assert_eq!(
            challenges(response.headers()).unwrap()[0].parameter("resource_metadata"),
            Some(&*url),
            "{name}"
        );
    }
}

#[tokio::test]
async fn some_rejections_do_not_name_the_document() {
    let started = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    started.set_behavior(portcullis::testing::Behavior::Status(503));
    let down = Verifier::new(
        Issuer::new(started.iss(), MCP)
            .unwrap()
            .jwks_uri(&format!("{}jwks", started.iss()))
            .unwrap(),
    )
    .unwrap();
    let metadata = ResourceMetadata::new(MCP, &down).unwrap();
    let protect = ProtectLayer::new(down).resource_metadata(&metadata);
    let cookie = TokenSource::cookie("token", ["https://app.example.com"]).unwrap();
    let token = started.token().audience(MCP).build();
    struct Case {
        name: &'static str,
        layer: ProtectLayer,
        token: Option<String>,
        status: u16,
    }
    for Case { name, layer, token, status } in [
        Case { name: "503", layer: protect.clone(), token: Some(token), status: 503 },
        Case {
            name: "a cookie",
            layer: protect.clone().token_sources([cookie]),
            token: None,
            status: 401,
        },
        Case {
            name: "no challenge",
            layer: protect.clone().without_challenge(),
            token: None,
            status: 401,
        },
    ] {
        let app = Router::new().route("/", get(async || "")).route_layer(layer);
        let request = token.iter().fold(Request::get("/"), |request, token| {
            request.header(header::AUTHORIZATION, format!("Bearer {token}"))
        });
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
        let header = response.headers().get(header::WWW_AUTHENTICATE);
        let has = header.is_some_and(|value| value.to_str().unwrap().contains("resource_metadata"));
        assert!(!has, "{name}: {header:?}");
    }
}

/// Rejections of handlers and extractors, and those behind nested layers.
#[tokio::test]
async fn rejections_from_further_in_name_the_document_once() {
    let issuer = issuer();
    let verifier = verifier(&issuer, MCP);
    let metadata = ResourceMetadata::new(MCP, &verifier).unwrap();
    let protect = ProtectLayer::new(verifier).resource_metadata(&metadata);
    let app = Router::new()
        .route(
            "/handler",
            get(async |token: AccessToken| {
                token.require_scope(&"notes:write".parse().unwrap()).map(|()| "")
            }),
        )
        .route(
            "/anonymous",
            get(async |_: AccessToken| "").route_layer(protect.clone().allow_anonymous()),
        )
        .route("/nested", get(async || "").route_layer(protect.clone().scope("notes:write")))
        .route_layer(protect.clone().allow_anonymous());
    let token = issuer.token().audience(MCP).build();
    struct Case {
        path: &'static str,
        token: Option<String>,
        status: u16,
    }
    for Case { path, token, status } in [
        Case { path: "/handler", token: Some(token.clone()), status: 403 },
        Case { path: "/handler", token: None, status: 401 },
        Case { path: "/anonymous", token: None, status: 401 },
        Case { path: "/nested", token: Some(token), status: 403 },
        Case { path: "/nested", token: None, status: 401 },
    ] {
        let request = token.iter().fold(Request::get(path), |request, token| {
            request.header(header::AUTHORIZATION, format!("Bearer {token}"))
        });
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let assertion = assert_challenge(&response)
            .status(status)
            .parameter("resource_metadata", metadata.url());
        if status == 403 {
            assertion.error("insufficient_scope").scope("notes:write");
        }
        let text = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert_eq!(text.matches("resource_metadata").count(), 1, "{path}: {text}");
    }
}

/// Entra ID and Cognito: the token has another name of the scope than the client requests.
#[tokio::test]
async fn the_scope_that_clients_request_is_in_document_and_challenge() {
    let issuer = issuer();
    let config = Issuer::new(issuer.iss(), AUDIENCE).unwrap().jwks(issuer.jwks());
    let verifier = Verifier::new(config).unwrap();
    let metadata = ResourceMetadata::builder(MCP, &verifier)
        .with_another_audience()
        .scopes(["notes.read"])
        .requested_scope_prefix("api://notes/")
        .build()
        .unwrap();
    assert_eq!(document(&metadata)["scopes_supported"], json!(["api://notes/notes.read"]));
    let protect = ProtectLayer::new(verifier)
        .rule(Rule::scope("notes.read notes.write"))
        .resource_metadata(&metadata);
    let app = Router::new().route("/", get(async || "")).route_layer(protect);
    let call = async |scope: &str| {
        let token = issuer.token().scope(scope).build();
        let request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}"));
        app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    assert_challenge(&call("notes.read").await)
        .status(403)
        .scope("api://notes/notes.read api://notes/notes.write");
    assert_eq!(call("notes.read notes.write").await.status(), 200);
}

#[tokio::test]
async fn assert_discoverable_follows_the_way_of_a_client() {
    let verifier = verifier(&issuer(), MCP);
    let metadata = ResourceMetadata::new(MCP, &verifier).unwrap();
    let protect = ProtectLayer::new(verifier).resource_metadata(&metadata);
    let routes = || Router::new().route("/mcp", get(async || "")).route_layer(protect.clone());
    let found = assert_discoverable::<Body>(routes().layer(metadata.layer()), "/mcp").await;
    assert_eq!(found["resource"], MCP);
    assert_discoverable::<Body>(
        routes().route_service(metadata.path(), metadata.service()),
        "/mcp",
    )
    .await;
}

/// axum strips the prefix inside `nest`, so a document there is not found.
#[tokio::test]
#[should_panic(expected = "expected 200 at /.well-known/oauth-protected-resource/mcp")]
async fn a_document_inside_nest_is_not_discoverable() {
    let verifier = verifier(&issuer(), MCP);
    let metadata = ResourceMetadata::new(MCP, &verifier).unwrap();
    let protect = ProtectLayer::new(verifier).resource_metadata(&metadata);
    let inner =
        Router::new().route("/", get(async || "")).route_layer(protect).layer(metadata.layer());
    assert_discoverable::<Body>(Router::new().nest("/mcp", inner), "/mcp").await;
}

#[test]
fn errors_of_handlers_without_a_layer_name_no_document() {
    use axum::response::IntoResponse as _;
    let response = Error::Missing.into_response();
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"api\"");
}

#[test]
fn the_layer_is_ready_when_the_inner_service_is() {
    struct Inner(Poll<Result<(), &'static str>>);
    impl Service<Request<Body>> for Inner {
        type Response = Response;
        type Error = &'static str;
        type Future = Ready<Result<Response, &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            self.0
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Err("not called"))
        }
    }
    let layer = ResourceMetadataLayer::new([builder(MCP).build().unwrap()]);
    let mut context = Context::from_waker(Waker::noop());
    for inner in [Poll::Ready(Ok(())), Poll::Ready(Err("closed")), Poll::Pending] {
        let ready = layer.layer(Inner(inner)).poll_ready(&mut context);
        assert_eq!(ready, inner);
    }
}
