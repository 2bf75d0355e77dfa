//! The header `Authorization`: which credentials are a token.

use http::Request;
use http::header::AUTHORIZATION;
use portcullis::ProtectLayer;

use crate::greeter::{answer, request, started_issuer, verifier};

/// RFC 6750 §2.1, RFC 9110 §11.4: the scheme in any case, one or more spaces, one b64token.
#[tokio::test]
async fn credentials_are_parsed_strictly() {
    struct Case {
        name: &'static str,
        value: Vec<u8>,
        status: u16,
    }

    let issuer = started_issuer();
    let layer = ProtectLayer::new(verifier(&issuer));
    let token = issuer.token().build();
    let with = |before: &str, after: &str| {
        [before.as_bytes(), token.as_bytes(), after.as_bytes()].concat()
    };
    let cases = vec![
        Case { name: "as written", value: with("Bearer ", ""), status: 200 },
        Case { name: "lowercase", value: with("bearer ", ""), status: 200 },
        Case { name: "mixed case", value: with("bEaReR ", ""), status: 200 },
        Case { name: "several spaces", value: with("Bearer    ", ""), status: 200 },
        Case { name: "no space", value: with("Bearer", ""), status: 401 },
        Case { name: "a tab", value: with("Bearer\t", ""), status: 400 },
        Case { name: "a space and a tab", value: with("Bearer \t", ""), status: 400 },
        Case { name: "a leading space", value: with(" Bearer ", ""), status: 401 },
        Case { name: "a trailing space", value: with("Bearer ", " "), status: 400 },
        Case { name: "two tokens", value: with(&format!("Bearer {token} "), ""), status: 400 },
        Case {
            name: "two tokens with a comma",
            value: with(&format!("Bearer {token}, Bearer "), ""),
            status: 400,
        },
        Case { name: "a parameter", value: with("Bearer token=", ""), status: 400 },
        Case { name: "quoted", value: with("Bearer \"", "\""), status: 400 },
        Case { name: "padding in the middle", value: with("Bearer =", ""), status: 400 },
        Case {
            name: "padding at the end: legal, but not a JWT",
            value: with("Bearer ", "=="),
            status: 401,
        },
        Case { name: "only the scheme", value: b"Bearer".to_vec(), status: 400 },
        Case { name: "only the scheme and a space", value: b"Bearer ".to_vec(), status: 400 },
        Case { name: "only padding", value: b"Bearer ==".to_vec(), status: 400 },
        Case { name: "not ASCII", value: b"Bearer \xff\xfe".to_vec(), status: 400 },
        Case { name: "UTF-8", value: "Bearer é".as_bytes().to_vec(), status: 400 },
        Case { name: "empty", value: b"".to_vec(), status: 401 },
        Case { name: "Basic", value: b"Basic YTpi".to_vec(), status: 401 },
        Case { name: "DPoP", value: with("DPoP ", ""), status: 401 },
        Case { name: "not ASCII as scheme", value: b"\xff\xfe a".to_vec(), status: 401 },
        Case { name: "JSON", value: b"Bearer {\"alg\":\"none\"}".to_vec(), status: 400 },
    ];
    for Case { name, value, status } in cases {
        let response = answer(&layer, request(&[(AUTHORIZATION, &value)])).await;
        assert_eq!(
            response.status().as_u16(),
            status,
            "{name}: {}",
            String::from_utf8_lossy(&value)
        );
    }
    // Every byte that a header value may contain, at each of 20 positions.
    for byte in (0x21_u8..=0xff).filter(|byte| *byte != 0x7f) {
        let legal = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        for place in 0..20 {
            let mut credentials = [b"Bearer ".to_vec(), vec![b'a'; 21]].concat();
            credentials[7 + place] = byte;
            let response = answer(&layer, request(&[(AUTHORIZATION, &credentials)])).await;
            assert_eq!(response.status() != 400, legal, "{byte:#x} at {place}");
        }
    }
    for (name, second) in
        [("Basic beside Bearer", &b"Basic YTpi"[..]), ("an empty header beside Bearer", b"")]
    {
        let both = request(&[(AUTHORIZATION, &with("Bearer ", "")), (AUTHORIZATION, second)]);
        assert_eq!(answer(&layer, both).await.status(), 400, "{name}");
    }
}

#[tokio::test]
async fn a_token_in_the_query_is_ignored() {
    let issuer = started_issuer();
    let mut request = Request::new(());
    *request.uri_mut() = format!("/?access_token={}", issuer.token().build()).parse().unwrap();
    assert_eq!(answer(&ProtectLayer::new(verifier(&issuer)), request).await.status(), 401);
}
