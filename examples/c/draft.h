/* Greedy text with speculation: what the text repeats is guessed, and evaluated in one batch with the token before it.
 * The text is that of model_sample and model_eval in turns; only the time differs. Needs no C library.
 */
#include "model.h"

enum { MOST_GUESSES = MODEL_PREFILL > 8 ? 7 : MODEL_PREFILL - 1 };

/* Guesses what followed the last time that the latest two of the n tokens occurred. */
static size_t guess(const uint32_t *text, size_t n, uint32_t *out, size_t most) {
  for (size_t at = n - 1; n > 2 && at > 1; at--) {
    if (text[at - 2] != text[n - 2] || text[at - 1] != text[n - 1]) continue;
    size_t count = n - at < most ? n - at : most;
    for (size_t i = 0; i < count; i++) out[i] = text[at + i];
    return count;
  }
  return 0;
}

/* Continues text[0..n), of which all but the last token are evaluated, until it has `end` tokens. */
static tcc_status continue_text(model *m, uint32_t *text, size_t n, size_t end, size_t *right_guesses) {
  tcc_sampler greedy = {sizeof(tcc_sampler), 1, 65536, 65536, {1, 2}};
  while (n < end) {
    uint32_t batch[1 + MOST_GUESSES], next;
    size_t most = end - n < MOST_GUESSES ? end - n : MOST_GUESSES, kept;
    batch[0] = text[n - 1];
    size_t guesses = guess(text, n, batch + 1, most);
    tcc_status status = model_eval_draft(m, batch, 1 + guesses, &greedy, &kept, &next);
    if (status != TCC_OK) return status;
    *right_guesses += kept - 1;
    for (size_t i = 1; i < kept; i++) text[n++] = batch[i];
    if (n < end) text[n++] = next;
  }
  return TCC_OK;
}
