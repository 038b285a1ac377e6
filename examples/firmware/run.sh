#!/bin/sh
# run.sh ISA [OUT]: boots OUT/flash.bin (see build.sh) on QEMU's `virt` board of ISA; serial output goes to the terminal.
set -eu
isa=${1:?usage: run.sh aarch64|riscv64 [OUT]}
out=${2:-$(cd "$(dirname "$0")" && pwd)/out/$isa}
case $isa in
  aarch64) exec "qemu-system-$isa" -M virt -cpu "${CPU:-cortex-a53}" -m 256M -nographic -nic none -bios "$out/flash.bin" ;;
  riscv64) exec "qemu-system-$isa" -M virt -cpu "${CPU:-rv64}" -m 256M -nographic -nic none -bios none \
             -drive "if=pflash,unit=0,format=raw,readonly=on,file=$out/flash.bin" ;;
  *) echo "run.sh: no board for '$isa'" >&2; exit 2 ;;
esac
