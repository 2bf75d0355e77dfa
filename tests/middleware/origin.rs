//! Tokens that browsers send automatically: which pages may cause a request with one.

mod browsers;

use portcullis::TokenSource;

use self::browsers::{BROWSERS, Browser, DEST, MODE, SITE, WEBSOCKET};
use crate::offline_issuer;
use crate::token_sources::{ask, everywhere, outcome};

/// The same rule applies to a cookie and to a gateway's header.
#[tokio::test]
async fn cookies_and_gateway_headers_are_accepted_only_from_allowed_pages() {
    struct Credentials {
        place: &'static str,
        header: &'static str,
        value: String,
    }

    let issuer = offline_issuer();
    let token = issuer.token().build();
    for &Browser { name, method, host, headers, passes } in BROWSERS {
        for Credentials { place, header, value } in [
            Credentials {
                place: "header",
                header: "x-goog-iap-jwt-assertion",
                value: token.clone(),
            },
            Credentials { place: "cookie", header: "cookie", value: format!("__session={token}") },
        ] {
            let mut all = vec![(header, value)];
            all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
            // RFC 9113 §8.3.1: over HTTP/2 the host is in the URI.
            let uri = if method == "CONNECT" { format!("https://{host}/") } else { "/".to_owned() };
            if method != "CONNECT" {
                all.push(("host", host.to_owned()));
            }
            let expected = if passes { "ok" } else { "origin" };
            assert_eq!(
                outcome(&ask(&everywhere(&issuer), method, &uri, &all).await),
                expected,
                "{name}, by {place}"
            );
            // If anonymous requests are allowed, requests of other pages are anonymous.
            let optional = everywhere(&issuer).allow_anonymous();
            let response = ask(&optional, method, &uri, &all).await;
            assert_eq!(
                outcome(&response),
                if passes { "ok" } else { "missing" },
                "{name}, by {place}, optional"
            );
        }
    }
}

/// Machines behind a gateway send no `Origin`. Browsers always send it with unsafe methods.
#[tokio::test]
async fn clients_other_than_browsers_can_be_allowed() {
    struct Case {
        name: &'static str,
        method: &'static str,
        headers: &'static [(&'static str, &'static str)],
        passes: bool,
    }

    let issuer = offline_issuer();
    let token = issuer.token().build();
    let source = TokenSource::header("x-assertion").unwrap();
    let strict = everywhere(&issuer).token_sources([source.clone()]);
    let machines = everywhere(&issuer).token_sources([source.allow_non_browsers().unwrap()]);
    let cases = [
        Case { name: "POST", method: "POST", headers: &[], passes: true },
        Case { name: "a WebSocket", method: "GET", headers: &[WEBSOCKET], passes: true },
        Case {
            name: "a browser's POST",
            method: "POST",
            headers: &[(SITE, "same-origin")],
            passes: false,
        },
        Case {
            name: "another browser header",
            method: "POST",
            headers: &[(MODE, "cors")],
            passes: false,
        },
        Case {
            name: "a page of another origin",
            method: "POST",
            headers: &[("origin", "https://evil.example")],
            passes: false,
        },
        Case {
            name: "cross-site image",
            method: "GET",
            headers: &[(SITE, "cross-site"), (DEST, "image")],
            passes: false,
        },
    ];
    for Case { name, method, headers, passes } in cases {
        let mut all = vec![("x-assertion", token.clone())];
        all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        assert_eq!(outcome(&ask(&strict, method, "/", &all).await), "origin", "{name}");
        let expected = if passes { "ok" } else { "origin" };
        assert_eq!(outcome(&ask(&machines, method, "/", &all).await), expected, "{name}");
    }
    assert!(TokenSource::authorization().allow_non_browsers().is_err());
    let websocket = TokenSource::websocket_protocol("bearer").unwrap();
    assert!(
        websocket.from_origins(["https://app.example"]).is_err(),
        "origins would have no effect"
    );
}

/// All sources are read before an origin is rejected, so a second token beside a cookie is
/// detected.
#[tokio::test]
async fn a_cookie_from_another_origin_does_not_hide_a_second_token() {
    let issuer = offline_issuer();
    let token = issuer.token().build();
    let sources =
        || [TokenSource::cookie("a", Vec::<String>::new()).unwrap(), TokenSource::authorization()];
    let headers = [
        ("cookie", format!("a={token}")),
        ("origin", "https://evil.example".to_owned()),
        ("authorization", format!("Bearer {token}")),
    ];
    for layer in [
        everywhere(&issuer).token_sources(sources()),
        everywhere(&issuer).token_sources(sources()).allow_anonymous(),
    ] {
        assert_eq!(outcome(&ask(&layer, "GET", "/", &headers).await), "repeated");
        assert_ne!(outcome(&ask(&layer, "GET", "/", &headers[..2]).await), "ok");
    }
}
