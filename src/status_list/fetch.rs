//! The fetch of one status list: downloaded, verified with the keys of the issuer, and unpacked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::list::{MAX_JWT, NotAList, StatusList};
use super::slot::{Fetches, Revalidation, Slot};
use crate::error::{Error, FetchError, InvalidToken};
use crate::issuer::active::{ActiveIssuer, SignatureCheck};
use crate::keys::jwks::Jwks;
use crate::keys::remote::Fetching;
use crate::keys::remote::fetch::{Document, Fetched, Http, Validators, redacted};
use crate::keys::remote::limits::FetchClass;
use crate::token::jws::Jws;
use crate::token::token_type;

/// What a list is requested as, and how much of it is read.
const DOCUMENT: Document = Document { accept: "application/statuslist+jwt", max_bytes: MAX_JWT };

/// Maximum number of lists that are verified and unpacked at the same time in the process. The
/// largest takes a tenth of a second, and 30 MB meanwhile.
static READS: Semaphore = Semaphore::const_new(4);

/// Maximum number of fetches of lists of issuers from a lookup, in the process and for each issuer.
/// Such an issuer may be hostile: its servers hang, or its lists are as large as possible.
static OF_RESOLVED: Semaphore = Semaphore::const_new(16);
const OF_RESOLVED_ISSUER: usize = 2;

/// Limits the fetches of one issuer from a lookup. It does not limit those of a configured issuer.
#[derive(Clone)]
pub(super) struct ResolvedLimit(Option<Arc<Semaphore>>);

impl ResolvedLimit {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new() -> Self {
        Self(Some(Arc::new(Semaphore::new(OF_RESOLVED_ISSUER))))
    }

    /// Waits for a permit, first come, first served. The semaphores are never closed.
    async fn take(&self) -> [Option<SemaphorePermit<'_>>; 2] {
        let Some(of_issuer) = &self.0 else { return [None, None] };
        // The permit that all issuers share is acquired last: a fetch that waits for the other one
        // must not hold it.
        let of_issuer = of_issuer.acquire().await.ok();
        [of_issuer, OF_RESOLVED.acquire().await.ok()]
    }
}

/// The result of a fetch.
pub(super) struct Download {
    /// `None`: the cached list has not changed.
    pub(super) list: Option<Arc<StatusList>>,
    pub(super) revalidation: Revalidation,
    /// The lifetime that the server gives.
    pub(super) hint: Option<Duration>,
}

/// A fetch in a task of its own. However it ends (with a result, a panic, or a shutdown of its
/// runtime), the state is updated first, and then the requests that wait are woken.
pub(super) struct FetchTask {
    pub(super) slot: Arc<Slot>,
    pub(super) issuer: Arc<ActiveIssuer>,
    pub(super) number: u64,
    pub(super) revalidation: Revalidation,
    /// Whether the last fetch failed.
    pub(super) has_failed: bool,
    pub(super) answer: Option<Result<Download, FetchError>>,
    pub(super) since: Instant,
    pub(super) _ended: watch::Sender<()>,
}

impl FetchTask {
    pub(super) async fn run(mut self) {
        let answer = self.fetch().await;
        self.answer = Some(answer);
    }

    async fn fetch(&self) -> Result<Download, FetchError> {
        let Fetches { client, addresses, policy, resolved_limit, .. } = &self.slot.fetches;
        let (limit, end) = (policy.timeout, self.since + policy.timeout);
        // The token that names the list was verified, so its issuer is established.
        let class = if self.has_failed { FetchClass::Failing } else { FetchClass::Established };
        let permits =
            async { (resolved_limit.take().await, self.slot.limit_at_origin.take(class).await) };
        // The first ones are held to the end, so that documents that wait for keys do not add up.
        let Ok((_of_resolved, permit)) = timeout_at(end, permits).await else {
            return Err(FetchError::ConcurrencyLimit { limit });
        };
        let http = Http { client, addresses: *addresses, hedge_after: limit / 2 };
        let download = async {
            let validators = self.validators();
            let fetched = http.get_document(&self.slot.url, &validators, DOCUMENT).await?;
            // The keys that verify the list may have to be fetched.
            drop(permit);
            match fetched {
                Fetched::NotModified { lifetime } => {
                    let revalidation = self.revalidation.clone();
                    Ok(Download { list: None, revalidation, hint: lifetime })
                }
                Fetched::Document { body, validators, lifetime } => {
                    let (list, keys) = self.read(body).await?;
                    let keys = keys.as_ref().map(Arc::downgrade);
                    let revalidation = Revalidation { validators, keys };
                    Ok(Download { list: Some(Arc::new(list)), revalidation, hint: lifetime })
                }
            }
        };
        timeout_at(end, download).await.unwrap_or(Err(FetchError::Timeout { limit }))
    }

    /// The validators of the cached list, as long as the issuer has the keys that verified it.
    /// Otherwise, the list must be sent and verified again: its key may have been withdrawn, and
    /// 304 would renew it without end.
    fn validators(&self) -> Validators {
        let Revalidation { validators, keys } = &self.revalidation;
        if self.issuer.recheck(keys.as_ref(), self.slot.fetches.clock.now()) {
            validators.clone()
        } else {
            Validators::default()
        }
    }

    /// Verifies and unpacks a list. On a thread for blocking work, because a large list takes as
    /// long as a thousand requests.
    async fn read(&self, body: Vec<u8>) -> Result<VerifiedList, FetchError> {
        let (body, mut waits) = (Arc::new(body), 0);
        loop {
            let (slot, issuer) = (Arc::clone(&self.slot), Arc::clone(&self.issuer));
            let reading = Reading { slot, issuer, body: Arc::clone(&body), waits };
            let permit = READS.acquire().await;
            let read = spawn_blocking(move || {
                // Work that has begun does not end with the time limit of the fetch.
                let _permit = permit;
                reading.read()
            });
            match read.await.map_err(|_| FetchError::Interrupted)?? {
                Read::List(list) => return Ok(list),
                Read::Pending(fetching) => fetching.finished().await,
            }
            waits = waits.saturating_add(1);
        }
    }
}

impl Drop for FetchTask {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or(Err(FetchError::Interrupted));
        self.slot.finish(self.number, answer, self.since.elapsed());
    }
}

/// A downloaded document that is to be verified and unpacked.
struct Reading {
    slot: Arc<Slot>,
    issuer: Arc<ActiveIssuer>,
    body: Arc<Vec<u8>>,
    /// Number of fetches of keys waited for.
    waits: u8,
}

/// A list, and the keys that verified it, if they can change.
type VerifiedList = (StatusList, Option<Arc<Jwks>>);

/// A list, or the fetch of keys to wait for before it can be verified.
enum Read {
    List(VerifiedList),
    Pending(Fetching),
}

impl Reading {
    fn read(&self) -> Result<Read, FetchError> {
        const A_JWT: &str = "a status list that is a JWT of type `statuslist+jwt`";
        let text = std::str::from_utf8(&self.body).map_err(|_| self.invalid(A_JWT))?;
        let malformed = |_: InvalidToken| self.invalid(A_JWT);
        let jws = Jws::split_within(text.trim_ascii(), MAX_JWT).map_err(malformed)?;
        jws.check_unpadded().map_err(malformed)?;
        let header = jws.header().map_err(malformed)?;
        if !header.typ.as_deref().is_some_and(|typ| token_type::is(typ, "statuslist+jwt")) {
            return Err(self.invalid(A_JWT));
        }
        let forged = |_: InvalidToken| self.invalid("a status list that the issuer has signed");
        self.issuer.check_algorithm(&header).map_err(forged)?;
        let (now, tenant) = (self.slot.fetches.clock.now(), self.slot.tenant());
        match self.issuer.verify_signature(&jws, &header, tenant, self.waits, now) {
            Ok(SignatureCheck::Ready(payload, keys)) => {
                let payload = std::str::from_utf8(payload.bytes());
                let list = self.list(payload.map_err(|_| self.invalid(A_JWT))?)?;
                Ok(Read::List((list, keys)))
            }
            Ok(SignatureCheck::Pending(fetching)) => Ok(Read::Pending(fetching)),
            Err(Error::KeysUnavailable { reason, .. }) => Err(reason),
            Err(Error::InvalidToken(error)) => Err(forged(error)),
            Err(_) => Err(FetchError::Interrupted),
        }
    }

    fn list(&self, payload: &str) -> Result<StatusList, FetchError> {
        let list = StatusList::read(payload, self.slot.uri());
        let list = list.map_err(|NotAList(expected)| self.invalid(expected))?;
        let (now, leeway) = (self.slot.fetches.clock.now(), self.slot.fetches.leeway);
        if list.issued_at > now.unix.saturating_add(leeway) {
            return Err(self.invalid("a status list that was not issued in the future"));
        }
        if list.has_expired(leeway, now) {
            return Err(self.invalid("a status list that has not expired"));
        }
        Ok(list)
    }

    fn invalid(&self, expected: &'static str) -> FetchError {
        FetchError::InvalidDocument { url: redacted(&self.slot.url), expected }
    }
}
