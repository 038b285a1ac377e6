/* What main.c needs from a board: characters out, and power off. */
#ifndef BOARD_H
#define BOARD_H

void board_put(char c);
_Noreturn void board_off(void);

/* The core's features for tcc_hooks, where the instruction set offers no probe; 0 lets the object ask the core. */
unsigned long board_cpu_features(void);

#endif
