//! Tokens that are bound to a key of their client, by their own claims or by the answer (RFC 9449
//! §6.1, §6.2).

use axum::http::Request;
use portcullis::testing::DpopClient;
use portcullis::{Algorithm, Dpop, Introspection, ProtectLayer, Verifier};
use serde_json::{Value, json};

use crate::support::{AuthServer, OPAQUE, Reply, auth};

/// Which key is named.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Named {
    None,
    Own,
    Other,
}

const ALL: [Named; 3] = [Named::None, Named::Own, Named::Other];

#[tokio::test]
async fn a_binding_that_only_the_token_or_only_the_answer_names_is_not_lost() {
    let (own, other) = (DpopClient::new().unwrap(), DpopClient::new().unwrap());
    let cnf = |named: Named| match named {
        Named::None => Value::Null,
        Named::Own => json!({ "jkt": own.thumbprint() }),
        Named::Other => json!({ "jkt": other.thumbprint() }),
    };
    for is_verified in [true, false] {
        for (jwt, answer) in ALL.into_iter().flat_map(|one| ALL.map(|other| (one, other))) {
            let server = AuthServer::start().await;
            let introspection = Introspection::new(auth());
            let introspection = if is_verified {
                introspection.jwts_too()
            } else {
                introspection.instead_of_keys()
            };
            let dpop = Dpop::new("https://api.example.com").unwrap();
            let verifier =
                Verifier::builder(server.issuer(introspection)).dpop(dpop).build().unwrap();
            let protect = ProtectLayer::new(verifier);
            server.reply(Reply::json(&server.active_with(&json!({ "cnf": cnf(answer) }))));
            let token = server.keys().token().claim("cnf", cnf(jwt)).build();
            let send = async |scheme: &str| {
                let proof = own.proof("GET", "https://api.example.com/", &token).build();
                let request = Request::get("/")
                    .header("authorization", format!("{scheme} {token}"))
                    .header("dpop", proof);
                let (parts, ()) = request.body(()).unwrap().into_parts();
                protect.verify_request(&parts).await.is_ok()
            };
            let name = format!("JWT {jwt:?}, answer {answer:?}, verified {is_verified}");
            let unbound = jwt == Named::None && answer == Named::None;
            let bound_to_own = if is_verified {
                jwt == Named::Own && answer != Named::Other
            } else {
                jwt != Named::Other && answer == Named::Own
            };
            for _ in 0..2 {
                assert_eq!(send("Bearer").await, unbound, "{name}: Bearer");
                assert_eq!(send("DPoP").await, bound_to_own, "{name}: DPoP");
            }
        }
    }
}

#[tokio::test]
async fn the_fapi_2_profile_requires_a_binding_of_the_token_or_of_the_answer() {
    struct Case {
        name: &'static str,
        configure: fn(Introspection) -> Introspection,
        /// The `cnf` of the JWT. Without it, the token is opaque.
        jwt: Option<Value>,
        answer: Value,
        expected: &'static str,
    }

    let client = DpopClient::new().unwrap();
    let bound = || json!({ "jkt": client.thumbprint() });
    for Case { name, configure, jwt, answer, expected } in [
        Case {
            name: "a verified JWT and its answer",
            configure: Introspection::jwts_too,
            jwt: Some(bound()),
            answer: bound(),
            expected: "ok",
        },
        Case {
            name: "only a verified JWT",
            configure: Introspection::jwts_too,
            jwt: Some(bound()),
            answer: Value::Null,
            expected: "ok",
        },
        Case {
            name: "a JWT that is asked about, and its answer",
            configure: Introspection::instead_of_keys,
            jwt: Some(bound()),
            answer: bound(),
            expected: "ok",
        },
        Case {
            name: "a JWT that is asked about, in neither",
            configure: Introspection::instead_of_keys,
            jwt: Some(Value::Null),
            answer: Value::Null,
            expected: "not_bound",
        },
        Case {
            name: "the answer about an opaque token",
            configure: Introspection::instead_of_keys,
            jwt: None,
            answer: bound(),
            expected: "ok",
        },
        Case {
            name: "an opaque token, in neither",
            configure: Introspection::instead_of_keys,
            jwt: None,
            answer: Value::Null,
            expected: "not_bound",
        },
    ] {
        let server = AuthServer::start().await;
        let dpop = Dpop::new("https://api.example.com").unwrap();
        let dpop = dpop.algorithms([Algorithm::ES256]).unwrap();
        let issuer = server.issuer(configure(Introspection::new(auth()))).fapi2();
        let protect = ProtectLayer::new(Verifier::builder(issuer).dpop(dpop).build().unwrap());
        server.reply(Reply::json(&server.active_with(&json!({ "cnf": answer }))));
        let token = match jwt {
            Some(cnf) => server.keys().token().claim("cnf", cnf).build(),
            None => OPAQUE.to_owned(),
        };
        let request = Request::get("/")
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", client.proof("GET", "https://api.example.com/", &token).build());
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let verdict = protect.verify_request(&parts).await;
        let code = verdict.map_or_else(|rejection| rejection.error().code(), |_| "ok");
        assert_eq!(code, expected, "{name}");
    }
}
