#!/bin/sh
# build.sh ISA [OUT]: compiles the example model for ISA (aarch64 or riscv64), links it with this board's start-up code
# and writes OUT/flash.bin. Needs tcc on PATH (or in $TCC) and a cross gcc; `run.sh` boots it.
set -eu
isa=${1:?usage: build.sh aarch64|riscv64 [OUT]}
here=$(cd "$(dirname "$0")" && pwd)
out=${2:-$here/out/$isa}
tcc=${TCC:-tcc}
model_dir=$here/../models/rust-docs-6m
prompt=${PROMPT_TEXT:-"The Vec type"}

mkdir -p "$out"
"$tcc" compile -q "$model_dir" -t "$isa" -n model --ctx 128 --emit obj,header,pieces -o "$out" ${TCC_FLAGS:-}
ids=$("$tcc" inspect "$model_dir" --encode "$prompt")
case $isa in
  aarch64) arch="-march=armv8-a" ;;
  riscv64) arch="-march=rv64gc -mabi=lp64d -mcmodel=medany" ;;
  *) echo "build.sh: no board for '$isa'" >&2; exit 2 ;;
esac
"$isa-linux-gnu-gcc" -std=c11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-pic -fno-stack-protector -nostdlib -static \
  $arch -DPROMPT="$ids" -I"$out" -T "$here/$isa/link.ld" -Wl,--build-id=none -Wl,-no-pie -Wl,--no-warn-rwx-segments \
  "$here/$isa/start.S" "$here/$isa/board.c" "$here/main.c" "$out/model.o" -o "$out/firmware.elf"
"$isa-linux-gnu-objcopy" -O binary --gap-fill 0xff "$out/firmware.elf" "$out/flash.bin"
# QEMU's riscv64 flash bank takes an image of exactly its size.
if [ "$isa" = riscv64 ]; then truncate -s 32M "$out/flash.bin"; fi
echo "$out/flash.bin"
