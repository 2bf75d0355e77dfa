//! APIs with a host for each tenant, behind proxies that forward it.

use portcullis::ForwardedUrl;

use super::*;

/// The tenants of `example.com`; requests with `x-proxy` come from the trusted proxy.
fn tenants(headers: Option<fn() -> ForwardedUrl>) -> Api {
    api(|dpop| {
        let dpop = dpop.at_hosts(|host| {
            assert_eq!(host, host.to_ascii_lowercase());
            host.strip_suffix(".example.com").is_some_and(|tenant| !tenant.contains('.'))
        });
        match headers {
            Some(headers) => {
                dpop.forwarded_url(headers(), |request| request.headers.contains_key("x-proxy"))
            }
            None => dpop,
        }
    })
}

struct Case {
    name: &'static str,
    headers: &'static [(&'static str, &'static str)],
    htu: &'static str,
    expected: &'static str,
}

async fn check(api: &Api, uri: &str, cases: &[Case]) {
    let token = api.token();
    for Case { name, headers, htu, expected } in cases {
        let proof = api.client.proof("GET", htu, &token).at(api.clock.now()).build();
        let mut request = request("DPoP", &token, &[&proof]);
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in *headers {
            let name = http::HeaderName::from_static(name);
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let (status, code, challenges) = api.call(request).await;
        assert_eq!(code.unwrap_or("ok"), *expected, "{name}");
        if *expected == "invalid_request" {
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(
                challenges[0].contains("The URL of the request is malformed"),
                "{challenges:?}"
            );
        }
    }
}

const ACME: &str = "https://acme.example.com/orders";

#[tokio::test]
async fn the_host_of_the_request_counts_only_if_it_is_an_own_one() {
    let api = tenants(None);
    check(
        &api,
        "/orders",
        &[
            Case {
                name: "a tenant",
                headers: &[("host", "acme.example.com")],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "in capitals, default port",
                headers: &[("host", "ACME.Example.com:443")],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "the configured host",
                headers: &[("host", "x")],
                htu: URL,
                expected: "ok",
            },
            Case { name: "no host", headers: &[], htu: URL, expected: "ok" },
            Case {
                name: "another tenant",
                headers: &[("host", "globex.example.com")],
                htu: ACME,
                expected: "proof_wrong_url",
            },
            Case {
                name: "another port",
                headers: &[("host", "acme.example.com:8443")],
                htu: ACME,
                expected: "proof_wrong_url",
            },
            Case {
                name: "another API",
                headers: &[("host", "other.example")],
                htu: "https://other.example/orders",
                expected: "proof_wrong_url",
            },
            Case {
                name: "a deeper host",
                headers: &[("host", "a.b.example.com")],
                htu: "https://a.b.example.com/orders",
                expected: "proof_wrong_url",
            },
            Case {
                name: "two hosts",
                headers: &[("host", "acme.example.com"), ("host", "x")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "no valid host",
                headers: &[("host", "acme.example.com/x")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "a user",
                headers: &[("host", "me@acme.example.com")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "headers of no proxy",
                headers: &[("host", "x"), ("x-forwarded-host", "acme.example.com")],
                htu: ACME,
                expected: "proof_wrong_url",
            },
        ],
    )
    .await;
    // HTTP/2 has it in the URI. An application may read either.
    let differs = Case {
        name: "two hosts",
        headers: &[("host", "globex.example.com")],
        htu: ACME,
        expected: "invalid_request",
    };
    check(&api, "https://acme.example.com/orders", &[differs]).await;
    let acme = Case { name: "authority", headers: &[], htu: ACME, expected: "ok" };
    let repeated = Case {
        name: "the authority also in Host, in capitals",
        headers: &[("host", "ACME.example.com")],
        htu: ACME,
        expected: "ok",
    };
    check(&api, "https://acme.example.com/orders", &[acme, repeated]).await;
}

#[tokio::test]
async fn a_forwarded_prefix_counts_at_the_configured_host() {
    let api = api(|dpop| dpop.forwarded_url(ForwardedUrl::x_forwarded(), |_| true));
    let prefix = &[("x-forwarded-prefix", "/v1")];
    let expected = |name, htu, expected| Case { name, headers: prefix, htu, expected };
    check(
        &api,
        "/orders",
        &[
            expected("with the prefix", "https://api.example.com/v1/orders", "ok"),
            expected("that of another service", URL, "proof_wrong_url"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_headers_of_a_trusted_proxy_name_the_host() {
    let api = tenants(Some(ForwardedUrl::rfc7239));
    const PROXY: (&str, &str) = ("x-proxy", "1");
    check(
        &api,
        "/orders",
        &[
            Case {
                name: "forwarded",
                headers: &[
                    PROXY,
                    ("host", "x"),
                    ("forwarded", "for=1.2.3.4;host=acme.example.com;proto=https"),
                ],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "quoted, in capitals",
                headers: &[PROXY, ("forwarded", "Host=\"acme.example.com\"")],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "the last element counts",
                headers: &[PROXY, ("forwarded", "host=globex.example.com, host=acme.example.com")],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "of the last line",
                headers: &[
                    PROXY,
                    ("forwarded", "host=globex.example.com"),
                    ("forwarded", "host=acme.example.com"),
                ],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "without the proxy",
                headers: &[("forwarded", "host=acme.example.com")],
                htu: ACME,
                expected: "proof_wrong_url",
            },
            Case {
                name: "without a host, the header Host",
                headers: &[PROXY, ("host", "acme.example.com"), ("forwarded", "for=1.2.3.4")],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "two hosts",
                headers: &[PROXY, ("forwarded", "host=acme.example.com;host=x")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "half a quotation",
                headers: &[PROXY, ("forwarded", "host=\"acme.example.com")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "an empty element",
                headers: &[PROXY, ("forwarded", "host=acme.example.com,")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "X-Forwarded-Host is not configured",
                headers: &[PROXY, ("x-forwarded-host", "acme.example.com")],
                htu: ACME,
                expected: "proof_wrong_url",
            },
        ],
    )
    .await;
    let api = tenants(Some(ForwardedUrl::x_forwarded));
    const HOST: (&str, &str) = ("x-forwarded-host", "acme.example.com");
    const WITH_PREFIX: &str = "https://acme.example.com/v1/orders";
    check(
        &api,
        "/orders",
        &[
            Case {
                name: "host",
                headers: &[PROXY, ("host", "x"), HOST],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "host and prefix",
                headers: &[PROXY, HOST, ("x-forwarded-prefix", "/v1")],
                htu: WITH_PREFIX,
                expected: "ok",
            },
            Case {
                name: "a slash at its end",
                headers: &[PROXY, HOST, ("x-forwarded-prefix", "/v1/")],
                htu: WITH_PREFIX,
                expected: "ok",
            },
            Case {
                name: "the last of a list",
                headers: &[PROXY, ("x-forwarded-host", "evil.example, acme.example.com")],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "without the prefix",
                headers: &[PROXY, HOST, ("x-forwarded-prefix", "/v1")],
                htu: ACME,
                expected: "proof_wrong_url",
            },
            Case {
                name: "dot segments",
                headers: &[PROXY, HOST, ("x-forwarded-prefix", "/v1/..")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "escaped dot segments",
                headers: &[PROXY, HOST, ("x-forwarded-prefix", "/v1/%2e%2e")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "two slashes",
                headers: &[PROXY, HOST, ("x-forwarded-prefix", "//evil.example")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "a query",
                headers: &[PROXY, HOST, ("x-forwarded-prefix", "/v1?")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "a scheme",
                headers: &[PROXY, HOST, ("x-forwarded-prefix", "https://evil.example")],
                htu: ACME,
                expected: "invalid_request",
            },
            Case {
                name: "a host with a path",
                headers: &[PROXY, ("x-forwarded-host", "acme.example.com/x")],
                htu: ACME,
                expected: "invalid_request",
            },
        ],
    )
    .await;
    let api = tenants(Some(ForwardedUrl::envoy));
    check(
        &api,
        "/rewritten",
        &[
            Case {
                name: "original path",
                headers: &[
                    PROXY,
                    ("host", "acme.example.com"),
                    ("x-envoy-original-path", "/orders?page=2"),
                ],
                htu: ACME,
                expected: "ok",
            },
            Case {
                name: "at the configured host",
                headers: &[PROXY, ("host", "x"), ("x-envoy-original-path", "/orders")],
                htu: URL,
                expected: "ok",
            },
            Case {
                name: "without the proxy",
                headers: &[("host", "acme.example.com"), ("x-envoy-original-path", "/orders")],
                htu: ACME,
                expected: "proof_wrong_url",
            },
            Case {
                name: "no path",
                headers: &[
                    PROXY,
                    ("host", "acme.example.com"),
                    ("x-envoy-original-path", "orders"),
                ],
                htu: ACME,
                expected: "invalid_request",
            },
        ],
    )
    .await;
}
