//! Rules: what an operation requires of a verified access token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use serde_json::Value;

use crate::access_token::AccessToken;
use crate::error::{Error, InvalidToken};
use crate::token::scope::Scope;

/// Allowed clock skew for `auth_time`: how far the issuer's clock may be ahead of the local clock.
const CLOCKS_DIFFER: Duration = Duration::from_secs(30);

/// What an operation requires of an access token: scopes, permissions, roles, any claim, or how the
/// user signed in.
///
/// Rules combine with [`and`](Self::and) and [`or`](Self::or). A rule is a value: it can be named,
/// stored, used on many routes and tested on its own.
///
/// ```
/// use portcullis::Rule;
///
/// let may_refund = Rule::scope("orders:refund")
///     .and(Rule::role("support").or(Rule::permission("refund:any")));
/// assert_eq!(
///     may_refund.to_string(),
///     "scope \"orders:refund\" and (role \"support\" or permission \"refund:any\")"
/// );
///
/// // On a route: `protect.clone().rule(may_refund)`; without HTTP: `may_refund.check(&token)?`.
/// ```
///
/// # Rejections
///
/// - 403 with `insufficient_scope` (RFC 6750 §3.1) if the token lacks a scope. The challenge names
///   every scope token that the operation requires.
/// - 403 without `error` if the token has these scopes but lacks something else, since another
///   token would lack the same.
/// - 401 with `insufficient_user_authentication` (RFC 9470 §3) if nothing else is missing, but the
///   user must sign in again or in a stronger way.
/// - 401 with `invalid_token` if the token must be bound to a key or certificate of its client, and
///   is not, whatever else it lacks.
#[derive(Clone)]
#[must_use]
pub struct Rule(Kind);

#[derive(Clone)]
enum Kind {
    Scope(Scope),
    AnyScope(Arc<[Scope]>),
    Permission(String),
    Role(String),
    Group(String),
    Issuer(String),
    Claim(String, Arc<ClaimTest>),
    Custom(String, Arc<Test>),
    Acr(Arc<[String]>),
    MaxAuthAge(Duration),
    Bound,
    All(Arc<[Rule]>),
    Any(Arc<[Rule]>),
}

type ClaimTest = dyn Fn(&Value) -> bool + Send + Sync;
type Test = dyn Fn(&AccessToken, &Parts) -> bool + Send + Sync;

impl Rule {
    /// Requires every scope token (RFC 6749 §3.3) of `scope`, which separates them by spaces.
    ///
    /// # Panics
    ///
    /// Panics if `scope` is empty or not a valid scope, as routers do for an invalid path. The
    /// message names the caller's line. If the value is not written in the source, parse it into a
    /// [`Scope`] first and handle the error: of parsed scopes, only an empty one panics here.
    #[track_caller]
    pub fn scope<S>(scope: S) -> Self
    where
        S: TryInto<Scope>,
        S::Error: fmt::Display,
    {
        Self(Kind::Scope(checked(scope)))
    }

    /// Requires one of these scopes. A scope of several tokens requires all of them. The challenge
    /// names the first scope.
    ///
    /// # Panics
    ///
    /// Panics if one of `scopes` is empty or not a valid scope, as [`scope`](Self::scope) does.
    #[track_caller]
    pub fn any_scope<S>(scopes: impl IntoIterator<Item = S>) -> Self
    where
        S: TryInto<Scope>,
        S::Error: fmt::Display,
    {
        // A loop: with a closure, `track_caller` would report the closure as the caller.
        let mut any = Vec::new();
        for scope in scopes {
            any.push(checked(scope));
        }
        Self(Kind::AnyScope(any.into()))
    }

    /// Requires this permission; see [`AccessToken::has_permission`].
    pub fn permission(permission: impl Into<String>) -> Self {
        Self(Kind::Permission(permission.into()))
    }

    /// Requires this role; see [`AccessToken::has_role`].
    pub fn role(role: impl Into<String>) -> Self {
        Self(Kind::Role(role.into()))
    }

    /// Requires membership in this group; see [`AccessToken::in_group`].
    pub fn group(group: impl Into<String>) -> Self {
        Self(Kind::Group(group.into()))
    }

    /// Requires that the token was issued by `iss`; see [`AccessToken::issuer`]. Use it if several
    /// issuers are trusted: a role that one issuer grants is not the role of another.
    pub fn issuer(iss: impl Into<String>) -> Self {
        Self(Kind::Issuer(iss.into()))
    }

    /// Requires a claim that is present and for which `test` returns `true`. The claim is named as
    /// in [`AccessToken::claim`].
    ///
    /// ```
    /// use portcullis::Rule;
    ///
    /// let own_organization = Rule::claim("org_id", |org| org == "org_1");
    /// ```
    pub fn claim(
        claim: impl Into<String>,
        test: impl Fn(&Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Claim(claim.into(), Arc::new(test)))
    }

    /// Requires that `test` returns `true` for the token and the request. Use it for conditions
    /// that no other rule expresses. Errors and logs show `name`.
    ///
    /// ```
    /// use portcullis::Rule;
    ///
    /// let own_profile = Rule::custom("own profile", |token, request| {
    ///     token.subject().is_some_and(|subject| {
    ///         !subject.contains('%') && request.uri.path() == format!("/profiles/{subject}")
    ///     })
    /// });
    /// ```
    pub fn custom(
        name: impl Into<String>,
        test: impl Fn(&AccessToken, &Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Custom(name.into(), Arc::new(test)))
    }

    /// Requires that the user signed in with one of these authentication context classes: the claim
    /// `acr` (RFC 9470 §3). Otherwise the rejection is 401 `insufficient_user_authentication`, and
    /// its challenge names the classes.
    pub fn acr<T: Into<String>>(classes: impl IntoIterator<Item = T>) -> Self {
        Self(Kind::Acr(classes.into_iter().map(Into::into).collect()))
    }

    /// Requires that the user signed in at most `age` ago: the claim `auth_time` (RFC 9470 §3).
    /// Otherwise, or if the token has no `auth_time`, the rejection is the same as for
    /// [`acr`](Self::acr). Its challenge gives the age in whole seconds.
    pub fn max_auth_age(age: Duration) -> Self {
        Self(Kind::MaxAuthAge(age))
    }

    /// Requires that the token is bound to a key (DPoP, RFC 9449) or a certificate (RFC 8705) of
    /// its client, so that a stolen token is useless here: [`AccessToken::is_bound`]. Otherwise the
    /// rejection is 401 `invalid_token`, and its challenge has the scheme `DPoP` if that is
    /// configured.
    pub fn bound() -> Self {
        Self(Kind::Bound)
    }

    /// Requires both rules.
    pub fn and(self, other: Self) -> Self {
        match self.0 {
            Kind::All(rules) => Self(Kind::All(rules.iter().cloned().chain([other]).collect())),
            one => Self(Kind::All([Self(one), other].into())),
        }
    }

    /// Requires at least one of the two rules.
    pub fn or(self, other: Self) -> Self {
        match self.0 {
            Kind::Any(rules) => Self(Kind::Any(rules.iter().cloned().chain([other]).collect())),
            one => Self(Kind::Any([Self(one), other].into())),
        }
    }

    /// A rule without requirements: the default of a layer.
    pub(crate) fn nothing() -> Self {
        Self(Kind::All([].into()))
    }

    /// Checks a token without a request. [Custom rules](Self::custom) receive an empty request.
    ///
    /// # Errors
    ///
    /// Returns an error if the token does not satisfy the rule; see
    /// [`check_request`](Self::check_request).
    pub fn check(&self, token: &AccessToken) -> Result<(), Error> {
        self.check_request(token, &http::Request::new(()).into_parts().0)
    }

    /// Checks a token together with the request that carries it.
    ///
    /// # Errors
    ///
    /// Returns an error if the token does not satisfy the rule:
    ///
    /// - [`Error::InsufficientScope`] if the token lacks a scope that the rule requires
    /// - [`Error::InvalidToken`] if the token must be bound to a key or certificate, and is not
    /// - [`Error::InsufficientAuthentication`] if only the user's sign-in does not satisfy the rule
    /// - [`Error::Forbidden`] otherwise
    pub fn check_request(&self, token: &AccessToken, request: &Parts) -> Result<(), Error> {
        // `insufficient_scope` makes clients request a token with the scopes of the challenge. It
        // is therefore used if the token lacks one of these scopes, whatever else it lacks, and in
        // no other case.
        match self.evaluate(token, request) {
            Err(Error::InsufficientScope { .. } | Error::Forbidden { .. })
                if token.require_scope(&self.scopes()).is_err() =>
            {
                Err(Error::InsufficientScope {
                    required: self.scopes(),
                    granted: token.scope().clone(),
                })
            }
            Err(Error::InsufficientScope { .. }) => {
                Err(Error::Forbidden { rule: self.to_string(), scope: self.scopes() })
            }
            other => other,
        }
    }

    fn evaluate(&self, token: &AccessToken, request: &Parts) -> Result<(), Error> {
        let forbidden = || Error::Forbidden { rule: self.to_string(), scope: self.scopes() };
        let ok_if =
            |holds: bool, error: &dyn Fn() -> Error| if holds { Ok(()) } else { Err(error()) };
        match &self.0 {
            Kind::Scope(scope) => token.require_scope(scope),
            Kind::AnyScope(scopes) => {
                ok_if(scopes.iter().any(|scope| token.require_scope(scope).is_ok()), &|| {
                    Error::InsufficientScope {
                        required: self.scopes(),
                        granted: token.scope().clone(),
                    }
                })
            }
            Kind::Permission(permission) => ok_if(token.has_permission(permission), &forbidden),
            Kind::Role(role) => ok_if(token.has_role(role), &forbidden),
            Kind::Group(group) => ok_if(token.in_group(group), &forbidden),
            Kind::Issuer(iss) => ok_if(token.issuer() == iss, &forbidden),
            Kind::Claim(claim, test) => {
                ok_if(token.claim(claim).is_some_and(|value| test(value)), &forbidden)
            }
            Kind::Custom(_, test) => ok_if(test(token, request), &forbidden),
            Kind::Acr(classes) => {
                let acr = token.claim("acr").and_then(Value::as_str);
                ok_if(acr.is_some_and(|acr| classes.iter().any(|class| class == acr)), &|| {
                    self.step_up().into()
                })
            }
            Kind::MaxAuthAge(age) => {
                let signed_in = token.claim("auth_time").and_then(Value::as_f64);
                let signed_in = signed_in.and_then(|time| Duration::try_from_secs_f64(time).ok());
                let now = token.clock().now().unix;
                // A time in the future is valid only within the allowed clock skew.
                let is_recent = |time: Duration| {
                    time <= now.saturating_add(CLOCKS_DIFFER) && now.saturating_sub(time) <= *age
                };
                ok_if(signed_in.is_some_and(is_recent), &|| self.step_up().into())
            }
            Kind::Bound => ok_if(token.is_bound(), &|| InvalidToken::NotBound.into()),
            Kind::All(rules) => self.check_all(rules, token, request),
            Kind::Any(rules) => {
                let mut results = rules.iter().map(|rule| rule.evaluate(token, request));
                // If every alternative fails, return the error of the first.
                let first = results.next().unwrap_or_else(|| Err(forbidden()));
                if first.is_ok() || results.any(|result| result.is_ok()) { Ok(()) } else { first }
            }
        }
    }

    /// Errors other than a missing sign-in take precedence: if the token lacks something else,
    /// signing in again does not help. A token that is not bound comes first: it is of no use here.
    fn check_all(&self, rules: &[Rule], token: &AccessToken, request: &Parts) -> Result<(), Error> {
        let mut step_up = Ok(());
        if !token.is_bound() && rules.iter().any(|rule| matches!(rule.0, Kind::Bound)) {
            return Err(InvalidToken::NotBound.into());
        }
        for rule in rules {
            match rule.evaluate(token, request) {
                Ok(()) => {}
                Err(Error::InsufficientAuthentication { .. }) => {
                    step_up = Err(self.step_up().into());
                }
                Err(Error::InsufficientScope { granted, .. }) => {
                    return Err(Error::InsufficientScope { required: self.scopes(), granted });
                }
                Err(Error::Forbidden { rule, .. }) => {
                    return Err(Error::Forbidden { rule, scope: self.scopes() });
                }
                Err(other) => return Err(other),
            }
        }
        step_up
    }

    /// Every scope token that the operation requires. Of alternatives, the first with a scope
    /// counts.
    pub(crate) fn scopes(&self) -> Scope {
        let mut scopes = Scope::none();
        match &self.0 {
            Kind::Scope(scope) => scopes.extend(scope),
            Kind::AnyScope(any) => any.first().into_iter().for_each(|first| scopes.extend(first)),
            Kind::All(rules) => rules.iter().for_each(|rule| scopes.extend(&rule.scopes())),
            Kind::Any(rules) => {
                let first = rules.iter().map(Self::scopes).find(|scope| !scope.is_empty());
                first.into_iter().for_each(|first| scopes.extend(&first));
            }
            _ => {}
        }
        scopes
    }

    /// The sign-in that the operation requires. Of alternatives, the first with a requirement
    /// counts.
    pub(crate) fn step_up(&self) -> StepUp {
        match &self.0 {
            Kind::Acr(classes) => StepUp { acr_values: classes.to_vec(), max_age: None },
            Kind::MaxAuthAge(age) => StepUp { acr_values: Vec::new(), max_age: Some(*age) },
            Kind::All(rules) => {
                rules.iter().map(Self::step_up).fold(StepUp::default(), StepUp::and)
            }
            Kind::Any(rules) => {
                rules.iter().map(Self::step_up).find(|one| !one.is_empty()).unwrap_or_default()
            }
            _ => StepUp::default(),
        }
    }
}

/// RFC 9470 §3: what a challenge requires of the user's next sign-in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StepUp {
    pub(crate) acr_values: Vec<String>,
    pub(crate) max_age: Option<Duration>,
}

impl StepUp {
    pub(crate) fn is_empty(&self) -> bool {
        self.acr_values.is_empty() && self.max_age.is_none()
    }

    /// Combines two requirements: the classes that are in both lists, and the smaller maximum age.
    fn and(self, other: Self) -> Self {
        let acr_values = match (self.acr_values.is_empty(), other.acr_values.is_empty()) {
            (false, false) => self
                .acr_values
                .into_iter()
                .filter(|class| other.acr_values.contains(class))
                .collect(),
            (true, _) => other.acr_values,
            (_, true) => self.acr_values,
        };
        let max_age = [self.max_age, other.max_age].into_iter().flatten().min();
        Self { acr_values, max_age }
    }
}

impl From<StepUp> for Error {
    fn from(step_up: StepUp) -> Self {
        Self::InsufficientAuthentication {
            acr_values: step_up.acr_values,
            max_age: step_up.max_age,
        }
    }
}

#[track_caller]
fn checked<S>(scope: S) -> Scope
where
    S: TryInto<Scope>,
    S::Error: fmt::Display,
{
    match scope.try_into() {
        // For example the scope of a token that grants none: a rule without requirements would
        // accept every token.
        Ok(scope) if scope.is_empty() => panic!("scope \"\": expected at least one scope token"),
        Ok(scope) => scope,
        Err(error) => panic!("{error}"),
    }
}

impl fmt::Display for Rule {
    /// Describes what the rule requires, for errors and logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |formatter: &mut fmt::Formatter<'_>, rules: &[Rule], between: &str| {
            for (number, rule) in rules.iter().enumerate() {
                if number > 0 {
                    write!(formatter, " {between} ")?;
                }
                match &rule.0 {
                    Kind::All(_) | Kind::Any(_) => write!(formatter, "({rule})")?,
                    _ => write!(formatter, "{rule}")?,
                }
            }
            Ok(())
        };
        match &self.0 {
            Kind::Scope(scope) => write!(formatter, "scope \"{scope}\""),
            Kind::AnyScope(scopes) => {
                let scopes: Vec<_> = scopes.iter().map(Scope::as_str).collect();
                write!(formatter, "one scope of {scopes:?}")
            }
            Kind::Permission(permission) => write!(formatter, "permission {permission:?}"),
            Kind::Role(role) => write!(formatter, "role {role:?}"),
            Kind::Group(group) => write!(formatter, "group {group:?}"),
            Kind::Issuer(iss) => write!(formatter, "issuer {iss:?}"),
            Kind::Claim(claim, _) => write!(formatter, "claim {claim:?}"),
            Kind::Custom(name, _) => formatter.write_str(name),
            Kind::Acr(classes) => write!(formatter, "acr of {classes:?}"),
            Kind::MaxAuthAge(age) => write!(formatter, "signed in within {age:?}"),
            Kind::Bound => formatter.write_str("bound to a key or certificate of the client"),
            Kind::All(rules) if rules.is_empty() => formatter.write_str("nothing"),
            Kind::All(rules) => list(formatter, rules, "and"),
            Kind::Any(rules) => list(formatter, rules, "or"),
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Rule({self})")
    }
}
