#!/usr/bin/env bash
# Compares the public API with that of the last release, and the version with what the differences
# require. `ci/semver.sh [BASE]`: BASE is a tag or a commit, by default the last tag `v*`. Before the
# first release there is no tag, and the last line says that nothing was compared.
#
# Both lists are ci/public-api.txt, of BASE and of the working tree; ci/public-api.sh checks that the
# latter is current. A removed or changed item is breaking. An added item is not, except where other
# code may name all items: a method of a trait (the list does not say whether it has a default), a
# variant or a field of a type that is not `#[non_exhaustive]`. Before 1.0, the minor version is the
# one that may break, and the patch version the one that may add (the rule of Cargo).
#
# `ci/semver.sh --test` runs the comparison with a table of planted differences.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

# differences OLD NEW: one line per item, `breaking` or `added` before it. Both lists are sorted.
differences() {
  comm -23 "$1" "$2" | sed 's/^/breaking  removed or changed: /'
  comm -13 "$1" "$2" | awk '
    # The path that a line of a list is about.
    function path_of(line) {
      sub(/^#\[non_exhaustive\] /, "", line)
      sub(/^pub /, "", line)
      sub(/^((async|const|enum|fn|mod|static|struct|trait|type|unsafe) )+/, "", line)
      sub(/[^A-Za-z0-9_:].*$/, "", line)
      sub(/:+$/, "", line)
      return line
    }
    # The old list: what other code may implement, or name with all its parts.
    NR == FNR {
      if (/^pub trait /) trait[path_of($0)] = 1
      if (/^pub (enum|struct) /) exhaustive[path_of($0)] = 1
      next
    }
    {
      parent = path_of($0)
      sub(/::[A-Za-z0-9_]+$/, "", parent)
      # A variant or a field has no keyword.
      is_part = /^pub portcullis::/
      print (parent in trait || is_part && parent in exhaustive ? "breaking  added: " : "added     ") $0
    }' "$1" -
}

version_of() {
  sed -n 's/^version = "\(.*\)"/\1/p' | head -n 1
}

# growth OLD NEW: what the step from one version to the other may contain.
growth() {
  local old new index
  IFS=. read -r -a old <<<"${1%%-*}"
  IFS=. read -r -a new <<<"${2%%-*}"
  for index in 0 1 2; do
    [ "${new[index]}" -ge "${old[index]}" ] || {
      echo shrunk
      return
    }
    [ "${new[index]}" -eq "${old[index]}" ] || break
    [ "$index" -lt 2 ] || {
      echo none
      return
    }
  done
  # Cargo: the first number that is not zero may break, the next one may add.
  if [ "$index" -eq 0 ]; then
    echo breaking
  elif [ "${old[0]}" -eq 0 ]; then
    if [ "$index" -eq 1 ] || [ "${old[1]}" -eq 0 ]; then echo breaking; else echo added; fi
  else
    if [ "$index" -eq 1 ]; then echo added; else echo fixed; fi
  fi
}

# compare OLD_VERSION OLD_LIST NEW_VERSION NEW_LIST
compare() {
  local items needed grown
  items=$(differences "$2" "$4")
  grown=$(growth "$1" "$3")
  needed=none
  if grep --quiet '^added' <<<"$items"; then needed=added; fi
  if grep --quiet '^breaking' <<<"$items"; then needed=breaking; fi
  [ -z "$items" ] || echo "$items"
  case $needed:$grown in
    *:shrunk) ;;
    none:* | added:added | *:breaking)
      echo "semver: $1 to $3 may contain these differences ($needed)."
      return
      ;;
  esac
  echo "semver: the differences above ($needed) need a greater version than $3, after $1" >&2
  return 1
}

# Each case plants one difference, and says whether the step of the version allows it.
run_tests() {
  local directory failed=0
  directory=$(mktemp --directory)
  # shellcheck disable=SC2064 # The folder of this call.
  trap "rm -r '$directory'" EXIT
  printf '%s\n' '#[non_exhaustive] pub enum portcullis::Open' 'pub enum portcullis::Closed' 'pub fn portcullis::Verifier::new()' \
    'pub portcullis::Closed::One' 'pub portcullis::Open::One' 'pub struct portcullis::ApiKey<T>' \
    'pub trait portcullis::Store: core::marker::Send' 'pub struct portcullis::Verifier' | sort >"$directory/old"
  check() {
    local name=$1 old=$2 new=$3 expected=$4 edit=$5 found=ok
    sed "$edit" "$directory/old" | sort >"$directory/new"
    compare "$old" "$directory/old" "$new" "$directory/new" >"$directory/said" 2>&1 || found=error
    [ "$found" = "$expected" ] || {
      echo "case '$name', $old to $new: expected $expected, found $found" >&2
      cat "$directory/said" >&2
      failed=1
    }
  }
  local removed='/Verifier::new/d' changed='s/new()/new(u8)/' none=''
  local method='$a pub fn portcullis::Verifier::other()' type='$a pub struct portcullis::Other'
  local required='$a pub fn portcullis::Store::other(&self)' open='$a pub portcullis::Open::Two'
  local closed='$a pub portcullis::Closed::Two' field='$a pub portcullis::ApiKey::field: u8'
  local narrowed='s/^pub enum/#[non_exhaustive] pub enum/'
  #     name                                  old    new    result item
  check "nothing changed"                     0.1.0  0.1.0  ok     "$none"
  check "nothing changed, a fix"              1.2.3  1.2.4  ok     "$none"
  check "the version shrank"                  0.2.0  0.1.9  error  "$none"
  check "removed, same version"               0.1.0  0.1.0  error  "$removed"
  check "removed, patch before 1.0"           0.1.0  0.1.1  error  "$removed"
  check "removed, minor before 1.0"           0.1.0  0.2.0  ok     "$removed"
  check "removed, patch at 0.0"               0.0.1  0.0.2  ok     "$removed"
  check "removed, to 1.0"                     0.9.0  1.0.0  ok     "$removed"
  check "removed, minor after 1.0"            1.2.0  1.3.0  error  "$removed"
  check "removed, major after 1.0"            1.2.0  2.0.0  ok     "$removed"
  check "changed signature, patch"            0.1.0  0.1.1  error  "$changed"
  check "changed signature, minor"            0.1.0  0.2.0  ok     "$changed"
  check "an enum became non-exhaustive"       1.2.0  1.3.0  error  "$narrowed"
  check "added method, same version"          0.1.0  0.1.0  error  "$method"
  check "added method, patch before 1.0"      0.1.0  0.1.1  ok     "$method"
  check "added method, patch after 1.0"       1.2.0  1.2.1  error  "$method"
  check "added method, minor after 1.0"       1.2.0  1.3.0  ok     "$method"
  check "added type"                          0.1.0  0.1.1  ok     "$type"
  check "added method of a trait"             0.1.0  0.1.1  error  "$required"
  check "added variant, non-exhaustive"       0.1.0  0.1.1  ok     "$open"
  check "added variant, exhaustive"           0.1.0  0.1.1  error  "$closed"
  check "added field"                         0.1.0  0.1.1  error  "$field"
  check "a pre-release"                       0.1.0  0.2.0-rc.1 ok "$removed"
  [ "$failed" -eq 0 ] || exit 1
  echo "semver: the planted differences are found."
}

if [ "${1:-}" = --test ]; then
  run_tests
  exit
fi
base=${1:-$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)}
[ -n "$base" ] || {
  echo "semver: not compared, there is no tag v* yet; ci/public-api.txt will be the base of the next version."
  exit
}
old=$(mktemp)
trap 'rm -f "$old"' EXIT
git show "$base:ci/public-api.txt" | sort --unique >"$old"
compare "$(git show "$base:Cargo.toml" | version_of)" "$old" "$(version_of <Cargo.toml)" ci/public-api.txt
