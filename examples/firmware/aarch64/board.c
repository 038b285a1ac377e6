/* QEMU `-M virt`, aarch64: PL011 at 0x09000000, PSCI for power off, caches and MMU on. */
#include <stdint.h>

#include "../board.h"

#define UART0 ((volatile uint32_t *)0x09000000)
#define UART_FR (0x18 / 4)
#define UART_FR_TXFF (1u << 5)

void board_put(char c) {
  while (UART0[UART_FR] & UART_FR_TXFF) {}
  UART0[0] = (uint32_t)(unsigned char)c;
}

_Noreturn void board_off(void) {
  register uint64_t x0 __asm__("x0") = 0x84000008; /* PSCI SYSTEM_OFF */
  __asm__ volatile("hvc #0" : "+r"(x0)::"memory");
  for (;;) {}
}

unsigned long board_cpu_features(void) { return 0; } /* ID registers tell */

/* Identity map: flash and RAM as normal cacheable memory, everything else in the first GiB as device memory.
 * With the MMU off all memory is device memory, where unaligned and exclusive accesses may fault. */
static uint64_t table_1g[512] __attribute__((aligned(4096)));
static uint64_t table_2m[512] __attribute__((aligned(4096)));

#define BLOCK 1ull
#define TABLE 3ull
#define ACCESSED (1ull << 10)
#define INNER_SHAREABLE (3ull << 8)
#define ATTR_NORMAL (0ull << 2)
#define ATTR_DEVICE (1ull << 2)

void board_mmu(void) {
  for (uint64_t i = 0; i < 512; i++) {
    uint64_t normal = i < 64; /* 128 MiB of flash */
    uint64_t kind = normal ? ATTR_NORMAL | INNER_SHAREABLE : ATTR_DEVICE;
    table_2m[i] = i << 21 | BLOCK | ACCESSED | kind;
  }
  table_1g[0] = (uint64_t)table_2m | TABLE;
  table_1g[1] = 1ull << 30 | BLOCK | ACCESSED | ATTR_NORMAL | INNER_SHAREABLE;
  uint64_t mair = 0xff | 0x00 << 8;                                   /* 0: write-back, 1: device-nGnRnE */
  uint64_t tcr = 25 | 1ull << 8 | 1ull << 10 | 3ull << 12 | 1ull << 23; /* 39-bit TTBR0, 4 KiB, no TTBR1 */
  __asm__ volatile(
      "msr mair_el1, %0\n msr tcr_el1, %1\n msr ttbr0_el1, %2\n tlbi vmalle1\n dsb sy\n isb\n"
      "mrs x9, sctlr_el1\n orr x9, x9, #1\n orr x9, x9, #4\n orr x9, x9, #0x1000\n msr sctlr_el1, x9\n isb"
      ::"r"(mair), "r"(tcr), "r"(table_1g) : "x9", "memory");
}
