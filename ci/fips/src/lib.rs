//! Nothing: the tests of this package are what ci/fips.sh runs.
