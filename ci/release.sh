#!/usr/bin/env bash
# What a release needs beside `.ci/run`: versions that agree, the public API against the last
# release, the packaged sources, licenses, advisories, an SBOM, reproducible results, and the MSRV.
# The last line lists what passed.
#
# `ci/release.sh --quick` takes less than a minute after the other steps of `.ci/run`: the packaged
# sources are compiled and not tested, and the SBOM, the documentation and the MSRV are left out.
#
# ADVISORY_DB: a clone of the RUSTSEC database, for a machine that cannot fetch it.
# `ci/release.sh --test` runs the check of advisories with a planted advisory, and the others with
# planted faults.
#
# Needs cargo-deny, which it installs. Without `--quick` also cargo-cyclonedx and jq, which it
# installs, and rustup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=ci/requirements.sh
. ci/requirements.sh

root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
results=$target/release-checks
export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$target

passed=()
step() {
  local name=$1
  shift
  echo "=== release: $name"
  local start=$SECONDS
  "$@" || {
    echo "FAILED: $name ($*)" >&2
    exit 1
  }
  passed+=("$name ($((SECONDS - start))s)")
}

field() {
  sed -n "s/^$1 = \"\(.*\)\"/\1/p" Cargo.toml | head -n 1
}

install() {
  command -v "$1" >/dev/null || cargo install --locked --quiet "$1" || {
    echo "$1 is missing and could not be installed; run: cargo install --locked $1" >&2
    return 1
  }
}

# The version in Cargo.toml is the first of CHANGELOG.md, with a date or `unreleased`. README.md
# names no other version and no other MSRV.
versions() {
  local version msrv heading found
  version=$(field version)
  msrv=$(field rust-version)
  heading=$(grep --max-count=1 '^## ' CHANGELOG.md)
  grep --quiet --extended-regexp "^## ${version//./\\.} \((unreleased|20[0-9]{2}-[01][0-9]-[0-3][0-9])\)$" <<<"$heading" || {
    echo "CHANGELOG.md: expected '## $version (unreleased)' or a date, found '$heading'" >&2
    return 1
  }
  for found in $(sed -n 's/.*cargo add portcullis@\([0-9.]*\).*/\1/p; s/^portcullis = .*"\([0-9][0-9.]*\)".*/\1/p' README.md); do
    [[ $version == "$found" || $version == "$found".* ]] || {
      echo "README.md: expected version $version, found $found" >&2
      return 1
    }
  done
  grep --quiet --fixed-strings "**Minimum supported Rust version**: $msrv." README.md || {
    echo "README.md: expected the minimum supported Rust version $msrv" >&2
    return 1
  }
}

# package COPY: packages a copy of the files of the package, and unpacks it at COPY/unpacked.
package() {
  local copy=$1
  rm -rf "$copy"
  mkdir -p "$copy/sources" "$copy/unpacked"
  cargo package --list --locked --allow-dirty --quiet 2>/dev/null |
    grep --invert-match --line-regexp --fixed-strings --regexp=Cargo.toml.orig --regexp=.cargo_vcs_info.json |
    xargs --delimiter='\n' cp --parents --target-directory="$copy/sources" || return 1
  # Warns while Cargo.toml has no address of a repository.
  (cd "$copy/sources" && cargo package --locked --no-verify --quiet --target-dir "$copy/target" 2>"$copy/said") || {
    cat "$copy/said" >&2
    return 1
  }
  # The files of a .crate have a constant time. Cargo would take changed ones for those that it has
  # compiled already.
  tar --extract --touch --gzip --file "$copy"/target/package/*.crate --directory "$copy/unpacked" --strip-components=1
}

# Outside of the repository, so that its configuration and its workspace are not found. The folder
# has the same name each time: Cargo would compile the package anew in another one.
outside=${TMPDIR:-/tmp}/portcullis-release-$(cksum <<<"$root" | cut -d ' ' -f 1)

# The .crate has the licenses and what its tests read, nothing else of the repository, and the same
# bytes when it is made again in another folder.
packaged_files() {
  local file stray
  package "$outside/one" && package "$outside/two" || return 1
  for file in LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md Cargo.lock src/lib.rs docs/errors.md tests/events.rs examples/quickstart.rs; do
    [ -f "$outside/one/unpacked/$file" ] || {
      echo "the package lacks $file" >&2
      return 1
    }
  done
  stray=$(cd "$outside/one/unpacked" && find . -type f | sed 's/^\.\///' |
    grep --invert-match --extended-regexp '^(src|tests|examples)/|^docs/[a-z-]+\.md$|^(README|CHANGELOG|CONTRIBUTING|DESIGN|SECURITY)\.md$|^LICENSE-|^Cargo\.(toml|toml\.orig|lock)$' || true)
  [ -z "$stray" ] || {
    echo "the package has files that its users do not need; see \`include\` in Cargo.toml:" "$stray" >&2
    return 1
  }
  cmp "$outside"/one/target/package/*.crate "$outside"/two/target/package/*.crate || return 1
  mkdir -p "$results"
  cp "$outside"/one/target/package/*.crate "$results"
}

# Without the path dependency of the package on itself, which `cargo package` removes, and without
# the other files of the repository.
packaged_sources_compile() {
  (cd "$outside/one/unpacked" && cargo check --locked --quiet --all-features --all-targets)
}

packaged_sources_pass() {
  (cd "$outside/one/unpacked" && cargo test --locked --quiet --all-features)
}

# deny.toml also denies an allowed license that no dependency has.
licenses() {
  install cargo-deny || return 1
  cargo fetch --locked --quiet || return 1
  cargo deny --offline --locked check licenses bans sources
}

# check_advisories DATABASE: prints the result: passed, not checked, or the advisories. DATABASE is
# empty or a clone.
check_advisories() {
  local database=$1 directory status=0 remote=()
  directory=$(mktemp --directory)
  sed "s|^\[advisories\]$|&\ndb-path = \"$directory/databases\"|" deny.toml >"$directory/deny.toml"
  # cargo-deny fetches with git, which reads the clone instead of the address.
  [ -z "$database" ] || remote=(GIT_CONFIG_COUNT=1 "GIT_CONFIG_KEY_0=url.file://$(realpath "$database").insteadOf"
    GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db)
  env "${remote[@]}" timeout 20 cargo deny --locked --config "$directory/deny.toml" check advisories >"$directory/said" 2>&1 || status=$?
  if [ "$status" -eq 0 ]; then
    echo "advisories: checked, none for our dependencies"
  elif grep --quiet 'advisories FAILED' "$directory/said"; then
    cat "$directory/said" >&2
    echo "advisories: the dependencies above need an update, or an entry with its reason in deny.toml" >&2
  elif [ -n "$database" ]; then
    cat "$directory/said" >&2
    echo "advisories: ADVISORY_DB=$database cannot be read as a clone of the database with the branch main" >&2
  else
    echo "advisories: NOT CHECKED, the database could not be fetched ($(reason "$status" "$directory/said")); set ADVISORY_DB"
    status=0
  fi
  rm -rf "$directory"
  return "$status"
}

reason() {
  if [ "$1" -eq 124 ]; then echo "no answer in 20 s"; else grep --max-count=1 '^fatal: ' "$2" || tail -n 1 "$2"; fi
}

advisories() {
  install cargo-deny || return 1
  check_advisories "${ADVISORY_DB:-}" | tee "$outside/advisories"
}

# The library's dependencies with its default features, in CycloneDX. Without a time and a serial
# number, so that the same sources give the same file. cargo-cyclonedx also lists crates that only
# tests or other features of a dependency would compile; those that `cargo tree` does not name are
# removed.
sbom() {
  local copy
  require release jq
  install cargo-cyclonedx || return 1
  for copy in one two; do
    sbom_of "$outside/$copy/unpacked" >"$outside/$copy/sbom" || return 1
  done
  cmp "$outside/one/sbom" "$outside/two/sbom" || return 1
  jq --raw-output '.components[], .metadata.component | "\(.name)@\(.version)"' "$outside/one/sbom" |
    sort --unique | diff --unified "$outside/crates" - || return 1
  cp "$outside/one/sbom" "$results/portcullis-$(field version).cdx.json"
}

sbom_of() {
  cd "$1" || return 1
  cargo tree --locked --edges normal,build --prefix none --no-dedupe |
    sed 's/^\([^ ]*\) v\([^ ]*\).*/\1@\2/' | sort --unique >"$outside/crates" || return 1
  SOURCE_DATE_EPOCH=0 cargo cyclonedx --quiet --format json --spec-version 1.5 --override-filename sbom.cdx || return 1
  # The folder is in the name of the package itself.
  jq --rawfile crates "$outside/crates" '
    ($crates | split("\n")) as $crates
    | .components |= map(select("\(.name)@\(.version)" | IN($crates[])))
    | ([.components[], .metadata.component] | map(."bom-ref")) as $refs
    | .dependencies |= map(select(.ref | IN($refs[])) | .dependsOn |= (. // [] | map(select(IN($refs[])))))
    ' sbom.cdx.json | sed "s|path+file://$1|path+file:///portcullis|" || return 1
  rm sbom.cdx.json
  cd "$root"
}

# The documentation has the same bytes in two folders.
reproducible_docs() {
  local copy
  for copy in one two; do
    rm -rf "$target/doc"
    (cd "$outside/$copy/unpacked" && cargo doc --locked --quiet --no-deps --all-features) || return 1
    mv "$target/doc" "$outside/$copy/doc" || return 1
  done
  diff --recursive --brief "$outside/one/doc" "$outside/two/doc"
}

# The code and its tests compile with the Rust version that Cargo.toml promises.
msrv() {
  local version
  version=$(field rust-version)
  rustup toolchain list 2>/dev/null | grep --quiet "^$version" ||
    rustup toolchain install --profile minimal --no-self-update "$version" || {
    echo "Rust $version cannot be installed with rustup" >&2
    return 1
  }
  cargo "+$version" check --locked --quiet --all-features --all-targets --target-dir "$target/msrv"
}

# Plants a fault for each check that decides by itself.
run_tests() {
  local directory failed=0
  ci/semver.sh --test || failed=1
  install cargo-deny || return 1
  directory=$(mktemp --directory)
  database() {
    mkdir -p "$directory/$1/crates/$2"
    cat >"$directory/$1/crates/$2/RUSTSEC-2020-0001.md" <<'ADVISORY'
```toml
[advisory]
id = "RUSTSEC-2020-0001"
package = "PACKAGE"
date = "2020-01-01"

[versions]
patched = []
```

# Made up for a test
ADVISORY
    sed -i "s/PACKAGE/$2/" "$directory/$1/crates/$2/RUSTSEC-2020-0001.md"
    git -C "$directory/$1" init --quiet --initial-branch main
    git -C "$directory/$1" add .
    git -C "$directory/$1" -c user.name=test -c user.email=test@localhost commit --quiet --message test
  }
  database ours bytes
  database other a-crate-that-is-not-used
  mkdir "$directory/empty"
  advisory_case() {
    local name=$1 expected=$2 said status=0
    said=$(check_advisories "$3" 2>&1) || status=$?
    [ "$status" -eq "$expected" ] && grep --quiet "$4" <<<"$said" || {
      echo "case '$name': expected $expected and '$4', found $status and: $said" >&2
      failed=1
    }
  }
  advisory_case "an advisory for a dependency" 1 "$directory/ours" "need an update"
  advisory_case "an advisory for another crate" 0 "$directory/other" "checked, none"
  advisory_case "no database there" 1 "$directory/empty" "cannot be read"
  # A proxy that does not exist stands for a network without the database.
  https_proxy=http://127.0.0.1:9 advisory_case "no network" 0 "" "NOT CHECKED"
  version_case() {
    local status=ok
    (
      cd "$directory"
      cp "$root"/{Cargo.toml,CHANGELOG.md,README.md} .
      sed -i "$3" "$4"
      versions 2>/dev/null
    ) || status=error
    [ "$status" = "$2" ] || {
      echo "case '$1': expected $2, found $status" >&2
      failed=1
    }
  }
  version_case "as they are" ok "" README.md
  version_case "another version" error 's/^version = .*/version = "9.9.9"/' Cargo.toml
  version_case "another MSRV" error 's/^rust-version = .*/rust-version = "1.99"/' Cargo.toml
  version_case "a heading without a version" error 's/^## [0-9].*/## Unreleased/' CHANGELOG.md
  version_case "a date" ok '0,/(unreleased)/s//(2030-01-31)/' CHANGELOG.md
  version_case "a version in README.md" error '1a cargo add portcullis@9.9' README.md
  rm -rf "$directory"
  [ "$failed" -eq 0 ] && echo "release checks: the planted faults are found."
}

quick=
case ${1:-} in
  --test)
    run_tests
    exit
    ;;
  --quick) quick=1 ;;
  "") ;;
  *)
    echo "usage: ci/release.sh [--quick | --test]" >&2
    exit 2
    ;;
esac

rm -rf "$outside"
mkdir "$outside"
trap 'rm -rf "$outside"' EXIT
step "versions agree" versions
step "planted faults" run_tests
step "public API against the last release" ci/semver.sh
step "files of the package" packaged_files
step "licenses" licenses
step "advisories" advisories
step "packaged sources compile" packaged_sources_compile
if [ -z "$quick" ]; then
  step "SBOM" sbom
  step "reproducible documentation" reproducible_docs
  step "MSRV" msrv
  step "tests of the packaged sources" packaged_sources_pass
fi

grep 'NOT CHECKED' "$outside/advisories" || true
printf 'release checks passed in %ss:' "$SECONDS"
printf ' %s;' "${passed[@]}"
echo
