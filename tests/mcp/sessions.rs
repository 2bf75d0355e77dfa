//! A session belongs to the user and the client that started it.

use axum::http::Method;
use portcullis::mcp::McpLayer;

use crate::support::{Api, call, read, request};

const STARTED: &[(&str, &str)] = &[("mcp-session-id", "s1")];
const IN_SESSION: &[(&str, &str)] = &[("mcp-session-id", "s1")];

async fn start(api: &Api, mcp: &McpLayer, token: &str) {
    let request = request(Some(token), &[], &call("initialize", "{}"));
    assert_eq!(read(api.respond(mcp, request, STARTED).await).await.status, 200);
}

#[tokio::test]
async fn a_session_of_another_user_or_client_does_not_exist() {
    let api = Api::new();
    let mcp = api.mcp();
    let alice = || api.token().scope("notes:read").claim("client_id", "app");
    start(&api, &mcp, &alice().build()).await;
    struct Case {
        name: &'static str,
        token: String,
        session: &'static [(&'static str, &'static str)],
        status: u16,
    }
    for Case { name, token, session, status } in [
        Case { name: "the same token", token: alice().build(), session: IN_SESSION, status: 200 },
        Case {
            name: "a refreshed token",
            token: alice().scope("notes:read notes:write").claim("jti", "2").build(),
            session: IN_SESSION,
            status: 200,
        },
        Case {
            name: "another user",
            token: alice().subject("bob").build(),
            session: IN_SESSION,
            status: 404,
        },
        Case {
            name: "another client",
            token: alice().claim("client_id", "other").build(),
            session: IN_SESSION,
            status: 404,
        },
        Case {
            name: "a session of another process",
            token: alice().subject("bob").build(),
            session: &[("mcp-session-id", "s2")],
            status: 200,
        },
        Case {
            name: "no session",
            token: alice().subject("bob").build(),
            session: &[],
            status: 200,
        },
        Case {
            name: "two sessions, the first unknown",
            token: alice().subject("bob").build(),
            session: &[("mcp-session-id", "s2"), ("mcp-session-id", "s1")],
            status: 404,
        },
    ] {
        api.reached();
        for method in [Method::POST, Method::GET] {
            let mut request = request(Some(&token), session, &call("tools/list", "{}"));
            *request.method_mut() = method.clone();
            let answer = api.send(&mcp, request).await;
            assert_eq!(answer.status, status, "{name}: {method} {answer:?}");
            assert_eq!(answer.code(), (status == 404).then_some(-32001), "{name}: {method}");
            assert_eq!(api.reached().len(), usize::from(status == 200), "{name}: {method}");
        }
    }
}

/// Another user cannot take a session over by having the service name it again.
#[tokio::test]
async fn a_session_keeps_its_owner_until_it_ends() {
    let api = Api::new();
    let mcp = api.mcp();
    let (alice, bob) = (api.reader(), api.token().subject("bob").scope("notes:read").build());
    start(&api, &mcp, &alice).await;
    let in_session = |token: &str| request(Some(token), IN_SESSION, &call("tools/list", "{}"));
    assert_eq!(api.send(&mcp, in_session(&bob)).await.status, 404);
    let mut delete = in_session(&bob);
    *delete.method_mut() = Method::DELETE;
    assert_eq!(api.send(&mcp, delete).await.status, 404, "bob cannot end it");
    assert_eq!(api.send(&mcp, in_session(&alice)).await.status, 200);
    let mut delete = in_session(&alice);
    *delete.method_mut() = Method::DELETE;
    assert_eq!(api.send(&mcp, delete).await.status, 200);
    // Unknown from now on, so the service decides.
    assert_eq!(api.send(&mcp, in_session(&bob)).await.status, 200);
}

#[tokio::test]
async fn binding_of_sessions_can_be_turned_off() {
    let api = Api::new();
    let mcp = api.mcp().bind_sessions(0);
    start(&api, &mcp, &api.reader()).await;
    let bob = api.token().subject("bob").scope("notes:read").build();
    let request = request(Some(&bob), IN_SESSION, &call("tools/list", "{}"));
    assert_eq!(api.send(&mcp, request).await.status, 200);
}

/// Each clone of the layer knows the same sessions.
#[tokio::test]
async fn clones_of_the_layer_share_sessions() {
    let api = Api::new();
    let mcp = api.mcp();
    start(&api, &mcp.clone(), &api.reader()).await;
    let bob = api.token().subject("bob").scope("notes:read").build();
    let request = request(Some(&bob), IN_SESSION, &call("tools/list", "{}"));
    assert_eq!(api.send(&mcp, request).await.status, 404);
}

/// One who starts many sessions loses the oldest of them, and not those of others.
#[tokio::test]
async fn sessions_of_others_cannot_be_evicted() {
    let api = Api::new();
    let mcp = api.mcp().bind_sessions(1000);
    start(&api, &mcp, &api.reader()).await;
    let bob = api.token().subject("bob").scope("notes:read").build();
    for number in 0..2000 {
        // Registered anew for each session.
        let client = format!("client-{number}");
        let token = api.token().subject("bob").scope("notes:read").claim("client_id", client);
        let request = request(Some(&token.build()), &[], &call("initialize", "{}"));
        let session = format!("bob-{number}");
        let response = api.respond(&mcp, request, &[("mcp-session-id", &session)]).await;
        assert_eq!(response.status(), 200);
    }
    let request = request(Some(&bob), IN_SESSION, &call("tools/list", "{}"));
    assert_eq!(api.send(&mcp, request).await.status, 404);
}

/// The service may start a session although the request names one that it does not know.
#[tokio::test]
async fn a_session_that_replaces_another_has_an_owner() {
    let api = Api::new();
    let mcp = api.mcp();
    let stale =
        request(Some(&api.reader()), &[("mcp-session-id", "stale")], &call("initialize", "{}"));
    assert_eq!(read(api.respond(&mcp, stale, STARTED).await).await.status, 200);
    let bob = api.token().subject("bob").scope("notes:read").build();
    let request = request(Some(&bob), IN_SESSION, &call("tools/list", "{}"));
    assert_eq!(api.send(&mcp, request).await.status, 404);
}

/// The service names a session that already has an owner: it keeps it.
#[tokio::test]
async fn a_session_that_is_named_again_keeps_its_owner() {
    let api = Api::new();
    let mcp = api.mcp();
    start(&api, &mcp, &api.reader()).await;
    let bob = api.token().subject("bob").scope("notes:read").build();
    start(&api, &mcp, &bob).await;
    let request = request(Some(&bob), IN_SESSION, &call("tools/list", "{}"));
    assert_eq!(api.send(&mcp, request).await.status, 404);
}

/// Tokens that name neither a user nor a client are owners of their own.
#[tokio::test]
async fn tokens_without_user_and_client_do_not_share_sessions() {
    let api = Api::new();
    let mcp = api.mcp();
    let bare = |jti: &str| {
        let token = api.token().without_claim("sub").without_claim("client_id");
        token.without_claim("azp").scope("notes:read").claim("jti", jti).build()
    };
    let (one, other) = (bare("1"), bare("2"));
    start(&api, &mcp, &one).await;
    for (token, status) in [(one, 200), (other, 404)] {
        let request = request(Some(&token), IN_SESSION, &call("tools/list", "{}"));
        assert_eq!(api.send(&mcp, request).await.status, status);
    }
}

/// Some services name the session in each response. That does not start it.
#[tokio::test]
async fn a_session_of_another_process_has_no_owner_when_it_is_used() {
    let api = Api::new();
    let mcp = api.mcp();
    for subject in ["alice", "bob"] {
        let token = api.token().subject(subject).scope("notes:read").build();
        let request = request(Some(&token), IN_SESSION, &call("tools/list", "{}"));
        assert_eq!(api.respond(&mcp, request, STARTED).await.status(), 200, "{subject}");
    }
}

/// Of each user, the newest sessions are remembered.
#[tokio::test]
async fn the_oldest_session_of_a_user_is_forgotten_first() {
    enum Step {
        Start(&'static str),
        End(&'static str),
    }
    use Step::{End, Start};
    struct Case {
        name: &'static str,
        steps: &'static [Step],
        /// Each session, and whether its owner is known.
        sessions: &'static [(&'static str, bool)],
    }
    for Case { name, steps, sessions } in [
        Case {
            name: "as many as are remembered",
            steps: &[Start("a"), Start("b")],
            sessions: &[("a", true), ("b", true)],
        },
        Case {
            name: "one more",
            steps: &[Start("a"), Start("b"), Start("c")],
            sessions: &[("a", false), ("b", true), ("c", true)],
        },
        Case {
            name: "one that ended makes room",
            steps: &[Start("a"), Start("b"), End("b"), Start("c")],
            sessions: &[("a", true), ("b", false), ("c", true)],
        },
        Case {
            name: "for one",
            steps: &[Start("a"), Start("b"), End("a"), Start("c"), Start("d")],
            sessions: &[("a", false), ("b", false), ("c", true), ("d", true)],
        },
    ] {
        let api = Api::new();
        // Two of each user, a tenth of all.
        let mcp = api.mcp().bind_sessions(20);
        let alice = api.reader();
        for step in steps {
            let (method, own, started) = match step {
                Start(session) => (Method::POST, None, Some(("mcp-session-id", *session))),
                End(session) => (Method::DELETE, Some(("mcp-session-id", *session)), None),
            };
            let mut request = request(Some(&alice), own.as_slice(), &call("initialize", "{}"));
            *request.method_mut() = method;
            assert_eq!(api.respond(&mcp, request, started.as_slice()).await.status(), 200);
        }
        let bob = api.token().subject("bob").scope("notes:read").build();
        for (session, is_known) in sessions {
            let named = &[("mcp-session-id", *session)];
            let request = request(Some(&bob), named, &call("tools/list", "{}"));
            let expected = if *is_known { 404 } else { 200 };
            assert_eq!(api.send(&mcp, request).await.status, expected, "{name}: {session}");
        }
    }
}
