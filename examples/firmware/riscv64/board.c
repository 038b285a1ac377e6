/* QEMU `-M virt`, riscv64: 16550 at 0x10000000, test finisher for power off. */
#include <stdint.h>

#include "../board.h"
#include "model.h"

#define UART0 ((volatile uint8_t *)0x10000000)
#define UART_LSR 5
#define UART_LSR_THRE (1u << 5)
#define FINISHER ((volatile uint32_t *)0x100000)

void board_put(char c) {
  while (!(UART0[UART_LSR] & UART_LSR_THRE)) {}
  UART0[0] = (uint8_t)c;
}

_Noreturn void board_off(void) {
  *FINISHER = 0x5555;
  for (;;) {}
}

/* riscv64 lets code probe nothing; the board knows its core. */
unsigned long board_cpu_features(void) { return MODEL_CPU_FEATURE_BITS; }
