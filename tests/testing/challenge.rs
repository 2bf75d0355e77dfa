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
    struct Case {
        name: &'static str,
        value: &'static str,
        expected: &'static [&'static str],
    }

    let cases = &[
        Case { name: "only a scheme", value: "Negotiate", expected: &["Negotiate"] },
        Case {
            name: "a parameter",
            value: "Bearer realm=\"api\"",
            expected: &["Bearer realm=api;"],
        },
        Case {
            name: "a parameter without quotes",
            value: "Bearer max_age=5",
            expected: &["Bearer max_age=5;"],
        },
        Case {
            name: "several",
            value: "Bearer realm=\"api\", error=\"x\",scope=\"a b\"",
            expected: &["Bearer realm=api; error=x; scope=a b;"],
        },
        Case {
            name: "optional whitespace",
            value: "Bearer   realm = \"api\"\t ,\t error\t=x",
            expected: &["Bearer realm=api; error=x;"],
        },
        Case {
            name: "names in any case",
            value: "Bearer ReAlM=\"Api\"",
            expected: &["Bearer realm=Api;"],
        },
        Case {
            name: "two challenges",
            value: "Basic realm=\"old\", Bearer scope=\"a\"",
            expected: &["Basic realm=old;", "Bearer scope=a;"],
        },
        Case {
            name: "no parameters in the second challenge",
            value: "Bearer scope=\"a\", Negotiate",
            expected: &["Bearer scope=a;", "Negotiate"],
        },
        Case {
            name: "no parameters in the first challenge",
            value: "Negotiate, Bearer scope=\"a\"",
            expected: &["Negotiate", "Bearer scope=a;"],
        },
        Case {
            name: "three challenges without parameters",
            value: "A, B,C",
            expected: &["A", "B", "C"],
        },
        Case {
            name: "token68",
            value: "Negotiate YWJj/+==, Bearer a=b",
            expected: &["Negotiate <YWJj/+==>", "Bearer a=b;"],
        },
        Case {
            name: "token68 without padding",
            value: "Negotiate abc",
            expected: &["Negotiate <abc>"],
        },
        Case {
            name: "token68 that looks like a name",
            value: "Negotiate abc=",
            expected: &["Negotiate <abc=>"],
        },
        Case {
            name: "a comma in quotes",
            value: "Bearer a=\"x, Basic realm=y\"",
            expected: &["Bearer a=x, Basic realm=y;"],
        },
        Case { name: "escapes", value: r#"Bearer a="q\"\\\z""#, expected: &[r#"Bearer a=q"\z;"#] },
        Case { name: "an empty value", value: "Bearer a=\"\"", expected: &["Bearer a=;"] },
        Case {
            name: "empty elements",
            value: ", ,Bearer a=b,, ,c=d , ,Basic e=f,",
            expected: &["Bearer a=b; c=d;", "Basic e=f;"],
        },
        Case {
            name: "a space after the scheme, and no more",
            value: "Bearer ",
            expected: &["Bearer"],
        },
        Case {
            name: "whitespace, then another challenge",
            value: "Bearer \t, Basic",
            expected: &["Bearer", "Basic"],
        },
        Case { name: "trailing whitespace", value: "Bearer \t", expected: &["Bearer"] },
        Case {
            name: "an empty element before the first parameter",
            value: "Bearer , a=b",
            expected: &["Bearer a=b;"],
        },
        Case {
            name: "the same name in two challenges",
            value: "A r=1, B r=2",
            expected: &["A r=1;", "B r=2;"],
        },
        Case { name: "empty", value: "", expected: &[] },
        Case { name: "only commas", value: " ,, ", expected: &[] },
    ];
    for Case { name, value, expected } in cases {
        let read = read(&[value.as_bytes()]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, *expected, "{name}");
    }
    assert_eq!(read(&[]), Ok(vec![]), "no header");
    assert_eq!(read(&[b"A x=1", b"B"]), Ok(vec!["A x=1;".into(), "B".into()]), "two headers");
    assert_eq!(read(&[b"A x=\"\xfcber\""]), Ok(vec!["A x=\u{fffd}ber;".into()]), "obs-text");
}

#[test]
fn malformed_headers_are_errors_that_name_the_position() {
    struct Case {
        name: &'static str,
        value: &'static str,
        expected: &'static str,
    }

    for Case { name, value, expected } in [
        Case { name: "no scheme", value: "=x", expected: "an authentication scheme at byte 0" },
        Case {
            name: "a quotation mark first",
            value: "\"Bearer\"",
            expected: "an authentication scheme at byte 0",
        },
        Case {
            name: "a duplicate parameter",
            value: "Bearer a=1, A=2",
            expected: "a parameter that was not there before at byte 12",
        },
        Case {
            name: "no comma between parameters",
            value: "Bearer a=\"1\" b=\"2\"",
            expected: "a comma at byte 13",
        },
        Case {
            name: "an unclosed quotation",
            value: "Bearer a=\"b",
            expected: "a quotation mark at byte 11",
        },
        Case {
            name: "a backslash at the end",
            value: "Bearer a=\"b\\",
            expected: "a character after the backslash at byte 12",
        },
        Case { name: "no value", value: "Bearer a=b, c=", expected: "a value at byte 14" },
        Case {
            name: "no value before a comma: a token68",
            value: "Bearer a= , b=c",
            expected: "another challenge, after one without parameters at byte 12",
        },
        Case { name: "two equals signs", value: "Bearer a==b", expected: "a value at byte 9" },
        Case {
            name: "two words after the scheme",
            value: "Bearer a b",
            expected: "an equals sign at byte 9",
        },
        Case {
            name: "a parameter after token68",
            value: "Bearer abc=, d=e",
            expected: "another challenge, after one without parameters at byte 13",
        },
        Case {
            name: "a tab after the scheme",
            value: "Bearer\ta=b",
            expected: "a comma at byte 7",
        },
        Case {
            name: "characters outside the token grammar",
            value: "Bearer a=b, \u{fc}=c",
            expected: "an authentication scheme at byte 12",
        },
        Case {
            name: "a parameter, but no space after the scheme",
            value: "Bearer,a=b",
            expected: "another challenge, after one without parameters at byte 7",
        },
        Case {
            name: "a parameter, but a tab after the scheme",
            value: "Bearer\t,a=b",
            expected: "another challenge, after one without parameters at byte 8",
        },
        Case {
            name: "a parameter, but no space after the second scheme",
            value: "A, B, a=b",
            expected: "another challenge, after one without parameters at byte 6",
        },
        Case { name: "a semicolon", value: "Bearer a=b; c=d", expected: "a comma at byte 10" },
        Case { name: "a slash in a scheme", value: "Bea/rer", expected: "a comma at byte 3" },
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
    const BEARER: &str = "Basic realm=\"x\", bearer realm=\"api\", error=\"invalid_token\", scope=\"a b\", max_age=\"5\"";
    type Assertion = fn(ChallengeAssertion) -> ChallengeAssertion;
    struct Failing {
        name: &'static str,
        values: &'static [&'static str],
        assertion: Assertion,
        expected: &'static str,
    }

    let response = |values: &[&str]| {
        let response = Response::builder().status(401);
        values
            .iter()
            .fold(response, |response, value| response.header("www-authenticate", *value))
            .body(())
            .unwrap()
    };
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
        assertion(assert_challenge(&response(&[BEARER])));
    }
    assert_challenge(&response(&["Bearer realm=\"api\""])).no_error();

    let fail = [
        Failing {
            name: "no reason in the response",
            values: &[BEARER],
            assertion: |challenge| challenge.reason("expired"),
            expected: "expected reason \"expired\"; found 401",
        },
        Failing {
            name: "another status",
            values: &[BEARER],
            assertion: |challenge| challenge.status(403),
            expected: "expected status 403; found 401 Unauthorized",
        },
        Failing {
            name: "another realm",
            values: &[BEARER],
            assertion: |challenge| challenge.realm("x"),
            expected: "expected realm=\"x\"; found 401",
        },
        Failing {
            name: "another error",
            values: &[BEARER],
            assertion: |challenge| challenge.error("invalid_request"),
            expected: "expected error=\"invalid_request\"",
        },
        Failing {
            name: "an error",
            values: &[BEARER],
            assertion: |challenge| challenge.no_error(),
            expected: "expected no error",
        },
        Failing {
            name: "one scope token fewer",
            values: &[BEARER],
            assertion: |challenge| challenge.scope("a"),
            expected: "expected scope=\"a\"",
        },
        Failing {
            name: "one scope token more",
            values: &[BEARER],
            assertion: |challenge| challenge.scope("a b c"),
            expected: "expected scope=\"a b c\"",
        },
        Failing {
            name: "no scope",
            values: &["Bearer a=b"],
            assertion: |challenge| challenge.scope("a"),
            expected: "WWW-Authenticate: \"Bearer a=b\"",
        },
        Failing {
            name: "no such parameter",
            values: &[BEARER],
            assertion: |challenge| challenge.parameter("x", ""),
            expected: "expected x=\"\"",
        },
        Failing {
            name: "unexpected parameter",
            values: &[BEARER],
            assertion: |challenge| challenge.without("max_age"),
            expected: "expected no max_age",
        },
        Failing {
            name: "no header",
            values: &[],
            assertion: |challenge| challenge,
            expected: "expected a Bearer challenge; found 401 Unauthorized without",
        },
        Failing {
            name: "another scheme",
            values: &["Basic realm=x"],
            assertion: |challenge| challenge,
            expected: "expected a Bearer challenge",
        },
        Failing {
            name: "two Bearer challenges",
            values: &["Bearer", "Bearer a=b"],
            assertion: |challenge| challenge,
            expected: "expected one Bearer challenge",
        },
        Failing {
            name: "malformed header",
            values: &["Bearer a=b c=d"],
            assertion: |challenge| challenge,
            expected: "expected a comma at byte 11",
        },
    ];
    for Failing { name, values, assertion, expected } in fail {
        let response = response(values);
        let panicked =
            catch_unwind(AssertUnwindSafe(|| assertion(assert_challenge(&response)))).unwrap_err();
        let said = panicked.downcast_ref::<String>().map_or("no message", String::as_str);
        assert!(said.contains(expected), "{name}: {said}");
    }
}
