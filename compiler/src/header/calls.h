/* 3. Calls. None allocates, prints, aborts or touches errno; no writable global; one arena = one instance. */
typedef struct @name@ @name@; /* lives at the start of the arena */
/* Set out->size to sizeof(tcc_info) first. */
TCC_NODISCARD tcc_status @name@_info(tcc_info *out);
/* A sentence for a status, never 0. */
const char *@name@_strerror(tcc_status s);
/* Label of op `op` ("L07.ffn_down"), 0 past the last. */
const char *@name@_op_name(uint32_t op);
/* weights: 0 = blob in the object; its data must outlive the instance. hooks: 0 = one thread; they are copied. */
TCC_NODISCARD tcc_status @name@_init(void *arena, size_t bytes, const tcc_blob *weights, const tcc_hooks *hooks, @name@ **out);
/* CPU features of the code that init chose for this core ("neon,dotprod"), 0 for what is no instance. */
const char *@name@_variant(const @name@ *m);
/* Back to position 0. */
void @name@_reset(@name@ *m);
/* Tokens evaluated so far. */
uint32_t @name@_pos(const @name@ *m);
/* Forgets the tokens at `pos` and later; pos must not be past the current position. */
TCC_NODISCARD tcc_status @name@_rewind(@name@ *m, uint32_t pos);
/* n >= 1 tokens; the chunk size never changes a bit; keeps the last token's hidden row, no logits yet. */
TCC_NODISCARD tcc_status @name@_eval(@name@ *m, const uint32_t *tokens, size_t n);
/* The same, and the logits of every token into out[n][VOCAB]. */
TCC_NODISCARD tcc_status @name@_eval_all(@name@ *m, const uint32_t *tokens, size_t n, float *out);
/* Speculation, 1 <= n <= PREFILL: evaluates tokens[0], and the guesses behind it in the same batch. Keeps the guesses
 * that sampling chooses and forgets the rest: *kept >= 1 tokens stay, *next is the token after them. Instance, sampler
 * and *next are those of eval and sample one token at a time. */
TCC_NODISCARD tcc_status @name@_eval_draft(@name@ *m, const uint32_t *tokens, size_t n, tcc_sampler *s, size_t *kept, uint32_t *next);
/* All VOCAB logits of the last token: runs the head on first use; valid until the next eval, reset or rewind. */
TCC_NODISCARD tcc_status @name@_logits(@name@ *m, const float **out);
/* The next token by the sampler's settings. */
TCC_NODISCARD tcc_status @name@_sample(@name@ *m, tcc_sampler *s, uint32_t *token);
/* What the head has read; set out->size to sizeof(tcc_head_stats) first. */
TCC_NODISCARD tcc_status @name@_head_stats(const @name@ *m, tcc_head_stats *out);
/* Evaluates the golden tokens in an arena of its own and compares the SHA-256 of their logits with the build's;
 * TCC_E_HASH where they differ or the build has none. */
TCC_NODISCARD tcc_status @name@_self_test(void *arena, size_t bytes, const tcc_blob *weights, const tcc_hooks *hooks);
