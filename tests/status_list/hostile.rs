//! What hostile tokens, lists and servers of lists cannot do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::{AUDIENCE, Behavior, TestIssuer, TokenBuilder};
use portcullis::{Issuer, Issuers, Jwks, StatusLists, Verifier};
use serde_json::json;

use crate::verdict::verdict;
use crate::{Api, HOUR, LIFETIME, Lists, large_lst, lst_of, seconds};

#[tokio::test]
async fn only_lists_at_allowed_origins_are_fetched() {
    let other = TestIssuer::start().unwrap();
    let at = |uri: &str| json!({ "status_list": { "idx": 0, "uri": uri } });
    let api = Api::new();
    let own = api.issuer.status_list().uri().to_owned();
    for (name, status, expected) in [
        ("own", at(&own), "ok"),
        ("another mechanism", json!({ "other": {} }), "ok"),
        ("another port", at(other.status_list().uri()), "claim_value"),
        ("another host", at("https://issuer.example/1"), "claim_value"),
        ("plain http", at("http://issuer.example/1"), "claim_value"),
        ("no URL", at("list"), "claim_value"),
        ("a file", at("file:///list"), "claim_value"),
        ("with a password", at(&own.replace("://", "://user:password@")), "claim_value"),
        ("no index", json!({ "status_list": { "uri": own } }), "claim_type"),
        ("no URI", json!({ "status_list": { "idx": 0 } }), "claim_type"),
        ("a negative index", json!({ "status_list": { "idx": -1, "uri": own } }), "claim_type"),
        ("no list", json!({ "status_list": true }), "claim_type"),
        ("text", json!("active"), "claim_type"),
    ] {
        assert_eq!(api.verdict(&api.with_status(status)).await, expected, "{name}");
    }
    assert_eq!((api.fetches(), other.status_list_fetches()), (1, 0));
    // A list at an allowed origin must be signed by the issuer, whatever serves it.
    let allowed = StatusLists::new().allow_origin(other.iss()).unwrap();
    let api = Api::with(allowed);
    let uri = other.status_list().uri().to_owned();
    let token = api.with_status(at(&uri));
    assert_eq!(api.verdict(&token).await, "revocations_unavailable");
    let list = api.issuer.status_list_token().subject(&uri).build();
    other.set_status_list_behavior(Behavior::Body(list));
    api.clock.advance(seconds(60));
    assert_eq!(api.verdict(&token).await, "ok");
}

#[tokio::test]
async fn unusable_lists_are_not_used() {
    let other = TestIssuer::offline("https://other.example/").unwrap();
    type Change = fn(TokenBuilder, &TestIssuer, u64) -> TokenBuilder;
    let cases: [(&str, Change, &str); 15] = [
        ("good", |list, _, _| list, "ok"),
        (
            "its whole media type",
            |list, _, _| list.header("typ", "application/statuslist+jwt"),
            "ok",
        ),
        ("without exp", |list, _, _| list.without_claim("exp"), "ok"),
        ("expired within the leeway", |list, _, now| list.claim("exp", now - 10), "ok"),
        ("another type", |list, _, _| list.header("typ", "JWT"), "revocations_unavailable"),
        ("no type", |list, _, _| list.without_header("typ"), "revocations_unavailable"),
        ("another list", |list, _, _| list.subject("x"), "revocations_unavailable"),
        ("without iat", |list, _, _| list.without_claim("iat"), "revocations_unavailable"),
        ("of the future", |list, _, now| list.claim("iat", now + 60), "revocations_unavailable"),
        ("expired", |list, _, now| list.claim("exp", now - 60), "revocations_unavailable"),
        (
            "without a list",
            |list, _, _| list.without_claim("status_list"),
            "revocations_unavailable",
        ),
        ("signed by another", |list, other, _| list.signed_by(other), "revocations_unavailable"),
        ("unsigned", |list, _, _| list.unsigned(), "revocations_unavailable"),
        ("tampered", |list, _, _| list.tampered(), "revocations_unavailable"),
        ("padded", |list, _, _| list.padded(), "revocations_unavailable"),
    ];
    for (name, change, expected) in cases {
        let api = Api::new();
        let now = api.clock.unix_seconds();
        api.serve(change(api.issuer.status_list_token(), &other, now));
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{name}");
        assert_eq!(api.fetches(), 1, "{name}");
    }
}

#[tokio::test]
async fn an_issuer_has_at_most_64_lists() {
    let api = Api::new();
    let at = |number| api.list_at(number);
    for number in 0..64 {
        let (list, token) = at(number);
        api.serve(list);
        assert_eq!(api.verdict(&token).await, "ok", "{number}");
    }
    let (list, token) = at(64);
    api.serve(list);
    assert_eq!(api.verdict(&token).await, "revocations_unavailable");
    assert_eq!(api.fetches(), 64);
    // One that is no longer used makes room.
    api.clock.advance(LIFETIME + seconds(1));
    assert_eq!(api.verdict(&token).await, "ok");
}

#[tokio::test]
async fn the_lists_of_an_issuer_take_at_most_64_mib() {
    let api = Api::new();
    let lst = large_lst();
    for (number, expected) in
        [(0, "ok"), (1, "ok"), (2, "ok"), (3, "ok"), (4, "revocations_unavailable")]
    {
        let (list, token) = api.list_at(number);
        api.serve(list.claim("status_list", json!({ "bits": 1, "lst": lst })));
        assert_eq!(api.verdict(&token).await, expected, "{number}");
    }
    // A refresh takes the place of the list that it replaces.
    let (list, token) = api.list_at(0);
    api.serve(list.claim("status_list", json!({ "bits": 1, "lst": lst })));
    api.clock.advance(LIFETIME);
    assert_eq!(api.verdict(&token).await, "ok");
    assert_eq!(api.fetches(), 6);
}

#[tokio::test]
async fn lists_of_resolved_issuers_are_not_fetched_from_private_addresses() {
    let issuer = TestIssuer::start().unwrap();
    let jwks = issuer.jwks();
    let config = move |iss: &str| {
        Some(Issuer::new(iss, AUDIENCE).ok()?.jwks(jwks.clone()).status_lists(StatusLists::new()))
    };
    let token = issuer.token().status(&issuer.status_list(), 0).build();
    let resolved = Issuers::lookup(config.clone());
    let verifier = Verifier::new(resolved).unwrap();
    assert_eq!(verdict(&verifier, &token).await, "revocations_unavailable");
    assert_eq!(issuer.status_list_fetches(), 0);
    let allowed = Issuers::lookup(config).danger_allow_private_addresses();
    assert_eq!(verdict(&Verifier::new(allowed).unwrap(), &token).await, "ok");
}

#[tokio::test]
async fn lists_that_are_fetched_together_take_no_more_memory() {
    let (issuer, lists) = (TestIssuer::start().unwrap(), Lists::start().await);
    let allowed = StatusLists::new().allow_origin(&lists.origin).unwrap();
    let config = issuer.issuer().jwks(issuer.jwks()).status_lists(allowed);
    let verifier = Verifier::new(config.keys_fetch_timeout(seconds(30)).unwrap()).unwrap();
    let lst = large_lst();
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..8 {
        let status = lists.serve(&issuer, &format!("/{number}"), &lst);
        let (verifier, token) = (verifier.clone(), issuer.token().claim("status", status).build());
        requests.spawn(async move { verdict(&verifier, &token).await });
    }
    let verdicts = requests.join_all().await;
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == "ok").count(), 4, "{verdicts:?}");
    let health = verifier.health()[0].status_lists.clone().unwrap();
    assert_eq!((health.lists, health.bytes), (8, 64 * 1024 * 1024));
    assert_eq!((health.fetches, health.failed_fetches), (8, 4));
}

#[tokio::test]
async fn a_list_may_shrink() {
    let api = Api::new();
    api.issuer.set_status(2047, 0);
    let (first, last) = (api.token(0), api.token(2047));
    assert_eq!(api.verdict(&last).await, "ok");
    let lst = lst_of(&[0, 0]);
    let list = json!({ "bits": 8, "lst": lst });
    api.serve(api.issuer.status_list_token().claim("status_list", list));
    api.clock.advance(LIFETIME);
    for _ in 0..3 {
        assert_eq!(api.verdict(&last).await, "claim_value");
        assert_eq!(api.verdict(&first).await, "ok");
    }
    assert_eq!(api.verifier.health()[0].status_lists.clone().unwrap().bytes, 2);
}

/// Lists that unpack to more than they should, or not at all.
#[tokio::test]
async fn hostile_payloads_are_answered_503() {
    let good = lst_of(&[0; 64]);
    let bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let bomb = lst_of(&vec![0; 64 * 1024 * 1024]);
    let unavailable = "revocations_unavailable";
    for (name, lst, expected) in [
        ("good", good.clone(), "ok"),
        ("a bomb", bomb, unavailable),
        ("truncated", changed(|bytes| bytes.truncate(bytes.len() - 5)), unavailable),
        ("without its checksum", changed(|bytes| bytes.truncate(bytes.len() - 4)), unavailable),
        ("a wrong checksum", changed(|bytes| *bytes.last_mut().unwrap() ^= 1), unavailable),
        ("a wrong header", changed(|bytes| bytes[0] = 0), unavailable),
        ("with a dictionary", changed(|bytes| bytes[1] |= 0x20), unavailable),
        ("followed by bytes, which are signed too", changed(|bytes| bytes.extend([0; 8])), "ok"),
        ("no compression", URL_SAFE_NO_PAD.encode([0; 64]), unavailable),
    ] {
        let api = Api::new();
        let list = json!({ "bits": 8, "lst": lst });
        api.serve(api.issuer.status_list_token().claim("status_list", list));
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn uris_are_compared_as_tokens_spell_them() {
    let unavailable = "revocations_unavailable";
    let host = |uri: &str| uri.replace("127.0.0.1", "localhost");
    type Change = fn(&str) -> String;
    let cases: [(&str, Change, &str, usize); 8] = [
        ("the same", str::to_owned, "ok", 1),
        ("a fragment", |uri| format!("{uri}#1"), unavailable, 1),
        ("a query", |uri| format!("{uri}?1"), unavailable, 1),
        ("a dot segment", |uri| uri.replace("/status", "/x/../status"), unavailable, 1),
        ("the scheme in uppercase", |uri| uri.replace("http", "HTTP"), unavailable, 1),
        ("another path", |uri| format!("{uri}s"), unavailable, 1),
        ("a user", |uri| uri.replace("://", "://user@"), "claim_value", 0),
        (
            "backslashes to another host",
            |_| r"https:\\issuer.example\1".to_owned(),
            "claim_value",
            0,
        ),
    ];
    for (name, change, expected, slots) in cases {
        let api = Api::new();
        let uri = change(api.issuer.status_list().uri());
        let token = api.with_status(json!({ "status_list": { "idx": 0, "uri": uri } }));
        assert_eq!(api.verdict(&token).await, expected, "{name}");
        assert_eq!(api.verifier.health()[0].status_lists.clone().unwrap().lists, slots, "{name}");
    }
    let api = Api::new();
    let uri = host(api.issuer.status_list().uri());
    let token = api.with_status(json!({ "status_list": { "idx": 0, "uri": uri } }));
    assert_eq!(api.verdict(&token).await, "claim_value", "another name of the host");
    assert_eq!(api.fetches(), 0);
}

#[tokio::test]
async fn tokens_are_not_lists_and_lists_are_not_tokens() {
    let api = Api::new();
    let status = json!({ "status_list": { "idx": 0, "uri": api.issuer.status_list().uri() } });
    // A token with every claim of a list, and a list with every claim of a token.
    let list = json!({ "bits": 1, "lst": "eNrbuRgAAhcBXQ" });
    let token = api.issuer.token().subject(api.issuer.status_list().uri());
    let token = token.claim("status_list", list).claim("status", status.clone());
    api.serve(token.clone());
    assert_eq!(api.verdict(&token.clone().build()).await, "revocations_unavailable");
    let list = token.header("typ", "statuslist+jwt").build();
    assert_eq!(api.verdict(&list).await, "unexpected_type");
}

#[tokio::test]
async fn only_verified_tokens_take_the_place_of_lists() {
    let api = Api::new();
    let other = TestIssuer::offline("https://other.example/").unwrap();
    let now = api.clock.unix_seconds();
    type Change = fn(TokenBuilder, &TestIssuer, u64) -> TokenBuilder;
    let cases: [(&str, Change, &str); 4] = [
        ("tampered", |token, _, _| token.tampered(), "bad_signature"),
        ("signed by another", |token, other, _| token.signed_by(other), "bad_signature"),
        ("expired", |token, _, now| token.claim("exp", now - 3600), "expired"),
        ("for another API", |token, _, _| token.audience("x"), "wrong_audience"),
    ];
    let lists = || api.verifier.health()[0].status_lists.clone().unwrap().lists;
    for (name, change, expected) in cases {
        for number in 0..80 {
            let uri = format!("{}?{name}{number}", api.issuer.status_list().uri());
            let status = json!({ "status_list": { "idx": 0, "uri": uri } });
            let token = change(api.issuer.token().claim("status", status), &other, now).build();
            assert_eq!(api.verdict(&token).await, expected, "{name}");
        }
        assert_eq!(lists(), 0, "{name}");
    }
    assert_eq!(api.verdict(&api.token(0)).await, "ok");
    assert_eq!((api.fetches(), lists()), (1, 1));
}

#[tokio::test]
async fn odd_members_of_a_list() {
    let unavailable = "revocations_unavailable";
    type Change = fn(TokenBuilder) -> TokenBuilder;
    let cases: [(&str, Change, &str); 7] = [
        ("a negative ttl", |list| list.claim("ttl", -1), unavailable),
        ("a huge ttl", |list| list.claim("ttl", 1e300), unavailable),
        ("a large ttl", |list| list.claim("ttl", 253_402_300_799_u64), "ok"),
        ("a fraction of a second", |list| list.claim("ttl", 0.5), "ok"),
        ("ttl as text", |list| list.claim("ttl", "60"), unavailable),
        (
            "aggregation_uri",
            |list| {
                let lst = "eNpjYAAAAAIAAQ";
                let uri = "https://127.0.0.1:1/aggregation";
                list.claim("status_list", json!({ "bits": 1, "lst": lst, "aggregation_uri": uri }))
            },
            "ok",
        ),
        ("an unknown claim", |list| list.claim("x", json!({ "y": [1] })), "ok"),
    ];
    for (name, change, expected) in cases {
        let api = Api::new();
        api.serve(change(api.issuer.status_list_token()));
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{name}");
        // Nothing else is fetched, and a ttl that is too long is not taken at its word.
        api.issuer.set_status(0, 1);
        api.issuer.set_status_list_behavior(Behavior::Serve);
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{name}");
        assert_eq!(api.fetches(), 1, "{name}");
        api.clock.advance(24 * HOUR);
        assert_eq!(api.verdict(&api.token(0)).await, "revoked", "{name}");
    }
}

/// Entra ID: one issuer for many tenants, whose keys sign for one of them each.
#[tokio::test]
async fn a_list_is_signed_for_the_tenant_of_the_token() {
    const TENANTS: [&str; 2] =
        ["72f988bf-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad"];
    let template = "https://login.example/{tenantid}/v2.0";
    let lists = Lists::start().await;
    let keys: Vec<_> =
        TENANTS.map(|_| TestIssuer::offline("https://login.example/common/v2.0").unwrap()).into();
    let mut set = json!({ "keys": [] });
    for (tenant, key) in TENANTS.iter().zip(&keys) {
        let mut jwk = key.jwks_json()["keys"][0].clone();
        jwk["issuer"] = json!(template.replace("{tenantid}", tenant));
        set["keys"].as_array_mut().unwrap().push(jwk);
    }
    let issuer = Issuer::template(template, AUDIENCE).unwrap();
    let allowed = StatusLists::new().allow_origin(&lists.origin).unwrap();
    let issuer =
        issuer.jwks(Jwks::from_json(set.to_string().as_bytes()).unwrap()).status_lists(allowed);
    let verifier = Verifier::new(issuer).unwrap();
    let lst = lst_of(&[0]);
    let own = lists.serve(&keys[0], "/own", &lst);
    let shared = lists.serve(&keys[0], "/shared", &lst);
    let token = |tenant: usize, status: &serde_json::Value| {
        let iss = template.replace("{tenantid}", TENANTS[tenant]);
        let token = keys[tenant].token().issued_by(&iss).claim("tid", TENANTS[tenant]);
        token.claim("status", status.clone()).build()
    };
    for (name, tenant, status, expected) in [
        ("of its tenant", 0, &own, "ok"),
        ("of another tenant", 1, &own, "revocations_unavailable"),
        ("of another tenant first", 1, &shared, "revocations_unavailable"),
        ("of its tenant, afterwards", 0, &shared, "ok"),
    ] {
        assert_eq!(verdict(&verifier, &token(tenant, status)).await, expected, "{name}");
    }
}
