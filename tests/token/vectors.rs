//! Keys and tokens from RFCs.

use portcullis::{IgnoredKeyReason, Jwks};

use crate::set;

/// A key and a token from an RFC.
struct Vector {
    name: &'static str,
    jwk: &'static str,
    token: &'static str,
    payload: &'static str,
}

const JOE: &str =
    "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";

const VECTORS: [Vector; 4] = [
    Vector {
        name: "RFC 7515 A.2, RS256",
        jwk: r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
        token: "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        payload: JOE,
    },
    Vector {
        name: "RFC 7515 A.3, ES256",
        jwk: r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        token: "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        payload: JOE,
    },
    Vector {
        name: "RFC 7515 A.4, ES512",
        jwk: r#"{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}"#,
        token: "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
        payload: "Payload",
    },
    Vector {
        name: "RFC 8037 A.4, EdDSA",
        jwk: r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        token: "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        payload: "Example of Ed25519 signing",
    },
];

#[test]
fn rfc_test_vectors_verify() {
    for Vector { name, jwk, token, payload } in VECTORS {
        if cfg!(not(feature = "aws-lc-rs")) && name.contains("ES512") {
            let refusal = Jwks::from_json(set(jwk)).unwrap_err().to_string();
            assert!(
                refusal.contains(&format!("{:?}", IgnoredKeyReason::NotInThisBackend)),
                "{refusal}"
            );
            continue;
        }
        let signed = Jwks::from_json(set(jwk)).unwrap().verify(token);
        assert_eq!(
            signed.map(|signed| signed.payload).as_deref(),
            Ok(payload.as_bytes()),
            "{name}"
        );
    }
}

#[test]
fn modified_rfc_test_vectors_do_not_verify() {
    for Vector { name, jwk, token, .. } in VECTORS {
        let Ok(jwks) = Jwks::from_json(set(jwk)) else { continue };
        // Every seventh character and the last one, across header, payload and signature.
        let positions = (0..token.len()).step_by(7).chain([token.len() - 1]);
        for position in positions.filter(|position| &token[*position..=*position] != ".") {
            let other = if &token[position..=position] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &token[..position], &token[position + 1..]);
            assert!(jwks.verify(&changed).is_err(), "{name}: changed at {position}");
        }
        assert!(jwks.verify(&token[..token.len() - 4]).is_err(), "{name}: signature too short");
        assert!(jwks.verify(&format!("{token}AAAA")).is_err(), "{name}: signature too long");
    }
}
