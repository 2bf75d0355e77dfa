mod support;

use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ProtectLayer, Verifier};
use portcullis_frameworks::tonic::Protect;
use tonic::service::Interceptor as _;
use tonic::{Code, Request};

fn request(headers: &[(&'static str, String)]) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[test]
fn requests_are_answered_as_by_the_layer() {
    let (layer, cases) = support::api();
    let mut interceptor = Protect(layer);
    // An interceptor does not know the URL.
    for case in cases.into_iter().filter(|case| !case.name.contains("proof")) {
        match (interceptor.call(request(&case.headers)), case.status) {
            (Ok(request), 200) => {
                let token = request.extensions().get::<AccessToken>().unwrap();
                assert_eq!(token.subject(), Some("alice"), "{}", case.name);
            }
            (Err(status), expected) => {
                let code =
                    if expected == 403 { Code::PermissionDenied } else { Code::Unauthenticated };
                assert_eq!(status.code(), code, "{}", case.name);
                let header =
                    |name: &str| Some(status.metadata().get(name)?.to_str().unwrap().to_owned());
                case.check(expected, header, "");
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
    let authorization = || [("authorization", format!("Bearer {}", issuer.token().build()))];
    let early = interceptor.call(request(&authorization())).unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    verifier.warm_up().await.unwrap();
    assert!(interceptor.call(request(&authorization())).is_ok());
}
