#!/usr/bin/env bash
# End-to-end check of revocation with several replicas: sessions end at one of two processes of the
# demo (examples/protected_api) that share a Redis, by OpenID Connect Back-Channel Logout 1.0 and by
# security events (RFC 8935). Both reject their tokens within two seconds, while Redis is stopped,
# and after a restart. ci/revocation/check.mjs lists the cases.
#
# Needs node, redis-server or valkey-server, and cargo. Everything listens on free ports of
# 127.0.0.1. Takes two minutes once built: for one of them, Redis is stopped. Can be run
# from any directory. PROTECTED_API names a built demo to check instead.
#
# `--soak MINUTES` runs ci/revocation/soak.mjs instead of the cases; see ci/soak-revocation.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "revocation check: $*" >&2
  exit 1
}

script=(ci/revocation/check.mjs)
passed="Replicas reject what was revoked at one of them."
if [ "${1:-}" = --soak ]; then
  script=(ci/revocation/soak.mjs --minutes "${2:-}")
  passed="In ${2:-} minutes, no revoked token was accepted, and no other one rejected."
fi

. ci/requirements.sh
. ci/processes.sh
require "revocation check" node redis-server
redis=$(find_tool redis-server)

# In memory where that is possible: a disk that stalls for 250 ms is a Redis that does not answer, and
# a logout is then answered 503.
work_folder --in-memory
if [ -z "${PROTECTED_API:-}" ]; then
  build_examples protected_api
  PROTECTED_API=$programs/protected_api
fi

in_background node "${script[@]}" --demo "$PROTECTED_API" --redis "$redis" --work "$work" || fail "failed; see above"

echo "$passed"
