#!/bin/sh
# Installs what the tests need beside Rust, from Debian packages: emulators and C compilers for the foreign targets.
# Run by ./test.sh; safe to run again. Tools that the system's package state refuses go to target/tools instead.
set -eu
cd "$(dirname "$0")/.."
tools=target/tools

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=""
need() { command -v "$1" >/dev/null 2>&1 || [ -x "$tools/usr/bin/$1" ] || missing="$missing $2"; }
need qemu-aarch64 qemu-user
need qemu-riscv64 qemu-user
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need riscv64-linux-gnu-gcc gcc-riscv64-linux-gnu
# Headers and start files of the foreign C libraries, which the compilers only recommend.
[ -e /usr/aarch64-linux-gnu/include/stdio.h ] || missing="$missing libc6-dev-arm64-cross"
[ -e /usr/riscv64-linux-gnu/include/stdio.h ] || missing="$missing libc6-dev-riscv64-cross"
need gcc gcc
need g++ g++
need nm binutils
system=""
for tool in qemu-system-aarch64:qemu-system-arm qemu-system-riscv64:qemu-system-misc; do
  command -v "${tool%%:*}" >/dev/null 2>&1 || [ -x "$tools/usr/bin/${tool%%:*}" ] || system="$system ${tool##*:}"
done
[ -n "$missing$system" ] || exec sh tests/newer-emulator.sh

if ! command -v apt-get >/dev/null 2>&1; then
  echo "setup: please install:$missing$system" >&2
  exit 1
fi
echo "setup: installing$missing$system" >&2
export DEBIAN_FRONTEND=noninteractive
as_root apt-get update -q >/dev/null
[ -z "$missing" ] || as_root apt-get install -q -y --no-install-recommends $missing >/dev/null
[ -n "$system" ] || exec sh tests/newer-emulator.sh

# A machine may hold a newer qemu-utils that the system emulators' packages break; then unpack them beside it.
if ! as_root apt-get install -q -y --no-remove --no-install-recommends $system >/dev/null 2>&1; then
  mkdir -p "$tools/deb"
  packages="$system qemu-system-common qemu-system-data"
  libraries=$(apt-cache depends $packages | sed -n 's/^  Depends: \(lib[^ <]*\)$/\1/p' | sort -u)
  as_root apt-get install -q -y --no-install-recommends $libraries >/dev/null
  (cd "$tools/deb" && apt-get download -q $packages >/dev/null 2>&1)
  for package in "$tools"/deb/*.deb; do dpkg -x "$package" "$tools"; done
  rm -r "$tools/deb"
fi
exec sh tests/newer-emulator.sh
