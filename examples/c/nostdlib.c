/* The same without a C library: its own entry point and raw system calls, for Linux on aarch64 and riscv64.
 *
 *   aarch64-linux-gnu-gcc -O2 -ffreestanding -nostdlib -static -Iout nostdlib.c out/model.o -o generate
 *   qemu-aarch64 ./generate; echo $?
 *
 * Exits with 0 and prints the status, "success" if the self-test passes, and speculation gives the same text as one
 * token at a time.
 */
#include "draft.h"

static unsigned char arena[MODEL_ARENA_BYTES] TCC_ALIGNED(MODEL_ARENA_ALIGN);

static long system_call(long number, long a, long b, long c) {
#if defined(__aarch64__)
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
#elif defined(__riscv)
  register long a7 __asm__("a7") = number, a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
  return a0;
#else
#  error "no system calls for this instruction set"
#endif
}

enum { SYS_WRITE = 64, SYS_EXIT_GROUP = 94 };

enum { TOKENS = 24 };
static uint32_t plain[TOKENS], drafted[TOKENS];

/* A text one token at a time, and with speculation. */
static tcc_status compare_texts(const tcc_hooks *hooks) {
  tcc_sampler greedy = {sizeof(tcc_sampler), 1, 65536, 65536, {1, 2}};
  size_t right = 0;
  model *m = 0;
  tcc_status status = model_init(arena, sizeof arena, 0, hooks, &m);
  plain[0] = drafted[0] = 1;
  for (int i = 1; i < TOKENS && status == TCC_OK; i++) {
    status = model_eval(m, &plain[i - 1], 1);
    if (status == TCC_OK) status = model_sample(m, &greedy, &plain[i]);
  }
  if (status != TCC_OK) return status;
  model_reset(m);
  status = continue_text(m, drafted, 1, TOKENS, &right);
  for (int i = 0; i < TOKENS && status == TCC_OK; i++) {
    if (plain[i] != drafted[i]) status = TCC_E_HASH;
  }
  return status;
}

void _start(void) {
  /* Static, so that the compiler needs no memset to clear it. */
  static tcc_hooks hooks;
  hooks.size = sizeof hooks;
  /* This core has what the object was compiled for. What a system grants (amxint8) must have been asked for by now. */
  hooks.cpu_features = MODEL_CPU_FEATURE_BITS;
  hooks.vlen = MODEL_VLEN;
  tcc_status status = model_self_test(arena, sizeof arena, 0, &hooks);
  if (status == TCC_OK) status = compare_texts(&hooks);
  const char *text = model_strerror(status);
  long length = 0;
  while (text[length]) length++;
  system_call(SYS_WRITE, 1, (long)text, length);
  system_call(SYS_WRITE, 1, (long)"\n", 1);
  system_call(SYS_EXIT_GROUP, status, 0, 0);
  for (;;) {}
}
