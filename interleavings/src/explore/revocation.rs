//! The set of revocations, and the count that tokens in use are compared with.

use super::{Event, Exploration, join, spawn, wait};
use crate::access_token::AccessToken;
use crate::clock::{self, Clock};
use crate::error::{Error, InvalidToken};
use crate::revocation::Revocations;

const REVOKED: Result<(), Error> = Err(Error::InvalidToken(InvalidToken::Revoked));

fn revocations() -> Revocations {
    let revocations = Revocations::in_memory();
    revocations.set_clock(&Clock::default());
    revocations
}

/// Revokes the subject of the token.
fn revoke(revocations: &Revocations) {
    wait(revocations.subject("issuer", "user")).expect("there is room");
}

fn check(revocations: &Revocations, token: &AccessToken) -> Result<(), Error> {
    revocations.check(token, clock::at(1))
}

/// Two requests with a token that is in use, and a revocation.
pub(super) const REVOKED_IS_REJECTED: Exploration = Exploration {
    name: "no token is accepted after the call that revokes it has returned",
    preemptions: 3,
    run: || {
        let (revocations, token, revoked) =
            (revocations(), AccessToken::new("token", 100), Event::new());
        assert_eq!(check(&revocations, &token), Ok(()));
        let request = || {
            let (revocations, token, revoked) =
                (revocations.clone(), token.clone(), revoked.clone());
            move || {
                let must_be_rejected = revoked.has_happened();
                let result = check(&revocations, &token);
                assert!(!must_be_rejected || result == REVOKED, "accepted");
            }
        };
        let requests = [spawn(request()), spawn(request())];
        revoke(&revocations);
        revoked.happens();
        assert_eq!(check(&revocations, &token), REVOKED, "in the thread that revoked it");
        for request in requests {
            join(request);
        }
        assert_eq!(check(&revocations, &token), REVOKED, "at last");
    },
};

/// Two calls that revoke the same. The second one finds the entry, which need not be counted yet.
pub(super) const REVOKED_TWICE_IS_REJECTED: Exploration = Exploration {
    name: "no token is accepted after the second of two equal calls that revoke it has returned",
    preemptions: 3,
    run: || {
        let (revocations, token) = (revocations(), AccessToken::new("token", 100));
        assert_eq!(check(&revocations, &token), Ok(()));
        let other = {
            let (revocations, token) = (revocations.clone(), token.clone());
            spawn(move || {
                revoke(&revocations);
                assert_eq!(check(&revocations, &token), REVOKED);
            })
        };
        revoke(&revocations);
        assert_eq!(check(&revocations, &token), REVOKED);
        join(other);
    },
};

/// A token that is verified for the first time while it is revoked, and cached with the count.
pub(super) const NO_COUNT_WITHOUT_ENTRIES: Exploration = Exploration {
    name: "a revocation between the check of a token and its insertion is noticed by the next hit",
    preemptions: 3,
    run: || {
        let (revocations, token) = (revocations(), AccessToken::new("token", 100));
        let requests = [(), ()].map(|()| {
            let (revocations, token) = (revocations.clone(), token.clone());
            spawn(move || check(&revocations, &token))
        });
        revoke(&revocations);
        for result in requests.map(join) {
            assert!(result == Ok(()) || result == REVOKED, "{result:?}");
        }
        assert_eq!(check(&revocations, &token), REVOKED, "the next hit");
    },
};

/// An open stream that waits for the end of its token.
pub(super) const STREAM_ENDS: Exploration = Exploration {
    name: "a stream ends when its token is revoked: no change is missed",
    preemptions: 3,
    run: || {
        let (revocations, token) = (revocations(), AccessToken::new("token", 100));
        let stream = {
            let (revocations, token) = (revocations.clone(), token.clone());
            spawn(move || wait(revocations.until_revoked(&token)))
        };
        wait(revocations.subject("issuer", "another user")).expect("there is room");
        revoke(&revocations);
        join(stream);
    },
};
