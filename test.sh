#!/bin/sh
# test.sh [--full]: installs what the tests need, then runs formatting, lints and every test.
# --full runs the slow suites in full length, as CI does; without it they take samples.
set -eu
cd "$(dirname "$0")"
full=0
for argument in "$@"; do
  case $argument in
    --full) full=1 ;;
    *) echo "usage: test.sh [--full]" >&2; exit 2 ;;
  esac
done
sh tests/setup.sh
PATH="$PWD/target/tools/usr/bin:$PATH"
export PATH TCC_TEST_FULL=$full
cargo fmt --all --check
cargo clippy --release --workspace --all-targets -- -D warnings
cargo test --release --workspace
