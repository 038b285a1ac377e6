/* A C program around a compiled model: token ids as arguments, greedy continuation as ids.
 *
 *   tcc compile ../models/rust-docs-6m -n model -o out
 *   cc -std=c99 -O2 -Iout main.c out/model.o -o generate
 *   ./generate 1 2 3
 */
#include <stdio.h>
#include <stdlib.h>

#include "model.h"

static unsigned char arena[MODEL_ARENA_BYTES] TCC_ALIGNED(MODEL_ARENA_ALIGN);

static int fail(const char *what, tcc_status status) {
  fprintf(stderr, "%s: %s\n", what, model_strerror(status));
  return status;
}

int main(int argc, char **argv) {
  tcc_sampler greedy = {sizeof(tcc_sampler), 1, 65536, 65536, {1, 2}};
  model *m = NULL;
  tcc_status status = model_init(arena, sizeof arena, NULL, NULL, &m);
  if (status != TCC_OK) return fail("init", status);
  for (int i = 1; i < argc; i++) {
    uint32_t token = (uint32_t)strtoul(argv[i], NULL, 10);
    status = model_eval(m, &token, 1);
    if (status != TCC_OK) return fail("eval", status);
  }
  for (int i = 0; i < 8; i++) {
    uint32_t token;
    status = model_sample(m, &greedy, &token);
    if (status == TCC_OK) status = model_eval(m, &token, 1);
    if (status != TCC_OK) return fail("sample", status);
    printf(i ? " %u" : "%u", (unsigned)token);
  }
  printf("\n");
  return 0;
}
