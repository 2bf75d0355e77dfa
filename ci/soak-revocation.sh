#!/usr/bin/env bash
# soak-revocation.sh MINUTES: calls two replicas of the demo (examples/protected_api) with revoked
# and other tokens for so long, while sessions end, and while Redis is killed and restarted every
# two minutes. Fails if a revoked token is accepted, or another one rejected, outside the time that is
# documented for a Redis that is down. Prints the memory of both replicas each minute.
#
# Run it on a machine that does nothing else. The soak fails if Redis takes longer than 250 ms for a
# logout, which is then answered 503.
#
# For figures that count, build the demo with --release and name it in PROTECTED_API. Needs the same
# as ci/revocation.sh, and Linux for the memory.
set -euo pipefail

minutes=${1:-}
[[ $minutes =~ ^[1-9][0-9]{0,2}$ ]] && [ "$minutes" -ge 3 ] && [ "$minutes" -le 600 ] || {
  echo "usage: soak-revocation.sh MINUTES (3 to 600)" >&2
  exit 2
}
exec "$(dirname "${BASH_SOURCE[0]}")/revocation.sh" --soak "$minutes"
