//! Faults that an exploration must find. build.rs plants each beside the code that it replaces, and
//! main.rs chooses one of them, or none.

/// A fault of the kind that a change could bring in.
pub(crate) struct Fault {
    /// What is wrong.
    pub(crate) name: &'static str,
    /// The file, in `../src`.
    pub(crate) file: &'static str,
    /// Code that is there exactly once, an expression or statements, and what is there instead.
    pub(crate) edits: &'static [(&'static str, &'static str)],
    /// The name of the exploration that finds it.
    pub(crate) breaks: &'static str,
}

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "a proof is looked for under one lock, and added under another",
        file: "dpop/replays.rs",
        edits: &[
            (
                "let mut shard = lock(shard);",
                "{
                    let used_at = |shard: &Shard| shard.0.get(&used.second).cloned();
                    let set = used_at(&lock(shard));
                    if set.is_some_and(|set| set.contains_key(&used.hash)) {
                        return Err(Refused::Used);
                    }
                    lock(shard)
                }",
            ),
            (
                "shard.0.entry(used.second).or_default().entry(used.hash)",
                "{
                    shard.0.entry(used.second).or_default().remove(&used.hash);
                    shard.0.entry(used.second).or_default().entry(used.hash)
                }",
            ),
        ],
        breaks: "of the uses of one proof, exactly one is accepted",
    },
    Fault {
        name: "a second is dropped while its proofs are accepted",
        file: "dpop/replays.rs",
        edits: &[("*first.key() < edge", "*first.key() <= edge")],
        breaks: "of the uses of one proof, exactly one is accepted",
    },
    Fault {
        name: "the earliest second is compared before the lock, and not under it",
        file: "dpop/replays.rs",
        edits: &[("used.second < self.edge.load(Ordering::Relaxed)", "false")],
        breaks: "a used proof is not accepted again after the table has dropped its second",
    },
    Fault {
        name: "the earliest second is loaded and stored, so it may go back",
        file: "dpop/replays.rs",
        edits: &[(
            "self.edge.fetch_max(used.oldest, Ordering::Relaxed).max(used.oldest)",
            "let edge = self.edge.load(Ordering::Relaxed).max(used.oldest);
             self.edge.store(edge, Ordering::Relaxed);
             edge",
        )],
        breaks: "a used proof is not accepted again after the table has dropped its second",
    },
    Fault {
        name: "a proof is counted after the lock is released",
        file: "dpop/replays.rs",
        edits: &[(
            "Ok(self.live.fetch_add(1, Ordering::Relaxed) + 1)",
            "drop(shard);
             Ok(self.live.fetch_add(1, Ordering::Relaxed).wrapping_add(1))",
        )],
        breaks: "the number of remembered proofs is exact, and over the limit by those inserted at once",
    },
    Fault {
        name: "the proofs of a key are counted by a load and a store",
        file: "dpop/replays.rs",
        edits: &[(
            "counter.fetch_add(1, Ordering::Relaxed) < self.most",
            "let used = counter.load(Ordering::Relaxed);
             counter.store(used + 1, Ordering::Relaxed);
             used < self.most",
        )],
        breaks: "a key uses no more than its share of the table",
    },
    Fault {
        name: "the count of revocations is raised before the entry is added",
        file: "revocation/revoked.rs",
        edits: &[
            (
                "let (mut has_changed, mut fits) = (false, true);",
                "self.state.fetch_add(1, Ordering::AcqRel); (false, true)",
            ),
            ("has_changed = true", "{}"),
        ],
        breaks: "no token is accepted after the call that revokes it has returned",
    },
    Fault {
        name: "a call that finds the entry does not wait until it is counted",
        file: "revocation/revoked.rs",
        edits: &[("let _inserted = self.counted();", "None")],
        breaks: "no token is accepted after the second of two equal calls that revoke it has returned",
    },
    Fault {
        name: "the count is loaded by `Relaxed`",
        file: "revocation/revoked.rs",
        edits: &[(
            "self.state.load(Ordering::Acquire) as u32",
            "self.state.load(Ordering::Relaxed) as u32",
        )],
        breaks: "a revocation between the check of a token and its insertion is noticed by the next hit",
    },
    Fault {
        name: "the count is raised by `Relaxed`",
        file: "revocation/revoked.rs",
        edits: &[(
            "self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                let count = (state as u32).wrapping_add(1).max(1);
                Some(state & !u64::from(u32::MAX) | u64::from(count))
            })",
            "self.state.fetch_add(1, Ordering::Relaxed);
             Ok::<u64, u64>(0)",
        )],
        breaks: "a revocation between the check of a token and its insertion is noticed by the next hit",
    },
    Fault {
        name: "a token remembers the count after it was looked up, not before",
        file: "revocation/mod.rs",
        edits: &[(
            "token.looked_up_at().set(count);",
            "token.looked_up_at().set(self.0.revoked.count());",
        )],
        breaks: "a revocation between the check of a token and its insertion is noticed by the next hit",
    },
    Fault {
        name: "a stream subscribes to changes after it has looked",
        file: "revocation/mod.rs",
        edits: &[(
            "changes.changed().await.is_err()",
            "self.0.revoked.changes().changed().await.is_err()",
        )],
        breaks: "a stream ends when its token is revoked: no change is missed",
    },
    Fault {
        name: "the log counts as read before its entries are added",
        file: "revocation/follow.rs",
        edits: &[(
            "let revoked = &revocations.0.revoked;",
            "revocations.0.revoked.was_read(began.uptime + LOST_AFTER, began.uptime + LOST_AFTER);
             &revocations.0.revoked",
        )],
        breaks: "once the log is loaded, what was revoked before is known",
    },
    Fault {
        name: "whether the log was read is loaded by `Relaxed`",
        file: "revocation/revoked.rs",
        edits: &[(
            "self.complete_until.load(Ordering::Acquire)",
            "self.complete_until.load(Ordering::Relaxed)",
        )],
        breaks: "once the log is loaded, what was revoked before is known",
    },
    Fault {
        name: "whether a task reads is looked up under one lock, and recorded under another",
        file: "revocation/follow.rs",
        edits: &[("state.tasks += 1;", "drop(state); state = self.state(); state.tasks += 1;")],
        breaks: "one task reads the log at a time",
    },
    Fault {
        name: "who waits for the log subscribes after it has looked",
        file: "revocation/follow.rs",
        edits: &[("read.changed().await.is_ok()", "self.read.subscribe().changed().await.is_ok()")],
        breaks: "a request that waits for the log is woken, and the next one starts a task that ended",
    },
    Fault {
        name: "the tag of a token is compared, and not its text",
        file: "token_cache.rs",
        edits: &[(
            "cached.as_ref().is_some_and(|entry| entry.token.expose_token() == token)",
            "cached.is_some()",
        )],
        breaks: "a hit returns exactly the token that was asked for",
    },
    Fault {
        name: "a slot is read once to compare the token, and again to return it",
        file: "token_cache.rs",
        edits: &[(
            "is_this.then_some(cached)",
            "is_this.then(|| set.entries.get(way).map(|slot| slot.load())).flatten()",
        )],
        breaks: "a hit returns exactly the token that was asked for",
    },
    Fault {
        name: "the charge of a token is raised by a load and a store",
        file: "access_token/charge.rs",
        edits: &[(
            "self.bytes.fetch_add(bytes, Ordering::Relaxed);",
            "self.bytes.store(self.bytes() + bytes, Ordering::Relaxed);",
        )],
        breaks: "the memory of all tokens is returned exactly once, at whichever time they are dropped",
    },
    Fault {
        name: "memory is taken by a load and a store",
        file: "token_cache.rs",
        edits: &[(
            "self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()",
            "let all = taken(self.bytes.load(Ordering::Relaxed));
             all.inspect(|all| self.bytes.store(*all, Ordering::Relaxed)).is_some()",
        )],
        breaks: "the memory of all tokens is returned exactly once, at whichever time they are dropped",
    },
    Fault {
        name: "the memory of a slot counts as free, also after it was returned to others",
        file: "token_cache.rs",
        edits: &[
            (
                "let freed = leaving.as_ref().map_or(0, |entry| entry.token.charged());",
                "slot.load().as_ref().map_or(0, |entry| entry.token.charged())",
            ),
            ("let leaving = slot.load();", "ArcSwapOption::empty().load()"),
        ],
        breaks: "cached tokens take no more memory than the table has",
    },
    Fault {
        name: "the memory of a slot counts as free, also after the sweep has returned it",
        file: "token_cache.rs",
        edits: &[
            (
                "let freed = leaving.as_ref().map_or(0, |entry| entry.token.charged());",
                "slot.load().as_ref().map_or(0, |entry| entry.token.charged())",
            ),
            ("let leaving = slot.load();", "ArcSwapOption::empty().load()"),
        ],
        breaks: "a slot that is swept gives its memory to one token",
    },
    Fault {
        name: "one copy of a removed token is removed",
        file: "token_cache.rs",
        edits: &[(
            "let previous = slot.compare_and_swap(&found, None);",
            "slot.compare_and_swap(&found, None); return",
        )],
        breaks: "a token that was removed is not found, also if it was cached twice at once",
    },
    Fault {
        name: "a renewal is claimed by a load and a store",
        file: "token_cache.rs",
        edits: &[(
            "self
                .renew_from
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()",
            "self.renew_from.store(next, Ordering::Relaxed); true",
        )],
        breaks: "a cached token is renewed by one of the requests that use it",
    },
    Fault {
        name: "a decision about a fetch is made under one lock, and recorded under another",
        file: "keys/remote/mod.rs",
        edits: &[(
            "let decision = decide(&mut state.schedule, now.uptime);",
            "let mut copy = state.schedule.clone();
             drop(state);
             let decision = decide(&mut copy, now.uptime);
             state = self.lock();
             state.schedule = copy;
             decision",
        )],
        breaks: "one fetch at a time, for all requests, and each of them gets its keys",
    },
    Fault {
        name: "requests are woken before the result of the fetch is stored",
        file: "keys/remote/task.rs",
        edits: &[(
            "self.keys.finish(self.number, answer, self.since.elapsed());",
            "self._ended = watch::channel(()).0;
             self.keys.finish(self.number, answer, self.since.elapsed());",
        )],
        breaks: "one fetch at a time, for all requests, and each of them gets its keys",
    },
    Fault {
        name: "the result of any fetch is stored, not only of the latest",
        file: "keys/remote/mod.rs",
        edits: &[("state.fetch != number", "false")],
        breaks: "a fetch that ends late does not replace newer keys",
    },
    Fault {
        name: "whether a fetch is the latest is looked up before the lock, and not under it",
        file: "keys/remote/mod.rs",
        edits: &[
            (
                "let now = self.clock.now();",
                "if self.lock().fetch != number { return; } self.clock.now()",
            ),
            ("state.fetch != number", "false"),
        ],
        breaks: "a fetch that ends late does not replace newer keys",
    },
    Fault {
        name: "a fetch that is interrupted is not recorded",
        file: "keys/remote/task.rs",
        edits: &[(
            "let answer = self.answer.take().unwrap_or(Err(FetchError::Interrupted));",
            "let Some(answer) = self.answer.take() else { return }; answer",
        )],
        breaks: "a fetch that is interrupted wakes all requests, and a later request starts another",
    },
    Fault {
        name: "the keys are read after the lock is released",
        file: "keys/remote/mod.rs",
        edits: &[(
            "let current = self.current.load_full();",
            "drop(state); let current = self.current.load_full(); state = self.lock(); current",
        )],
        breaks: "a request gets keys, or a fetch to wait for, also while the issuer is forgotten",
    },
    Fault {
        name: "a request with a stale set does not look for a newer one under the lock",
        file: "keys/remote/mod.rs",
        edits: &[(
            "self.current.load().as_ref().is_some_and(|current| !Arc::ptr_eq(current, seen))",
            "false",
        )],
        breaks: "two requests that see a stale set cause one fetch, and both get its keys",
    },
    Fault {
        name: "a hit looks at the time of the next decision, and not at the keys",
        file: "keys/remote/mod.rs",
        edits: &[("std::ptr::eq(Arc::as_ptr(current), keys.as_ptr())", "true")],
        breaks: "no hit whose keys were replaced before the request began",
    },
    Fault {
        name: "a question is looked for under one lock, and added under another",
        file: "verifier/introspections/under_way.rs",
        edits: &[(
            "let (outcome, answer) = watch::channel(None);",
            "drop(questions); questions = self.lock(); watch::channel(None)",
        )],
        breaks: "requests with one token share one question at a time, and each gets an answer",
    },
    Fault {
        name: "an answer is given before its question is removed",
        file: "verifier/introspections/under_way.rs",
        edits: &[(
            "self.under_way.give_up(self.key, &self.answer);\n        self.outcome.send_replace(Some(outcome));",
            "self.outcome.send_replace(Some(outcome));
             self.under_way.give_up(self.key, &self.answer);",
        )],
        breaks: "no request gets the answer to a question that had ended before",
    },
    Fault {
        name: "an answer is cached though its question was given up",
        file: "verifier/introspections/under_way.rs",
        edits: &[("!is_in(&self.questions, self.asking.key, &self.asking.answer)", "false")],
        breaks: "the late answer to a question that was given up does not replace a later answer",
    },
    Fault {
        name: "cached answers are dropped before the questions are given up",
        file: "verifier/introspections/under_way.rs",
        edits: &[(
            "questions.clear();",
            "drop(questions); meanwhile(); self.lock().clear(); return;",
        )],
        breaks: "no answer to a question from before an issuer was forgotten is used after that",
    },
    Fault {
        name: "a question removes any question about its token, also a later one",
        file: "verifier/introspections/under_way.rs",
        edits: &[("is_in(&questions, key, question)", "true")],
        breaks: "the late answer to a question that was given up does not replace a later answer",
    },
    Fault {
        name: "a question that is dropped stays",
        file: "verifier/introspections/under_way.rs",
        edits: &[(
            "self.under_way.give_up(self.key, &self.answer);\n        self.outcome.send_replace(Some(outcome));",
            "self.outcome.send_replace(Some(outcome));",
        )],
        breaks: "a question that is dropped wakes all requests, and the next request asks anew",
    },
    Fault {
        name: "a lookup is looked for under one lock, and added under another",
        file: "single_flight.rs",
        edits: &[(
            "let cell = Arc::new(OnceCell::new());",
            "drop(in_progress); in_progress = self.lock(); Arc::new(OnceCell::new())",
        )],
        breaks: "lookups of one name that are in progress share one call at a time",
    },
    Fault {
        name: "a canceled request removes a lookup that another one waits for",
        file: "single_flight.rs",
        edits: &[("is_own && (is_done || is_last)", "is_own")],
        breaks: "a lookup whose request is canceled is done by the next request",
    },
    Fault {
        name: "a lookup that has ended stays until the last request has left",
        file: "single_flight.rs",
        edits: &[("is_own && (is_done || is_last)", "is_own && is_last")],
        breaks: "no lookup joins one that has ended: its result may be outdated",
    },
    Fault {
        name: "a free permit is looked for under one lock, and waited for under another",
        file: "permits.rs",
        edits: &[(
            "let (give, given) = oneshot::channel();",
            "drop(state); state = self.lock(); oneshot::channel()",
        )],
        breaks: "no permit is lost or given twice, also if a request is canceled that gets one",
    },
    Fault {
        name: "a permit that a canceled request did not take is passed on twice",
        file: "permits.rs",
        edits: &[("unwanted.permits = None", "()")],
        breaks: "no permit is lost or given twice, also if a request is canceled that gets one",
    },
];
