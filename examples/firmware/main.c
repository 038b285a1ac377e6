/* Bare metal, no libc: runs the model's self-test, then prints the prompt's continuation over the serial line. */
#include "board.h"
#include "model.h"        /* generated: rust_docs_6m.h under a fixed name */
#include "model_pieces.h" /* generated: the bytes of each token */

#ifndef PROMPT
#  error "define PROMPT as the prompt's token ids, for example -DPROMPT=1,2,3"
#endif
#ifndef TOKENS
#  define TOKENS 24
#endif

/* RAM is this array and the stack; both are known before flashing. */
static _Alignas(MODEL_ARENA_ALIGN) unsigned char arena[MODEL_ARENA_BYTES];

static void put(const char *text) {
  while (*text) board_put(*text++);
}

static void put_token(uint32_t token) {
  uint32_t begin = model_piece_offsets[token], end = model_piece_offsets[token + 1];
  for (uint32_t i = begin; i < end; i++) board_put((char)model_piece_bytes[i]);
}

static void fail(const char *what, tcc_status status) {
  put(what);
  put(": ");
  put(model_strerror(status));
  put("\n");
  board_off();
}

void board_main(void) {
  static const uint32_t prompt[] = {PROMPT};
  /* Static, so that the compiler needs no memset to clear it. */
  static tcc_hooks hooks;
  hooks.size = sizeof hooks;
  hooks.cpu_features = board_cpu_features();
  tcc_sampler greedy = {.size = sizeof greedy, .top_k = 1, .temperature_q16 = 65536, .top_p_q16 = 65536, .rng = {1, 2}};
  model *m = 0;

  tcc_status status = model_self_test(arena, sizeof arena, 0, &hooks);
  if (status != TCC_OK) fail("self-test", status);
  put("self-test: ok\n");

  status = model_init(arena, sizeof arena, 0, &hooks, &m);
  if (status != TCC_OK) fail("init", status);
  for (uint32_t i = 0; i < sizeof prompt / sizeof *prompt; i++) put_token(prompt[i]);
  status = model_eval(m, prompt, sizeof prompt / sizeof *prompt);
  for (int i = 0; status == TCC_OK && i < TOKENS; i++) {
    uint32_t token;
    status = model_sample(m, &greedy, &token);
    if (status != TCC_OK) break;
    put_token(token);
    status = model_eval(m, &token, 1);
  }
  put("\n");
  if (status != TCC_OK) fail("eval", status);
  put("done\n");
  board_off();
}
