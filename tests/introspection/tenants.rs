//! The limit on questions about tokens that name tenants, in a process of its own: the limit is
//! that of the process.

#[path = "../support/eventually.rs"]
mod eventually;
#[allow(dead_code)]
mod support;
#[path = "../support/verdict.rs"]
mod verdict;

use eventually::eventually;
use portcullis::{Introspection, Issuers, Verifier};
use serde_json::json;
use support::{AuthServer, Reply, auth};
use tokio::task::JoinSet;
use verdict::verdict;

#[tokio::test]
async fn tokens_that_name_tenants_cause_a_bounded_number_of_questions() {
    let mut servers = Vec::new();
    for _ in 0..20 {
        let server = AuthServer::start().await;
        server.reply(Reply::Hang);
        servers.push(server);
    }
    let issuers: Vec<_> = servers
        .iter()
        .map(|server| server.issuer(Introspection::new(auth()).instead_of_keys()))
        .collect();
    let lookup = move |iss: &str| issuers.iter().find(|issuer| issuer.iss() == iss).cloned();
    let issuers = Issuers::lookup(lookup).danger_allow_private_addresses();
    let verifier = Verifier::new(issuers).unwrap();
    let mut requests = JoinSet::new();
    for server in &servers {
        for number in 0..16 {
            let token = server.keys().token().claim("n", number).tampered().build();
            let verifier = verifier.clone();
            requests.spawn(async move { verdict(&verifier, &token).await });
        }
    }
    let asked = || servers.iter().map(AuthServer::asked).sum::<usize>();
    eventually("the places are taken", || asked() >= 64).await;
    assert_eq!(asked(), 64, "all tenants together");
    assert!(servers.iter().all(|server| server.asked() <= 4), "one tenant");

    // And the others are served as soon as there are places.
    for server in &servers {
        server.reply(Reply::json(&json!({ "active": false })));
    }
    let verdicts = requests.join_all().await;
    let served = verdicts.iter().filter(|verdict| **verdict == "inactive").count();
    let unavailable =
        verdicts.iter().filter(|verdict| **verdict == "introspection_unavailable").count();
    assert_eq!(served + unavailable, 320);
}
