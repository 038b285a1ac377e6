/* 1. Shared by all tcc models of ABI @MAJOR@; two model headers may meet in one file. */
#ifndef TCC_ABI_@MAJOR@
#define TCC_ABI_@MAJOR@ @MINOR@ /* value = minor version of these types */
#if (defined(__cplusplus) && __cplusplus >= 201703L) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 202311L)
#  define TCC_NODISCARD [[nodiscard]]
#elif defined(__GNUC__)
#  define TCC_NODISCARD __attribute__((warn_unused_result))
#else
#  define TCC_NODISCARD
#endif
#if defined(__GNUC__)
#  define TCC_ALIGNED(n) __attribute__((aligned(n)))
#elif defined(_MSC_VER)
#  define TCC_ALIGNED(n) __declspec(align(n))
#endif
typedef int32_t tcc_status; /* an enum's size is not ABI */
@STATUSES@
/* After any error the instance is as before the call. */
typedef void (*tcc_task)(void *arg, uint32_t index);
typedef struct tcc_hooks { /* members may be 0; members past `size` count as 0 */
  uint32_t size;           /* sizeof(tcc_hooks) */
  uint32_t threads;        /* tasks run at once, 0 = 1, at most MAX_THREADS */
  void *user;              /* first argument of every hook */
  /* Call task(arg, 0..n-1), each once; return when all have returned. Order and thread never change a bit. */
  void (*parallel_for)(void *user, uint32_t n, tcc_task task, void *arg);
  uint64_t (*now)(void *user);               /* any monotonic tick */
  void (*op_begin)(void *user, uint32_t op); /* profiling builds only */
  void (*op_end)(void *user, uint32_t op);
  int (*should_stop)(void *user);            /* asked once a layer */
  uint64_t cpu_features;                     /* TCC_CPU_* bits; 0 = probe where the ISA lets user code probe (never for what a system grants) */
  uint32_t vlen;                             /* bits of a vector register where they vary, 0 = ask the core */
} tcc_hooks;
typedef struct tcc_blob {
  const void *data;
  size_t len;
} tcc_blob;
typedef struct tcc_sampler { /* integers only: the same text on every target */
  uint32_t size;             /* sizeof(tcc_sampler) */
  uint32_t top_k;            /* 1 = greedy, 0 = off */
  uint32_t temperature_q16;  /* 65536 = 1.0, 0 = greedy */
  uint32_t top_p_q16;        /* 65536 = off */
  uint64_t rng[2];           /* any value but {0,0}; advanced in place */
} tcc_sampler;
typedef struct tcc_head_stats {  /* what the head has read since init */
  uint32_t size, reserved;       /* sizeof(tcc_head_stats) */
  uint64_t searches;             /* for the best tokens: the high bits of every row */
  uint64_t rows_low, rows_exact; /* rows whose low bits, whose weights they read as well */
  uint64_t full;                 /* times that every logit was computed */
} tcc_head_stats;
typedef struct tcc_info { /* the macros below, at run time */
  uint32_t size, abi_major, abi_minor, flags;
  const char *name, *target, *cpu_features, *tcc_version, *licence;
  uint8_t model_sha256[32], weights_sha256[32], build_sha256[32], golden_sha256[32];
  uint64_t arena_bytes, arena_align, weights_bytes, weights_align, stack_bytes, task_stack_bytes, state_bytes;
  uint32_t vocab, ctx, prefill, layers, width, op_count, max_threads, reserved[9];
} tcc_info;
#elif TCC_ABI_@MAJOR@ < @MINOR@
#  error "this model needs newer tcc types: include its header before the older one"
#endif
