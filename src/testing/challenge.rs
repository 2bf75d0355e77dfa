use std::collections::HashSet;
use std::fmt::{self, Write as _};

use http::header::{HeaderMap, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use crate::error::Error;

/// One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1), as parsed by [`challenges`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Challenge {
    /// The authentication scheme, as received. Schemes are compared without regard to case.
    pub scheme: String,
    /// The `token68` that some schemes use instead of parameters (RFC 9110 §11.2).
    pub token68: Option<String>,
    /// The parameters in their order, with names in lower case, and values without quotation marks
    /// and escapes. Names are unique.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the value of a parameter. The case of its name does not matter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let named = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.parameters.iter().find(named).map(|(_, value)| &**value)
    }
}

/// A `WWW-Authenticate` value that is not a list of challenges. The message says what was expected,
/// at which byte, and shows the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WWW-Authenticate: expected {expected} at byte {at} of {value:?}")]
pub struct ChallengeError {
    expected: &'static str,
    at: usize,
    value: String,
}

/// Parses the challenges of all `WWW-Authenticate` headers, strictly by RFC 9110: a client finds
/// the same challenges.
///
/// ```
/// use portcullis::testing::challenges;
///
/// let response = http::Response::builder()
///     .header("WWW-Authenticate", "Basic realm=\"old\", Bearer scope=\"a b\"")
///     .body(())?;
/// let challenges = challenges(response.headers())?;
/// assert_eq!(challenges[0].scheme, "Basic");
/// assert_eq!(challenges[1].parameter("scope"), Some("a b"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error at the first byte that the grammar does not allow, or if a challenge has the
/// same parameter twice.
pub fn challenges(headers: &HeaderMap) -> Result<Vec<Challenge>, ChallengeError> {
    let mut challenges = Vec::new();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        Reader { bytes: value.as_bytes(), at: 0 }.list(&mut challenges)?;
    }
    Ok(challenges)
}

/// Returns an assertion on the one `Bearer` challenge of a response (RFC 6750 §3). Its methods
/// state what the test expects.
///
/// ```
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use portcullis::{ProtectLayer, Verifier};
/// use portcullis::testing::{TestIssuer, assert_challenge};
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let issuer = TestIssuer::offline("https://issuer.example/")?;
/// let protect = ProtectLayer::new(Verifier::new(issuer.issuer())?).scope("orders:read");
/// let app = Router::new().route("/orders", get(async || "")).route_layer(protect);
///
/// let request = Request::get("/orders")
///     .header("authorization", format!("Bearer {}", issuer.token().build()));
/// let response = app.oneshot(request.body(Body::empty())?).await?;
/// assert_challenge(&response).status(403).error("insufficient_scope").scope("orders:read");
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Panics if the response has no `Bearer` challenge or more than one, or if its `WWW-Authenticate`
/// is malformed. Each method of [`ChallengeAssertion`] panics if its expectation is not met. The
/// message contains the status and all challenges of the response.
#[track_caller]
pub fn assert_challenge<B>(response: &Response<B>) -> ChallengeAssertion {
    assert_scheme(response, "Bearer")
}

/// Like [`assert_challenge`], for the one `DPoP` challenge of a response (RFC 9449 §7.1).
///
/// # Panics
///
/// As [`assert_challenge`].
#[track_caller]
pub fn assert_dpop_challenge<B>(response: &Response<B>) -> ChallengeAssertion {
    assert_scheme(response, "DPoP")
}

#[track_caller]
fn assert_scheme<B>(response: &Response<B>, scheme: &str) -> ChallengeAssertion {
    let reason = response.extensions().get::<Error>().map(Error::code);
    let shown = Shown { status: response.status(), headers: response.headers().clone(), reason };
    let found = match challenges(response.headers()) {
        Ok(found) => found,
        Err(error) => panic!("{error}; {shown}"),
    };
    let mut of_scheme =
        found.into_iter().filter(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
    match (of_scheme.next(), of_scheme.next()) {
        (Some(challenge), None) => ChallengeAssertion { challenge, shown },
        (None, _) => panic!("expected a {scheme} challenge; {shown}"),
        (Some(_), Some(_)) => panic!("expected one {scheme} challenge; {shown}"),
    }
}

/// What a test expects of a challenge. Created by [`assert_challenge`].
#[derive(Debug)]
pub struct ChallengeAssertion {
    challenge: Challenge,
    shown: Shown,
}

impl ChallengeAssertion {
    /// Expects this status of the response.
    ///
    /// # Panics
    ///
    /// Panics if the response has another status.
    #[track_caller]
    pub fn status(self, status: u16) -> Self {
        assert!(self.shown.status == status, "expected status {status}; {}", self.shown);
        self
    }

    /// Expects this `error`: `invalid_token`, `invalid_request` or `insufficient_scope` (RFC 6750
    /// §3.1), `insufficient_user_authentication` (RFC 9470 §3), or of a `DPoP` challenge
    /// `invalid_dpop_proof` or `use_dpop_nonce` (RFC 9449 §7.1, §9).
    ///
    /// # Panics
    ///
    /// Panics if `error` has another value or is absent.
    #[track_caller]
    pub fn error(self, error: &str) -> Self {
        self.parameter("error", error)
    }

    /// Expects no `error`, as in the response to a request without credentials (RFC 6750 §3.1).
    ///
    /// # Panics
    ///
    /// Panics if `error` is present.
    #[track_caller]
    pub fn no_error(self) -> Self {
        self.without("error")
    }

    /// Expects exactly these scope tokens in `scope`, in any order (RFC 6749 §3.3).
    ///
    /// # Panics
    ///
    /// Panics if `scope` has other scope tokens or is absent.
    #[track_caller]
    pub fn scope(self, scope: &str) -> Self {
        let sorted = |scope: &str| {
            let mut tokens: Vec<_> = scope.split(' ').map(str::to_owned).collect();
            tokens.sort_unstable();
            tokens
        };
        let is_same =
            self.challenge.parameter("scope").is_some_and(|own| sorted(own) == sorted(scope));
        assert!(is_same, "expected scope={scope:?}; {}", self.shown);
        self
    }

    /// Expects this reason for the rejection: the [`Error::code`] that portcullis puts into the
    /// response's extensions. The client does not see it. Use it to assert that a token with one
    /// fault is rejected for that fault.
    ///
    /// # Panics
    ///
    /// Panics if the reason is another one, or is absent, for example because the response came
    /// over a network.
    #[track_caller]
    pub fn reason(self, code: &str) -> Self {
        assert!(self.shown.reason == Some(code), "expected reason {code:?}; {}", self.shown);
        self
    }

    /// Expects this `realm` (RFC 9110 §11.5).
    ///
    /// # Panics
    ///
    /// Panics if `realm` has another value or is absent.
    #[track_caller]
    pub fn realm(self, realm: &str) -> Self {
        self.parameter("realm", realm)
    }

    /// Expects this value of a parameter.
    ///
    /// # Panics
    ///
    /// Panics if the parameter has another value or is absent.
    #[track_caller]
    pub fn parameter(self, name: &str, value: &str) -> Self {
        assert!(
            self.challenge.parameter(name) == Some(value),
            "expected {name}={value:?}; {}",
            self.shown
        );
        self
    }

    /// Expects that a parameter is absent.
    ///
    /// # Panics
    ///
    /// Panics if the parameter is present.
    #[track_caller]
    pub fn without(self, name: &str) -> Self {
        assert!(self.challenge.parameter(name).is_none(), "expected no {name}; {}", self.shown);
        self
    }
}

/// The actual response, for the message of a failed assertion.
#[derive(Debug)]
struct Shown {
    status: StatusCode,
    headers: HeaderMap,
    reason: Option<&'static str>,
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "found {}", self.status)?;
        if let Some(reason) = self.reason {
            write!(formatter, " (reason {reason:?})")?;
        }
        let mut values = self.headers.get_all(WWW_AUTHENTICATE).iter().peekable();
        match values.peek() {
            None => formatter.write_str(" without WWW-Authenticate"),
            Some(_) => {
                values.try_for_each(|value| write!(formatter, ", WWW-Authenticate: {value:?}"))
            }
        }
    }
}

/// A parser for a list of challenges (RFC 9110 §5.6, §11), byte by byte.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// `#challenge`. A comma separates both challenges and parameters: what follows it is a
    /// parameter if an equals sign comes after its first word, and otherwise the scheme of the next
    /// challenge.
    fn list(&mut self, challenges: &mut Vec<Challenge>) -> Result<(), ChallengeError> {
        self.commas();
        while self.peek().is_some() {
            challenges.push(self.challenge()?);
        }
        Ok(())
    }

    /// `auth-scheme [ 1*SP ( token68 / #auth-param ) ]`, and the commas after it.
    fn challenge(&mut self) -> Result<Challenge, ChallengeError> {
        let scheme = self.token("an authentication scheme")?.to_owned();
        let mut challenge = Challenge { scheme, token68: None, parameters: Vec::new() };
        let mut names = HashSet::new();
        // Only a space may be followed by more than a scheme.
        let has_more = self.skip(b" ") > 0;
        if has_more {
            challenge.token68 = self.token68();
            if challenge.token68.is_none() && !self.is_end_of_element() {
                self.parameter(&mut names, &mut challenge.parameters)?;
            }
        }
        loop {
            self.skip(b" \t");
            match self.peek() {
                None => return Ok(challenge),
                Some(b',') => self.commas(),
                Some(_) => return Err(self.expected("a comma")),
            }
            if self.peek().is_none() || !self.is_parameter() {
                return Ok(challenge);
            }
            if challenge.token68.is_some() || !has_more {
                return Err(self.expected("another challenge, after one without parameters"));
            }
            self.parameter(&mut names, &mut challenge.parameters)?;
        }
    }

    /// `token BWS "=" BWS ( token / quoted-string )`.
    fn parameter(
        &mut self,
        names: &mut HashSet<String>,
        parameters: &mut Vec<(String, String)>,
    ) -> Result<(), ChallengeError> {
        let start = self.at;
        let name = self.token("a parameter")?.to_ascii_lowercase();
        if !names.insert(name.clone()) {
            self.at = start;
            return Err(self.expected("a parameter that was not there before"));
        }
        self.skip(b" \t");
        if self.peek() != Some(b'=') {
            return Err(self.expected("an equals sign"));
        }
        self.at += 1;
        self.skip(b" \t");
        let value = match self.peek() {
            Some(b'"') => self.quoted_string()?,
            _ => self.token("a value")?.to_owned(),
        };
        parameters.push((name, value));
        Ok(())
    }

    /// Whether only white space follows, up to a comma or the end.
    fn is_end_of_element(&self) -> bool {
        let mut ahead = Reader { bytes: self.bytes, at: self.at };
        ahead.skip(b" \t");
        matches!(ahead.peek(), None | Some(b','))
    }

    /// Whether a parameter follows, rather than a scheme.
    fn is_parameter(&self) -> bool {
        let mut ahead = Reader { bytes: self.bytes, at: self.at };
        ahead.token("a word").is_ok() && {
            ahead.skip(b" \t");
            ahead.peek() == Some(b'=')
        }
    }

    /// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`, if nothing else follows up
    /// to a comma or the end.
    fn token68(&mut self) -> Option<String> {
        let rest = self.bytes.get(self.at..)?;
        let is_68 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
        let characters = rest.iter().take_while(|byte| is_68(byte)).count();
        let padding = rest.iter().skip(characters).take_while(|byte| **byte == b'=').count();
        let end = characters + padding;
        let blanks = rest.iter().skip(end).take_while(|byte| b" \t".contains(byte)).count();
        let ends = matches!(rest.get(end + blanks), None | Some(b','));
        let text = rest.get(..end).filter(|_| characters > 0 && ends)?;
        self.at += end;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// `token` (RFC 9110 §5.6.2).
    fn token(&mut self, expected: &'static str) -> Result<&str, ChallengeError> {
        let is_tchar =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| is_tchar(byte)).count();
        match rest.get(..length).map(std::str::from_utf8) {
            Some(Ok(token)) if !token.is_empty() => {
                self.at += length;
                Ok(token)
            }
            _ => Err(self.expected(expected)),
        }
    }

    /// `quoted-string` (RFC 9110 §5.6.4), including its opening quotation mark.
    fn quoted_string(&mut self) -> Result<String, ChallengeError> {
        self.at += 1;
        let mut inside = Vec::new();
        loop {
            let mut byte = self.peek().ok_or_else(|| self.expected("a quotation mark"))?;
            if byte == b'"' {
                self.at += 1;
                return Ok(String::from_utf8_lossy(&inside).into_owned());
            }
            if byte == b'\\' {
                self.at += 1;
                byte =
                    self.peek().ok_or_else(|| self.expected("a character after the backslash"))?;
            }
            // A header value contains no control characters but tabs, and those are allowed here.
            inside.push(byte);
            self.at += 1;
        }
    }

    /// `OWS *( "," OWS )`: a list may have empty elements (RFC 9110 §5.6.1.2).
    fn commas(&mut self) {
        self.skip(b" \t,");
    }

    /// Skips these bytes, and returns how many there were.
    fn skip(&mut self, any_of: &[u8]) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| any_of.contains(&byte)) {
            self.at += 1;
        }
        self.at - start
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> ChallengeError {
        let mut value = String::new();
        for byte in self.bytes {
            // Writing to a `String` does not fail.
            let _ = write!(value, "{}", byte.escape_ascii());
        }
        ChallengeError { expected, at: self.at, value }
    }
}
