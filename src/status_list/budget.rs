//! How many lists there are, and how much memory they take: those of one issuer, and those of all
//! issuers that come from a lookup.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum number of lists of one issuer.
const MAX_LISTS: usize = 64;

/// Maximum memory of the lists of one issuer, in bytes: four of the largest. Lists of eight million
/// tokens with 2 bits take 2 MB each.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Maximum number of further lists, beside the first one of each, of all issuers that come from the
/// lookup of one verifier. Anyone may be able to register such an issuer.
const MAX_LISTS_OF_RESOLVED: usize = 1024;

/// Maximum memory of the lists of all these issuers, in bytes.
const MAX_BYTES_OF_RESOLVED: usize = 256 * 1024 * 1024;

/// What lists take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) lists: usize,
    pub(super) bytes: usize,
}

/// What the lists of all issuers that come from the lookup of one verifier take together.
#[derive(Default)]
pub(crate) struct ResolvedBudget(Mutex<Usage>);

/// What the lists of one issuer take.
pub(super) struct Account {
    own: Mutex<Usage>,
    /// `None`: the issuer is configured, and does not count.
    of_resolved: Option<Arc<ResolvedBudget>>,
}

/// There is no room for a list. The text names what was expected.
#[derive(Debug, PartialEq)]
pub(super) struct NoRoom(pub(super) &'static str);

impl Account {
    pub(super) fn new(of_resolved: Option<Arc<ResolvedBudget>>) -> Self {
        Self { own: Mutex::default(), of_resolved }
    }

    pub(super) fn usage(&self) -> Usage {
        *lock(&self.own)
    }

    /// Counts another list. The list takes no memory before [`resize`](Self::resize).
    pub(super) fn add_list(&self) -> Result<(), NoRoom> {
        const OF_ISSUER: NoRoom = NoRoom("at most 64 status lists of an issuer");
        const OF_ALL: NoRoom = NoRoom("at most 1,024 status lists of all issuers from the lookup");
        let mut own = lock(&self.own);
        if own.lists >= MAX_LISTS {
            return Err(OF_ISSUER);
        }
        // Tenants with one list each need no more places than there are tenants, whose number is
        // limited by itself.
        if own.lists > 0
            && let Some(budget) = &self.of_resolved
        {
            let mut all = lock(&budget.0);
            if !is_fair(own.lists, all.lists, MAX_LISTS_OF_RESOLVED) {
                return Err(OF_ALL);
            }
            all.lists += 1;
        }
        own.lists += 1;
        Ok(())
    }

    /// Counts a list of `to` bytes in place of one of `from` bytes.
    pub(super) fn resize(&self, from: usize, to: usize) -> Result<(), NoRoom> {
        const OF_ISSUER: NoRoom =
            NoRoom("a status list that fits into the 64 MiB of all lists of its issuer");
        const OF_ALL: NoRoom = NoRoom(
            "a status list that fits into the 256 MiB of the lists of all issuers from the lookup",
        );
        let mut own = lock(&self.own);
        let after = own.bytes.saturating_sub(from).saturating_add(to);
        let grows = to > from;
        if grows && after > MAX_BYTES {
            return Err(OF_ISSUER);
        }
        if let Some(budget) = &self.of_resolved {
            let mut all = lock(&budget.0);
            let all_after = all.bytes.saturating_sub(from).saturating_add(to);
            if grows && !is_fair(after, all_after, MAX_BYTES_OF_RESOLVED) {
                return Err(OF_ALL);
            }
            all.bytes = all_after;
        }
        own.bytes = after;
        Ok(())
    }

    /// No longer counts a list of `bytes` bytes.
    pub(super) fn remove_list(&self, bytes: usize) {
        let mut own = lock(&self.own);
        if let Some(budget) = &self.of_resolved {
            let mut all = lock(&budget.0);
            all.lists = all.lists.saturating_sub(usize::from(own.lists > 1));
            all.bytes = all.bytes.saturating_sub(bytes);
        }
        own.lists = own.lists.saturating_sub(1);
        own.bytes = own.bytes.saturating_sub(bytes);
    }
}

/// Whether one issuer takes no more than it leaves. Were the limit of all issuers the only one, a
/// few hostile tenants could take all of it, and the lists of the others would not be read.
fn is_fair(own: usize, all: usize, limit: usize) -> bool {
    limit.checked_sub(all).is_some_and(|left| own <= left)
}

fn lock(usage: &Mutex<Usage>) -> MutexGuard<'_, Usage> {
    usage.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn accounts(number: usize) -> (Arc<ResolvedBudget>, Vec<Account>) {
        let budget = Arc::<ResolvedBudget>::default();
        let accounts = (0..number).map(|_| Account::new(Some(Arc::clone(&budget)))).collect();
        (budget, accounts)
    }

    /// Adds lists of 1 MiB until one is rejected.
    fn fill(account: &Account) -> usize {
        let mut lists = 0;
        while account.add_list().is_ok() {
            if account.resize(0, MIB).is_err() {
                account.remove_list(0);
                break;
            }
            lists += 1;
        }
        lists
    }

    #[test]
    fn configured_issuers_have_limits_of_their_own() {
        for _ in 0..8 {
            let account = Account::new(None);
            assert_eq!(fill(&account), 64);
            assert_eq!(account.usage(), Usage { lists: 64, bytes: 64 * MIB });
        }
    }

    #[test]
    fn issuers_of_a_lookup_share_a_budget_and_leave_some_to_others() {
        let (budget, accounts) = accounts(1000);
        let taken: Vec<_> = accounts.iter().map(fill).collect();
        assert_eq!(taken[..7], [64, 64, 64, 32, 16, 8, 4]);
        let all = *lock(&budget.0);
        assert!(all.bytes <= MAX_BYTES_OF_RESOLVED, "{all:?}");
        // What is left is for small lists.
        let late = &accounts[999];
        assert_eq!(late.usage().bytes, 0);
        late.add_list().unwrap();
        assert_eq!(late.resize(0, 4096), Ok(()));
    }

    #[test]
    fn the_number_of_lists_is_limited_for_all_issuers_together() {
        let (budget, accounts) = accounts(2000);
        for account in &accounts {
            while account.add_list().is_ok() {}
        }
        assert!(accounts.iter().all(|account| account.usage().lists >= 1), "each has one list");
        let all = lock(&budget.0).lists;
        assert!((1000..=MAX_LISTS_OF_RESOLVED).contains(&all), "{all}");
    }

    #[test]
    fn what_is_dropped_is_free_again() {
        let (budget, accounts) = accounts(20);
        for _ in 0..3 {
            for account in &accounts {
                let lists = fill(account);
                // A list that shrinks is always accepted.
                for _ in 0..lists {
                    assert_eq!(account.resize(MIB, 1), Ok(()));
                    account.remove_list(1);
                }
            }
            assert_eq!(*lock(&budget.0), Usage::default());
        }
        assert!(accounts.iter().all(|account| account.usage() == Usage::default()));
    }

    #[test]
    fn a_list_of_the_same_size_stays_when_others_have_taken_the_rest() {
        let (_budget, accounts) = accounts(1000);
        assert_eq!(fill(&accounts[0]), 64);
        for other in &accounts[1..] {
            fill(other);
        }
        assert_eq!(accounts[0].resize(MIB, MIB), Ok(()));
        assert!(accounts[0].resize(MIB, MIB + 1).is_err());
    }

    #[test]
    fn the_first_list_of_an_issuer_does_not_count_for_all() {
        let (budget, accounts) = accounts(2);
        for _ in 0..3 {
            accounts[0].add_list().unwrap();
        }
        accounts[1].add_list().unwrap();
        assert_eq!(lock(&budget.0).lists, 2);
        accounts[1].remove_list(0);
        assert_eq!(lock(&budget.0).lists, 2);
        accounts[0].remove_list(0);
        assert_eq!(lock(&budget.0).lists, 1);
    }

    #[test]
    fn a_list_that_grows_is_rejected_once_there_is_no_room() {
        let account = Account::new(None);
        account.add_list().unwrap();
        assert_eq!(account.resize(0, 60 * MIB), Ok(()));
        account.add_list().unwrap();
        assert!(account.resize(0, 5 * MIB).is_err());
        assert_eq!(account.usage().bytes, 60 * MIB, "nothing has changed");
        assert_eq!(account.resize(60 * MIB, 64 * MIB), Ok(()), "in place of the first");
    }
}
