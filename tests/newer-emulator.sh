#!/bin/sh
# SME needs an emulator whose smopa is right, which QEMU 7.2 of Debian 12 is not: the one of the release's backports goes to
# target/tools as qemu-aarch64-newer (it is built without plugins, which counting instructions needs), and the system stays
# as it is. Where there is none, the tests report the machines with SME as skipped.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
[ ! -x "$tools/usr/bin/qemu-aarch64-newer" ] || exit 0
version() { PATH="$tools/usr/bin:$PATH" qemu-aarch64 --version 2>/dev/null | sed -n 's/.* version \([0-9]*\)\..*/\1/p'; }
found=$(version) && [ -n "$found" ] && [ "$found" -lt 10 ] && command -v apt-get >/dev/null 2>&1 || exit 0

codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | sed -n "s/ $codename\$//p" | head -n 1)
work=$tools/backports
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$tools/usr/bin"
echo "deb $mirror $codename-backports main" >"$work/sources.list"
backports() {
  apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" "$@" >/dev/null 2>&1
}
if [ -n "$mirror" ] && backports update && (cd "$work" && backports download qemu-user); then
  dpkg -x "$work"/qemu-user_*.deb "$work"
  mv "$work/usr/bin/qemu-aarch64" "$tools/usr/bin/qemu-aarch64-newer"
fi
