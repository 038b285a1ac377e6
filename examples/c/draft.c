/* As main.c, with speculation: the same ids, some of them guessed and evaluated together.
 *
 *   tcc compile ../models/rust-docs-6m -n model -o out
 *   cc -std=c99 -O2 -Iout draft.c out/model.o -o generate
 *   ./generate 1 2 3
 */
#include <stdio.h>
#include <stdlib.h>

#include "draft.h"

enum { PROMPT = 64, GENERATED = 48 };

static unsigned char arena[MODEL_ARENA_BYTES] TCC_ALIGNED(MODEL_ARENA_ALIGN);

int main(int argc, char **argv) {
  uint32_t text[PROMPT + GENERATED];
  size_t n = 0, right = 0;
  for (int i = 1; i < argc && n < PROMPT; i++) text[n++] = (uint32_t)strtoul(argv[i], NULL, 10);
  if (n == 0) return TCC_E_ARG;
  model *m = NULL;
  tcc_status status = model_init(arena, sizeof arena, NULL, NULL, &m);
  if (status == TCC_OK && n > 1) status = model_eval(m, text, n - 1);
  if (status == TCC_OK) status = continue_text(m, text, n, n + GENERATED, &right);
  if (status != TCC_OK) {
    fprintf(stderr, "%s\n", model_strerror(status));
    return status;
  }
  for (size_t i = n; i < n + GENERATED; i++) printf(i > n ? " %u" : "%u", (unsigned)text[i]);
  printf("\n");
  fprintf(stderr, "%u of %u tokens guessed\n", (unsigned)right, (unsigned)GENERATED);
  return 0;
}
