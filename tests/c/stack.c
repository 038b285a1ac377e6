/* Measures the stack of every entry and of one task on painted stacks, against the header's bounds. */
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include "model.h"

#define STACK 65536
#define PAINT 0xa5

static unsigned char arena[MODEL_ARENA_BYTES] TCC_ALIGNED(MODEL_ARENA_ALIGN);
static unsigned char entry_stack[STACK] TCC_ALIGNED(64);
static unsigned char task_stack[STACK] TCC_ALIGNED(64);
static float rows[4 * MODEL_VOCAB];
static const uint32_t tokens[41] = {1, 2, 3, 300, 5};
static model *m;
static tcc_status status;
static tcc_task task;
static void *task_arg;
static uint32_t task_index;
static size_t task_used;

/* A function that uses no stack of its own, in the place of each entry: what callers use is measured with it. */
static tcc_status nothing(void) { return TCC_OK; }

typedef void (*any)(void);
static struct {
  __typeof__(model_init) *init;
  __typeof__(model_eval) *eval;
  __typeof__(model_eval_all) *eval_all;
  __typeof__(model_logits) *logits;
  __typeof__(model_sample) *sample;
  __typeof__(model_info) *info;
  __typeof__(model_self_test) *self_test;
} api;

static void call_init(void) { status = api.init(arena, sizeof arena, NULL, NULL, &m); }
static void call_eval_1(void) { status = api.eval(m, tokens, 1); }
static void call_eval_41(void) { status = api.eval(m, tokens, 41); }
static void call_eval_all(void) { status = api.eval_all(m, tokens, 4, rows); }
static void call_logits(void) { const float *out; status = api.logits(m, &out); }
static void call_self_test(void) { status = api.self_test(arena, sizeof arena, NULL, NULL); }
static void call_sample(void) {
  tcc_sampler sampler = {sizeof sampler, 40, 65536, 60000, {1, 2}};
  uint32_t token;
  status = api.sample(m, &sampler, &token);
}
static void call_info(void) {
  tcc_info info;
  info.size = sizeof info;
  status = api.info(&info);
}
static void call_task(void) { task(task_arg, task_index); }

/* Bytes of `stack` that `call` dirties. */
static size_t used(unsigned char *stack, void (*call)(void)) {
  static ucontext_t back[2], there[2];
  int depth = stack == task_stack;
  size_t clean = 0;
  memset(stack, PAINT, STACK);
  getcontext(&there[depth]);
  there[depth].uc_stack.ss_sp = stack;
  there[depth].uc_stack.ss_size = STACK;
  there[depth].uc_link = &back[depth];
  makecontext(&there[depth], call, 0);
  swapcontext(&back[depth], &there[depth]);
  while (clean < STACK && stack[clean] == PAINT) clean++;
  return STACK - clean;
}

/* Every task on a painted stack of its own. */
static void parallel_for(void *user, uint32_t n, tcc_task f, void *arg) {
  (void)user;
  for (uint32_t i = 0; i < n; i++) {
    size_t bytes;
    task = f, task_arg = arg, task_index = i;
    bytes = used(task_stack, call_task);
    if (bytes > task_used) task_used = bytes;
  }
}

#define CALLS 8
static void (*const calls[CALLS])(void) = {call_init,   call_eval_1, call_eval_41, call_eval_all,
                                           call_logits, call_sample, call_info,    call_self_test};

/* Stack bytes of the calls; returns 0 if one fails. */
static int measure(size_t bytes[CALLS]) {
  for (size_t i = 0; i < CALLS; i++) {
    bytes[i] = used(entry_stack, calls[i]);
    if (status != TCC_OK) return printf("call %u: %s\n", (unsigned)i, model_strerror(status)), 0;
  }
  return 1;
}

int main(void) {
  const any none = (any)nothing;
  size_t callers[CALLS], all[CALLS], most = 0, task_caller;
  tcc_hooks hooks = {sizeof hooks, 3, NULL, parallel_for, NULL, NULL, NULL, NULL, 0, 0};
#define STUB(f) api.f = (__typeof__(model_##f) *)none
  STUB(init), STUB(eval), STUB(eval_all), STUB(logits), STUB(sample), STUB(info), STUB(self_test);
  if (!measure(callers)) return 1;
#define REAL(f) api.f = model_##f
  REAL(init), REAL(eval), REAL(eval_all), REAL(logits), REAL(sample), REAL(info), REAL(self_test);
  if (!measure(all)) return 1;
  for (size_t i = 0; i < CALLS; i++)
    if (all[i] - callers[i] > most) most = all[i] - callers[i];
  task = (tcc_task)none;
  task_caller = used(task_stack, call_task);
  status = model_init(arena, sizeof arena, NULL, &hooks, &m);
  if (status == TCC_OK) status = model_eval(m, tokens, 41);
  if (status == TCC_OK) call_logits();
  if (status != TCC_OK) return printf("with threads: %s\n", model_strerror(status)), 1;
  printf("%u %u %u %u\n", (unsigned)most, MODEL_STACK_BYTES, (unsigned)(task_used - task_caller),
         MODEL_TASK_STACK_BYTES);
  return 0;
}
