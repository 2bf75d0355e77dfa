//! The test kit's parser of `WWW-Authenticate`: exactly RFC 9110 §11.6.1.

use std::panic::{AssertUnwindSafe, catch_unwind};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Response};
use portcullis::testing::{Challenge, ChallengeAssertion, assert_challenge, challenges};

/// Formats each challenge: its scheme, its `token68` and each parameter as ` name=value;`.
fn read(values: &[&[u8]]) -> Result<Vec<String>, String> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append("www-authenticate", HeaderValue::from_bytes(value).unwrap());
    }
    let challenges = challenges(&headers).map_err(|error| error.to_string())?;
    let line = |challenge: Challenge| {
        let parameters =
            challenge.parameters.iter().map(|(name, value)| format!(" {name}={value};"));
        [
            challenge.scheme,
            challenge.token68.map_or_else(String::new, |token| format!(" <{token}>")),
        ]
        .into_iter()
        .chain(parameters)
        .collect::<String>()
    };
    Ok(challenges.into_iter().map(line).collect())
}

#[test]
fn every_form_of_the_grammar_is_parsed() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("only a scheme", "Negotiate", &["Negotiate"]),
        ("a parameter", "Bearer realm=\"api\"", &["Bearer realm=api;"]),
        ("a parameter without quotes", "Bearer max_age=5", &["Bearer max_age=5;"]),
        (
            "several",
            "Bearer realm=\"api\", error=\"x\",scope=\"a b\"",
            &["Bearer realm=api; error=x; scope=a b;"],
        ),
        (
            "optional whitespace",
            "Bearer   realm = \"api\"\t ,\t error\t=x",
            &["Bearer realm=api; error=x;"],
        ),
        ("names in any case", "Bearer ReAlM=\"Api\"", &["Bearer realm=Api;"]),
        (
            "two challenges",
            "Basic realm=\"old\", Bearer scope=\"a\"",
            &["Basic realm=old;", "Bearer scope=a;"],
        ),
        (
            "no parameters in the second challenge",
            "Bearer scope=\"a\", Negotiate",
            &["Bearer scope=a;", "Negotiate"],
        ),
        (
            "no parameters in the first challenge",
            "Negotiate, Bearer scope=\"a\"",
            &["Negotiate", "Bearer scope=a;"],
        ),
        ("three challenges without parameters", "A, B,C", &["A", "B", "C"]),
        ("token68", "Negotiate YWJj/+==, Bearer a=b", &["Negotiate <YWJj/+==>", "Bearer a=b;"]),
        ("token68 without padding", "Negotiate abc", &["Negotiate <abc>"]),
        ("token68 that looks like a name", "Negotiate abc=", &["Negotiate <abc=>"]),
        ("a comma in quotes", "Bearer a=\"x, Basic realm=y\"", &["Bearer a=x, Basic realm=y;"]),
        ("escapes", r#"Bearer a="q\"\\\z""#, &[r#"Bearer a=q"\z;"#]),
        ("an empty value", "Bearer a=\"\"", &["Bearer a=;"]),
        (
            "empty elements",
            ", ,Bearer a=b,, ,c=d , ,Basic e=f,",
            &["Bearer a=b; c=d;", "Basic e=f;"],
        ),
        ("a space after the scheme, and no more", "Bearer ", &["Bearer"]),
        ("whitespace, then another challenge", "Bearer \t, Basic", &["Bearer", "Basic"]),
        ("trailing whitespace", "Bearer \t", &["Bearer"]),
        ("an empty element before the first parameter", "Bearer , a=b", &["Bearer a=b;"]),
        ("the same name in two challenges", "A r=1, B r=2", &["A r=1;", "B r=2;"]),
        ("empty", "", &[]),
        ("only commas", " ,, ", &[]),
    ];
    for (name, value, expected) in cases {
        let read = read(&[value.as_bytes()]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, *expected, "{name}");
    }
    assert_eq!(read(&[]), Ok(vec![]), "no header");
    assert_eq!(read(&[b"A x=1", b"B"]), Ok(vec!["A x=1;".into(), "B".into()]), "two headers");
    assert_eq!(read(&[b"A x=\"\xfcber\""]), Ok(vec!["A x=\u{fffd}ber;".into()]), "obs-text");
}

#[test]
fn malformed_headers_are_errors_that_name_the_position() {
    for (name, value, expected) in [
        ("no scheme", "=x", "an authentication scheme at byte 0"),
        ("a quotation mark first", "\"Bearer\"", "an authentication scheme at byte 0"),
        (
            "a duplicate parameter",
            "Bearer a=1, A=2",
            "a parameter that was not there before at byte 12",
        ),
        ("no comma between parameters", "Bearer a=\"1\" b=\"2\"", "a comma at byte 13"),
        ("an unclosed quotation", "Bearer a=\"b", "a quotation mark at byte 11"),
        ("a backslash at the end", "Bearer a=\"b\\", "a character after the backslash at byte 12"),
        ("no value", "Bearer a=b, c=", "a value at byte 14"),
        (
            "no value before a comma: a token68",
            "Bearer a= , b=c",
            "another challenge, after one without parameters at byte 12",
        ),
        ("two equals signs", "Bearer a==b", "a value at byte 9"),
        ("two words after the scheme", "Bearer a b", "an equals sign at byte 9"),
        (
            "a parameter after token68",
            "Bearer abc=, d=e",
            "another challenge, after one without parameters at byte 13",
        ),
        ("a tab after the scheme", "Bearer\ta=b", "a comma at byte 7"),
        (
            "characters outside the token grammar",
            "Bearer a=b, \u{fc}=c",
            "an authentication scheme at byte 12",
        ),
        (
            "a parameter, but no space after the scheme",
            "Bearer,a=b",
            "another challenge, after one without parameters at byte 7",
        ),
        (
            "a parameter, but a tab after the scheme",
            "Bearer\t,a=b",
            "another challenge, after one without parameters at byte 8",
        ),
        (
            "a parameter, but no space after the second scheme",
            "A, B, a=b",
            "another challenge, after one without parameters at byte 6",
        ),
        ("a semicolon", "Bearer a=b; c=d", "a comma at byte 10"),
        ("a slash in a scheme", "Bea/rer", "a comma at byte 3"),
    ] {
        let error = read(&[value.as_bytes()]).unwrap_err();
        assert!(error.contains(&format!("expected {expected} of ")), "{name}: {error}");
    }
    // A tab is valid within quotes. A `HeaderValue` cannot contain other control characters.
    assert_eq!(read(&[b"A x=\"a\tb\""]), Ok(vec!["A x=a\tb;".into()]));
}

/// Writes challenges in their simplest form.
fn written(challenges: &[Challenge]) -> String {
    let one = |challenge: &Challenge| {
        let token68 = challenge.token68.iter().map(|token| format!(" {token}"));
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
        let parameters = challenge
            .parameters
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", quoted(value)));
        let parameters = parameters.collect::<Vec<_>>().join(", ");
        let space = if parameters.is_empty() { "" } else { " " };
        format!("{}{}{space}{parameters}", challenge.scheme, token68.collect::<String>())
    };
    challenges.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Each byte of some values is removed, doubled or replaced. The parser accepts or rejects the
/// result without a panic, and accepted challenges are unchanged after they are written in their
/// simplest form and parsed again.
#[test]
fn mutated_headers_are_parsed_or_rejected_without_a_panic() {
    let parse = |value: &[u8]| {
        challenges(
            &[(WWW_AUTHENTICATE, HeaderValue::from_bytes(value).unwrap())].into_iter().collect(),
        )
    };
    let (mut read, mut refused) = (0, 0);
    for value in ["Bearer realm=\"a\\\"b\", error=x, Basic, Digest YWJj==", ",A b = \"c\" ,,d=e"] {
        let bytes = value.as_bytes();
        for at in 0..bytes.len() {
            for other in [&b""[..], b"\"", b"\\", b",", b"=", b" ", b"\t", b"\xff", b"AA"] {
                let changed = [&bytes[..at], other, &bytes[at + 1..]].concat();
                match parse(&changed) {
                    Ok(challenges) => {
                        read += 1;
                        let again = written(&challenges);
                        assert_eq!(
                            parse(again.as_bytes()).as_ref(),
                            Ok(&challenges),
                            "{changed:?}, {again}"
                        );
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} {refused}");
    let long = format!(
        "Bearer {}",
        (0..20_000).map(|number| format!("a{number}=\"\\b\",")).collect::<String>()
    );
    assert_eq!(parse(long.as_bytes()).unwrap()[0].parameters.len(), 20_000);
}

#[test]
fn failed_assertions_report_the_response() {
    type Assertion = fn(ChallengeAssertion) -> ChallengeAssertion;
    let response = |values: &[&str]| {
        let response = Response::builder().status(401);
        values
            .iter()
            .fold(response, |response, value| response.header("www-authenticate", *value))
            .body(())
            .unwrap()
    };
    let bearer = "Basic realm=\"x\", bearer realm=\"api\", error=\"invalid_token\", scope=\"a b\", max_age=\"5\"";
    let hold: [(&str, Assertion); 8] = [
        ("status", |challenge| challenge.status(401)),
        ("realm", |challenge| challenge.realm("api")),
        ("error", |challenge| challenge.error("invalid_token")),
        ("scope", |challenge| challenge.scope("a b")),
        ("scope in another order", |challenge| challenge.scope("b a")),
        ("any parameter", |challenge| challenge.parameter("MAX_AGE", "5")),
        ("absent parameter", |challenge| challenge.without("error_description")),
        ("all at once", |challenge| {
            challenge.status(401).realm("api").error("invalid_token").scope("a b")
        }),
    ];
    for (_, assertion) in hold {
        assertion(assert_challenge(&response(&[bearer])));
    }
    assert_challenge(&response(&["Bearer realm=\"api\""])).no_error();

    let fail: [(&str, &[&str], Assertion, &str); 14] = [
        (
            "no reason in the response",
            &[bearer],
            |challenge| challenge.reason("expired"),
            "expected reason \"expired\"; found 401",
        ),
        (
            "another status",
            &[bearer],
            |challenge| challenge.status(403),
            "expected status 403; found 401 Unauthorized",
        ),
        (
            "another realm",
            &[bearer],
            |challenge| challenge.realm("x"),
            "expected realm=\"x\"; found 401",
        ),
        (
            "another error",
            &[bearer],
            |challenge| challenge.error("invalid_request"),
            "expected error=\"invalid_request\"",
        ),
        ("an error", &[bearer], |challenge| challenge.no_error(), "expected no error"),
        (
            "one scope token fewer",
            &[bearer],
            |challenge| challenge.scope("a"),
            "expected scope=\"a\"",
        ),
        (
            "one scope token more",
            &[bearer],
            |challenge| challenge.scope("a b c"),
            "expected scope=\"a b c\"",
        ),
        (
            "no scope",
            &["Bearer a=b"],
            |challenge| challenge.scope("a"),
            "WWW-Authenticate: \"Bearer a=b\"",
        ),
        (
            "no such parameter",
            &[bearer],
            |challenge| challenge.parameter("x", ""),
            "expected x=\"\"",
        ),
        (
            "unexpected parameter",
            &[bearer],
            |challenge| challenge.without("max_age"),
            "expected no max_age",
        ),
        (
            "no header",
            &[],
            |challenge| challenge,
            "expected a Bearer challenge; found 401 Unauthorized without",
        ),
        (
            "another scheme",
            &["Basic realm=x"],
            |challenge| challenge,
            "expected a Bearer challenge",
        ),
        (
            "two Bearer challenges",
            &["Bearer", "Bearer a=b"],
            |challenge| challenge,
            "expected one Bearer challenge",
        ),
        (
            "malformed header",
            &["Bearer a=b c=d"],
            |challenge| challenge,
            "expected a comma at byte 11",
        ),
    ];
    for (name, values, assertion, expected) in fail {
        let response = response(values);
        let panicked =
            catch_unwind(AssertUnwindSafe(|| assertion(assert_challenge(&response)))).unwrap_err();
        let said = panicked.downcast_ref::<String>().map_or("no message", String::as_str);
        assert!(said.contains(expected), "{name}: {said}");
    }
}
