//! The guides, as in the folder `docs` of the repository. The module exists in the documentation
//! only.
//!
//! The presets of the providers are described in [`providers`](crate::providers).

/// Links between guides, for rustdoc. The guides use reference links and end with definitions that
/// name files, for readers of the repository. The first definition of a name counts, so these
/// replace those of the files.
macro_rules! links {
    () => {
        "
[api-keys]: crate::guide::api_keys
[comparison]: crate::guide::comparison
[comparison-sources]: crate::guide::comparison_sources
[cookies]: crate::guide::rules#cookies-and-gateways
[cors]: crate::guide::recipes#cors-and-the-order-of-layers
[errors]: crate::guide::errors
[fips]: crate::guide::fips
[get-and-post]: crate::guide::recipes#get-and-post-of-one-path
[how-it-is-tested]: crate::guide::how_it_is_tested
[json-errors]: crate::guide::recipes#json-errors-everywhere
[local-development]: crate::guide::local_development
[operations]: crate::guide::operations
[opaque-tokens]: crate::guide::opaque_tokens
[performance]: crate::guide::performance
[providers]: crate::providers
[removing-a-tenant]: crate::guide::operations#removing-a-tenant-at-once
[resource-metadata]: crate::guide::resource_metadata
[revocation]: crate::guide::revocation
[rules]: crate::guide::rules
[sender-constrained]: crate::guide::sender_constrained
[spiffe]: crate::providers#spiffe-trust-domains
[testing]: crate::guide::testing
[testing-issuer]: crate::guide::testing#an-issuer-while-you-develop

"
    };
}

macro_rules! guides {
    ($($name:ident = $file:literal;)*) => {
        $(
            #[doc = links!()]
            #[doc = include_str!(concat!("../docs/", $file))]
            pub mod $name {}
        )*
    };
}

guides! {
    api_keys = "api-keys.md";
    authorization = "authorization.md";
    comparison = "comparison.md";
    comparison_sources = "comparison-sources.md";
    errors = "errors.md";
    fips = "fips.md";
    frameworks = "frameworks.md";
    how_it_is_tested = "how-it-is-tested.md";
    local_development = "local-development.md";
    mcp = "mcp.md";
    migrating = "migrating.md";
    opaque_tokens = "opaque-tokens.md";
    operations = "operations.md";
    performance = "performance.md";
    recipes = "recipes.md";
    resource_metadata = "resource-metadata.md";
    revocation = "revocation.md";
    rules = "rules.md";
    sender_constrained = "sender-constrained.md";
    testing = "testing.md";
}
