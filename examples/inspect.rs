//! Verifies a token step by step with a given configuration, to find the reason for a 401 or a 403.
//!
//! ```text
//! cargo run --example inspect -- --issuer https://acme.eu.auth0.com/ \
//!   --audience https://api.example.com TOKEN
//! cargo run --example inspect -- --preset keycloak --arg https://sso.example.com --arg prod \
//!   --audience orders-api --role clerk TOKEN
//! ```
//!
//! If TOKEN is `-`, it is read from standard input, which keeps it out of the shell's history. The
//! only requests are those to the issuer, for its keys.

use std::fmt;
use std::io::Read as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Parser;
use portcullis::{
    AccessToken, ApiKey, Audience, ConfigError, Error, InvalidToken, Issuer, Jwks, Rule, Scope,
    Verifier,
};

#[derive(Parser)]
#[command(about = "Verifies an access token step by step and shows the result")]
#[command(after_help = presets())]
struct Arguments {
    /// The issuer, exactly as in `iss`.
    #[arg(long, required_unless_present = "preset", conflicts_with = "preset")]
    issuer: Option<String>,
    /// A preset of a provider, instead of --issuer; see the list below.
    #[arg(long, value_name = "NAME", value_parser = preset_named)]
    preset: Option<&'static Preset>,
    /// An argument of the preset; repeat it in the order of the list below.
    #[arg(long = "arg", value_name = "VALUE", requires = "preset")]
    preset_arguments: Vec<String>,
    /// This API's identifier, as in `aud`.
    #[arg(long, required_unless_present_any = ["client_id", "preset"])]
    audience: Option<String>,
    /// The client that may call, if the issuer sends no `aud` (Amazon Cognito).
    #[arg(long, conflicts_with = "audience")]
    client_id: Option<String>,
    /// Read the keys from this file (a JWK Set, or the bundle of a trust domain). Sends no request.
    #[arg(long)]
    jwks: Option<std::path::PathBuf>,
    /// Fetch the keys from this URL, without discovery.
    #[arg(long, conflicts_with = "jwks")]
    jwks_uri: Option<String>,
    /// A scope that the route requires; may be repeated, all are required.
    #[arg(long)]
    scope: Vec<Scope>,
    /// A role that the route requires; may be repeated, all are required.
    #[arg(long)]
    role: Vec<String>,
    /// A permission that the route requires; may be repeated, all are required.
    #[arg(long)]
    permission: Vec<String>,
    /// A group that the route requires; may be repeated, all are required.
    #[arg(long)]
    group: Vec<String>,
    /// The access token, or `-` to read it from standard input.
    token: String,
}

/// A constructor of [`Issuer`], with its name on the command line.
struct Preset {
    name: &'static str,
    /// The meaning of each `--arg`, in order.
    arguments: &'static [&'static str],
    /// The flag for the audience or the client, unless an argument determines it.
    audience: Option<&'static str>,
    /// Takes the arguments and the value of that flag.
    make: fn(&[String], &str) -> Result<Issuer, ConfigError>,
}

const AUDIENCE: Option<&str> = Some("--audience");
const CLIENT_ID: Option<&str> = Some("--client-id");

static PRESETS: [Preset; 28] = [
    preset("auth0", &["DOMAIN"], AUDIENCE, |of, to| portcullis::providers::auth0(&of[0], to)),
    preset("okta", &["DOMAIN", "SERVER"], AUDIENCE, |of, to| {
        portcullis::providers::okta(&of[0], &of[1], to)
    }),
    preset("entra", &["TENANT"], AUDIENCE, |of, to| portcullis::providers::entra(&of[0], to)),
    preset("entra-multi-tenant", &[], AUDIENCE, |_, to| {
        portcullis::providers::entra_multi_tenant(to)
    }),
    preset("cognito", &["REGION", "POOL"], CLIENT_ID, |of, to| {
        portcullis::providers::cognito(&of[0], &of[1], [to])
    }),
    preset("keycloak", &["BASE_URL", "REALM"], AUDIENCE, |of, to| {
        portcullis::providers::keycloak(&of[0], &of[1], to)
    }),
    preset("google", &[], AUDIENCE, |_, to| portcullis::providers::google(to)),
    preset("firebase", &["PROJECT"], None, |of, _| portcullis::providers::firebase(&of[0])),
    preset("supabase", &["PROJECT"], None, |of, _| portcullis::providers::supabase(&of[0])),
    preset("clerk", &["FRONTEND_API", "ORIGIN"], None, |of, _| {
        portcullis::providers::clerk(&of[0], [&of[1]])
    }),
    preset("workos", &["CLIENT"], None, |of, _| portcullis::providers::workos(&of[0])),
    preset("zitadel", &["DOMAIN", "PROJECT"], None, |of, _| {
        portcullis::providers::zitadel(&of[0], &of[1])
    }),
    preset("ory", &["PROJECT"], AUDIENCE, |of, to| portcullis::providers::ory(&of[0], to)),
    preset("authentik", &["DOMAIN", "APPLICATION"], AUDIENCE, |of, to| {
        portcullis::providers::authentik(&of[0], &of[1], to)
    }),
    preset("authelia", &["DOMAIN"], AUDIENCE, |of, to| portcullis::providers::authelia(&of[0], to)),
    preset("kanidm", &["DOMAIN", "CLIENT"], None, |of, _| {
        portcullis::providers::kanidm(&of[0], &of[1])
    }),
    preset("pingone", &["ENVIRONMENT"], AUDIENCE, |of, to| {
        portcullis::providers::pingone(&of[0], to)
    }),
    preset("curity", &["ISS"], AUDIENCE, |of, to| portcullis::providers::curity(&of[0], to)),
    preset("duende", &["ISS"], AUDIENCE, |of, to| portcullis::providers::duende(&of[0], to)),
    preset("descope", &["PROJECT"], AUDIENCE, |of, to| portcullis::providers::descope(&of[0], to)),
    preset("logto", &["DOMAIN"], AUDIENCE, |of, to| portcullis::providers::logto(&of[0], to)),
    preset("github-actions", &["REPOSITORY"], AUDIENCE, |of, to| {
        portcullis::providers::github_actions([&of[0]], to)
    }),
    preset("kubernetes", &["ISS"], AUDIENCE, |of, to| {
        portcullis::providers::kubernetes(&of[0], to)
    }),
    preset("spiffe", &["TRUST_DOMAIN", "BUNDLE_URL"], AUDIENCE, |of, to| {
        portcullis::providers::spiffe(&of[0], to)?.jwks_uri(&of[1])
    }),
    preset("apple", &[], AUDIENCE, |_, to| portcullis::providers::apple(to)),
    preset("cloudflare-access", &["TEAM"], AUDIENCE, |of, to| {
        portcullis::providers::cloudflare_access(&of[0], to)
    }),
    preset("gcp-iap", &[], AUDIENCE, |_, to| portcullis::providers::gcp_iap(to)),
    preset("aws-alb", &["LOAD_BALANCER_ARN", "ISS"], None, |of, _| {
        portcullis::providers::aws_alb(&of[0], &of[1])
    }),
];

const fn preset(
    name: &'static str,
    arguments: &'static [&'static str],
    audience: Option<&'static str>,
    make: fn(&[String], &str) -> Result<Issuer, ConfigError>,
) -> Preset {
    Preset { name, arguments, audience, make }
}

/// The list of presets for `--help`.
fn presets() -> String {
    let calls: String = PRESETS.iter().map(|preset| format!("  {preset}\n")).collect();
    format!("Presets (docs/providers.md describes the arguments):\n{calls}")
}

fn preset_named(name: &str) -> Result<&'static Preset, String> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let known: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
        format!("expected one of {}", known.join(", "))
    })
}

impl Preset {
    fn issuer(&self, arguments: &Arguments) -> Result<Issuer, Box<dyn std::error::Error>> {
        let values = &arguments.preset_arguments;
        // At most one of the two: clap enforces that.
        let audience = arguments.audience.as_deref().map(|value| ("--audience", value));
        let client_id = arguments.client_id.as_deref().map(|value| ("--client-id", value));
        let for_whom = audience.or(client_id);
        if values.len() != self.arguments.len() || for_whom.map(|(flag, _)| flag) != self.audience {
            let flags = values.iter().map(|value| ("--arg", value.as_str())).chain(for_whom);
            let found: String = flags.map(|(flag, value)| format!(" {flag} {value}")).collect();
            return Err(format!("expected {self}, found --preset {}{found}", self.name).into());
        }
        Ok((self.make)(values, for_whom.map_or("", |(_, value)| value))?)
    }
}

impl fmt::Display for Preset {
    /// As on the command line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "--preset {}", self.name)?;
        for argument in self.arguments {
            write!(formatter, " --arg {argument}")?;
        }
        match self.audience {
            Some(flag) => {
                let value = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
                write!(formatter, " {flag} {value}")
            }
            None => Ok(()),
        }
    }
}

/// The steps of verification, in order, and the error codes of each.
const STEPS: [(&str, &[&str]); 6] = [
    (
        "format and type: three parts, base64url, JSON, `typ`",
        &[
            "too_large",
            "opaque",
            "encrypted",
            "malformed",
            "unsupported_critical",
            "unexpected_type",
        ],
    ),
    ("claims that every access token has", &["missing_claim", "claim_type"]),
    (
        "issuer: trusted, and uses this algorithm",
        &["unknown_issuer", "unsupported_algorithm", "tenant_mismatch"],
    ),
    (
        "audience, validity period, and the issuer's own rules",
        &[
            "wrong_audience",
            "expired",
            "not_yet_valid",
            "issued_in_the_future",
            "sender_constrained",
            "claim_value",
            "microsoft_nonce",
        ],
    ),
    ("keys of the issuer", &["keys_unavailable", "unknown_key"]),
    ("signature", &["bad_signature"]),
];

#[tokio::main]
async fn main() {
    if let Err(error) = run(Arguments::parse()).await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let verifier = Verifier::new(issuer(&arguments)?)?;
    let rule = rule(&arguments);
    let mut token = arguments.token;
    if token == "-" {
        token.clear();
        std::io::stdin().read_to_string(&mut token)?;
    }
    let token = token.trim();
    if ApiKey::has_valid_form(token) {
        let id = token.rsplit_once('_').map_or("", |(id, _)| id);
        return Err(format!(
            "an API key with a valid checksum and the identifier {id}, not an access token; whether it is known is in the log of the API (`unknown_api_key`)"
        )
        .into());
    }

    println!("Content (not verified):");
    for (name, part) in ["header", "claims"].iter().zip(token.split('.')) {
        // AWS load balancers add padding.
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok();
        let json =
            decoded.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        match json {
            Some(json) => println!("  {name}: {json:#}"),
            None => println!("  {name}: not JSON in base64url"),
        }
    }

    println!("\nChecks:");
    let result = verifier.verify(token).await;
    let code = result.as_ref().err().map(Error::code);
    for (step, errors) in STEPS {
        match (&result, code) {
            (Err(error), Some(code)) if errors.contains(&code) => {
                println!("  ✗ {step}\n\nRejected ({code}): {error}");
                if let Err(Error::InvalidToken(InvalidToken::UnknownKey { .. })) = &result {
                    for issuer in verifier.health() {
                        println!(
                            "{} has {} usable keys, ignored: {:?}",
                            issuer.iss, issuer.keys, issuer.ignored
                        );
                    }
                }
                std::process::exit(1);
            }
            _ => println!("  ✓ {step}"),
        }
    }
    let token = result?;
    if let Some(rule) = rule {
        if let Err(error) = rule.check(&token) {
            println!("  ✗ route requirements: {rule}\n\nRejected ({}): {error}", error.code());
            println!("\nContent of the verified token:");
            show(&token);
            std::process::exit(1);
        }
        println!("  ✓ route requirements: {rule}");
    }
    println!("\nAccepted. Handlers see:");
    show(&token);
    Ok(())
}

fn issuer(arguments: &Arguments) -> Result<Issuer, Box<dyn std::error::Error>> {
    let mut issuer = match (arguments.preset, &arguments.issuer) {
        (Some(preset), _) => preset.issuer(arguments)?,
        (None, iss) => {
            let audience = match &arguments.client_id {
                Some(client) => Audience::client_id([client]),
                None => Audience::any_of(arguments.audience.as_deref()),
            };
            // Never empty: clap requires it unless a preset is given.
            Issuer::new(iss.as_deref().unwrap_or_default(), audience)?
        }
    };
    if let Some(file) = &arguments.jwks {
        let keys = std::fs::read(file)?;
        let is_trust_domain = issuer.iss().starts_with("spiffe:");
        let keys =
            if is_trust_domain { Jwks::from_spiffe_bundle(keys)? } else { Jwks::from_json(keys)? };
        issuer = issuer.jwks(keys);
    }
    if let Some(uri) = &arguments.jwks_uri {
        issuer = issuer.jwks_uri(uri)?;
    }
    Ok(issuer)
}

/// The requirements of the route; `None` if it requires only a valid token.
fn rule(arguments: &Arguments) -> Option<Rule> {
    let scopes = arguments.scope.iter().cloned().map(Rule::scope);
    let roles = arguments.role.iter().cloned().map(Rule::role);
    let permissions = arguments.permission.iter().cloned().map(Rule::permission);
    let groups = arguments.group.iter().cloned().map(Rule::group);
    scopes.chain(roles).chain(permissions).chain(groups).reduce(Rule::and)
}

fn show(token: &AccessToken) {
    println!("  issuer    {}", token.issuer());
    println!("  subject   {}", token.subject().unwrap_or("-"));
    println!("  client_id {}", token.client_id().unwrap_or("-"));
    println!("  scope     {}", token.scope());
    for claim in ["permissions", "roles", "groups"] {
        if let Some(value) = token.claim(claim) {
            println!("  {claim:<9} {value}");
        }
    }
}
