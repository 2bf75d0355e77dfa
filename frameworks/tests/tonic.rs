mod support;

use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ProtectLayer, Verifier};
use portcullis_frameworks::tonic::Protect;
use tonic::service::Interceptor as _;
use tonic::{Code, Request};

fn request(authorization: Option<String>) -> Request<()> {
    let mut request = Request::new(());
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    }
    request
}

#[test]
fn requests_are_answered_as_by_the_layer() {
    let (layer, cases) = support::api();
    let mut interceptor = Protect(layer);
    for case in cases {
        match (interceptor.call(request(case.authorization())), case.status) {
            (Ok(request), 200) => {
                let token = request.extensions().get::<AccessToken>().unwrap();
                assert_eq!(token.subject(), Some("alice"), "{}", case.name);
            }
            (Err(status), expected) => {
                let code =
                    if expected == 403 { Code::PermissionDenied } else { Code::Unauthenticated };
                assert_eq!(status.code(), code, "{}", case.name);
                let challenge = status.metadata().get("www-authenticate").unwrap();
                case.check(expected, Some(challenge.to_str().unwrap()), "");
            }
            (Ok(_), _) => panic!("{}: accepted", case.name),
        }
    }
}

#[tokio::test]
async fn before_the_keys_are_loaded_it_is_unavailable() {
    let issuer = TestIssuer::start().unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let mut interceptor = Protect(ProtectLayer::new(verifier.clone()));
    let authorization = || Some(format!("Bearer {}", issuer.token().build()));
    let early = interceptor.call(request(authorization())).unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    verifier.warm_up().await.unwrap();
    assert!(interceptor.call(request(authorization())).is_ok());
}
