/* Reprise, C ABI over the C++ client. Stable: functions and struct fields are added at the end,
 * never changed.
 *
 * Conventions: every function that can fail returns a reprise_code and fills `error` (may be NULL)
 * with a sentence. A miss is a value, not an error. Times are microseconds; a timeout <= 0 means
 * the client's default. Keys are 32 bytes each, packed, in prefix order from the chain's first
 * block. Handles may be used from any thread, but each one from one thread at a time, unless said
 * otherwise. A handle must be freed before the client it came from.
 */
#ifndef REPRISE_H_
#define REPRISE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REPRISE_ABI_VERSION 2
#define REPRISE_EXPORT __attribute__((visibility("default")))

typedef struct reprise_client reprise_client;
typedef struct reprise_spec reprise_spec;
typedef struct reprise_plan reprise_plan;
typedef struct reprise_run reprise_run;
typedef struct reprise_op reprise_op;

/* The canonical status codes of gRPC. */
typedef int32_t reprise_code;
enum { REPRISE_OK = 0 };

typedef struct reprise_error {
  reprise_code code;
  char message[1020]; /* NUL-terminated, cut to fit */
} reprise_error;

REPRISE_EXPORT int32_t reprise_abi_version(void);
REPRISE_EXPORT const char* reprise_version(void);

/* ---- Client. `options_json`: {"router": "HOST:PORT" | ["HOST:PORT", ...], "shards": ["HOST:PORT",
 * ...] (instead of a router), "name": str, "timeout_ms": int, "threads": int, "lanes": ["stream",
 * "tcp", "view", "nccl"], "gpu": int (whose memory blocks move from and to by NCCL),
 * "nccl_library": str, "tls_ca": str, "tls_cert": str, "tls_key": str (paths of PEM files; all
 * three or none: plaintext), "tls_server_id": [str, ...] (SPIFFE ids that servers have; none: host
 * names)}. Unknown members are refused. Safe from any number of threads. Opens no connection before
 * the first call that needs one. */
REPRISE_EXPORT reprise_code reprise_client_open(const char* options_json, reprise_client** client,
                                                reprise_error* error);
REPRISE_EXPORT void reprise_client_close(reprise_client* client);
/* Counters and shard states as JSON. The text lives until the next call on this thread. */
REPRISE_EXPORT const char* reprise_client_stats(reprise_client* client);

/* ---- Cache spec. `spec_json` has the fields of reprise.v1.CacheSpec by name; dtype as "bf16",
 * "f16", "f32", "f8_e4m3", "f8_e5m2", "i8"; attention as "gqa" or "mla". Unknown members are
 * refused. */
REPRISE_EXPORT reprise_code reprise_spec_open(reprise_client* client, const char* spec_json,
                                              reprise_spec** spec, reprise_error* error);
REPRISE_EXPORT void reprise_spec_close(reprise_spec* spec);
REPRISE_EXPORT uint64_t reprise_spec_block_bytes(const reprise_spec* spec);
/* Of a block as shards keep it: under a codec, of an encoded one. */
REPRISE_EXPORT uint64_t reprise_spec_stored_bytes(const reprise_spec* spec);
REPRISE_EXPORT void reprise_spec_fingerprint(const reprise_spec* spec, uint8_t fingerprint[32]);
/* The same without a client; what is NULL is not told. */
REPRISE_EXPORT reprise_code reprise_fingerprint(const char* spec_json, uint8_t fingerprint[32],
                                                uint64_t* block_bytes, uint64_t* stored_bytes,
                                                reprise_error* error);

/* ---- Keys. Writes token_count / block_tokens keys (full blocks only) to `keys`. `salt` and
 * `extra` separate what must not be shared (tenant's salt, LoRA name, multimodal hashes): each is
 * bytes, NULL and 0 for none; `extra` applies to every block, `salt` to the first (and so to all).
 * `parent` is a 32-byte key to continue from or NULL. */
REPRISE_EXPORT reprise_code reprise_block_keys(const uint32_t* tokens, size_t token_count,
                                               uint32_t block_tokens, const uint8_t* parent,
                                               const void* salt, size_t salt_bytes,
                                               const void* extra, size_t extra_bytes, uint8_t* keys,
                                               reprise_error* error);
/* vLLM's sha256_cbor scheme: `seed` is the PYTHONHASHSEED string, NULL vLLM's default; `cache_salt`
 * is the request's, NULL or "" none. */
REPRISE_EXPORT reprise_code reprise_vllm_block_keys(const uint32_t* tokens, size_t token_count,
                                                    uint32_t block_tokens, const char* seed,
                                                    const char* cache_salt, uint8_t* keys,
                                                    reprise_error* error);
/* SGLang's page hashes: `extra_key` and `cache_salt` are the request's, NULL or "" none. */
REPRISE_EXPORT reprise_code reprise_sglang_page_keys(const uint32_t* tokens, size_t token_count,
                                                     uint32_t page_tokens, const char* extra_key,
                                                     const char* cache_salt, uint8_t* keys,
                                                     reprise_error* error);
REPRISE_EXPORT void reprise_checksum(const void* block, uint64_t block_bytes,
                                     uint64_t section_bytes, uint8_t checksum[16]);

/* ---- Caller memory: either one buffer per block (canonical layout) or an engine's paged tensors.
 */
typedef struct reprise_plane { /* one (layer, K|V) of the engine's memory; strides in bytes */
  void* base;
  int64_t page_stride;
  int64_t head_stride;
  int64_t token_stride;
} reprise_plane;

/* Planes in the order [layer][K, V] (MLA: [layer]). `page_tokens` divides the spec's block_tokens.
 * Copies `planes`. */
REPRISE_EXPORT reprise_code reprise_plan_create(const reprise_spec* spec,
                                                const reprise_plane* planes, size_t plane_count,
                                                uint32_t page_tokens, reprise_plan** plan,
                                                reprise_error* error);
REPRISE_EXPORT void reprise_plan_free(reprise_plan* plan);

typedef struct reprise_memory { /* set `buffers`, or `plan` and `pages` */
  void* const* buffers;         /* one per block, reprise_spec_block_bytes() each */
  const reprise_plan* plan;
  const int64_t* pages; /* block_tokens / page_tokens page indexes per block, in token order */
} reprise_memory;

/* ---- Operations. *_start returns at once (RESOURCE_EXHAUSTED when too many are queued); poll or
 * wait; then take the result once. Keys, tokens and page lists are copied; buffers and planes must
 * live until the operation is done. */
REPRISE_EXPORT int32_t reprise_op_done(reprise_op* op); /* 1 done, 0 under way; never blocks */
/* 1 done, 0 when it is not after timeout_us. */
REPRISE_EXPORT int32_t reprise_op_wait(reprise_op* op, int64_t timeout_us);
REPRISE_EXPORT void reprise_op_cancel(
    reprise_op* op); /* asks it to end early: it is done soon, with CANCELLED */
/* Waits until it is done: after this no memory of the caller's is touched. NULL is ignored. */
REPRISE_EXPORT void reprise_op_free(reprise_op* op);

/* Longest stored prefix, leased, over all shards. `session` may be NULL. Blocks before
 * `first_block` are counted but not leased. */
REPRISE_EXPORT reprise_code reprise_acquire_start(reprise_client* client, reprise_spec* spec,
                                                  const char* session, const uint8_t* keys,
                                                  size_t key_count, uint32_t first_block,
                                                  int64_t timeout_us, reprise_op** op,
                                                  reprise_error* error);
/* REQUIRES: done. Failures of the cache are a run of 0 blocks with the reason in `error`; the code
 * is REPRISE_OK only when the answer is trustworthy. The run is to be released in every case. */
REPRISE_EXPORT reprise_code reprise_acquire_result(reprise_op* op, reprise_run** run,
                                                   reprise_error* error);
/* Both at once, on the caller's thread: sooner, since no other thread is woken. Arguments that make
 * no sense are refused with *run = NULL. */
REPRISE_EXPORT reprise_code reprise_acquire(reprise_client* client, reprise_spec* spec,
                                            const char* session, const uint8_t* keys,
                                            size_t key_count, uint32_t first_block,
                                            int64_t timeout_us, reprise_run** run,
                                            reprise_error* error);
REPRISE_EXPORT uint32_t
reprise_run_blocks(const reprise_run* run); /* stored prefix counted from block 0 */
/* Ends the leases. Never blocks. NULL is ignored. */
REPRISE_EXPORT void reprise_run_release(reprise_run* run);

typedef struct reprise_fetch_result {
  uint32_t
      blocks; /* consecutive blocks from `first` on that are in the caller's memory, verified */
  uint32_t corrupt; /* blocks whose checksum failed */
  uint64_t bytes;
  uint32_t stream_blocks; /* by lane */
  uint32_t view_blocks;
  uint32_t nccl_blocks;
  uint32_t hbm_blocks; /* by tier */
  uint32_t dram_blocks;
  uint32_t nvme_blocks;
  uint32_t shards; /* shards that served */
  uint32_t tcp_blocks;
} reprise_fetch_result;

/* Reads blocks [first, first + count) of the run into memory (memory's block 0 is `first`). */
REPRISE_EXPORT reprise_code reprise_fetch_start(reprise_run* run, uint32_t first, uint32_t count,
                                                const reprise_memory* memory, int64_t timeout_us,
                                                reprise_op** op, reprise_error* error);
/* `result` is filled in every case: fewer blocks than asked for come with a code other than
 * REPRISE_OK. */
REPRISE_EXPORT reprise_code reprise_fetch_result_take(reprise_op* op, reprise_fetch_result* result,
                                                      reprise_error* error);

typedef struct reprise_store_result {
  uint32_t stored;  /* newly stored */
  uint32_t present; /* stored before, or by another writer meanwhile */
  uint32_t refused; /* no space, or failed: not stored */
  uint64_t bytes;   /* bytes sent */
} reprise_store_result;

/* Stores blocks [first, key_count) of the chain (memory's block 0 is `first`); blocks before
 * `first` must be stored already or be part of an earlier store. `tokens` (token_count = key_count
 * * block_tokens, or NULL and 0) let Explain compare. */
REPRISE_EXPORT reprise_code reprise_store_start(reprise_client* client, reprise_spec* spec,
                                                const char* session, const uint8_t* keys,
                                                size_t key_count, uint32_t first,
                                                const uint32_t* tokens, size_t token_count,
                                                const reprise_memory* memory, int64_t timeout_us,
                                                reprise_op** op, reprise_error* error);
REPRISE_EXPORT reprise_code reprise_store_result_take(reprise_op* op, reprise_store_result* result,
                                                      reprise_error* error);

/* Leases the run ahead of need: a later acquire of the same keys is answered at once. Blocks that
 * lie elsewhere are brought to the session's home shard first. Best effort; never blocks. */
REPRISE_EXPORT reprise_code reprise_prefetch(reprise_client* client, reprise_spec* spec,
                                             const char* session, const uint8_t* keys,
                                             size_t key_count, reprise_error* error);

/* The caller's engine computed `tokens` of a prompt in one go, in `seconds`: what routers weigh
 * bringing blocks from another shard against. INVALID_ARGUMENT when `seconds` is not above 0. */
REPRISE_EXPORT reprise_code reprise_note_prefill(reprise_client* client, reprise_spec* spec,
                                                 uint64_t tokens, double seconds,
                                                 reprise_error* error);

/* Why a prompt misses, over all shards, as JSON (reprise.v1.ExplainResponse per shard). The text
 * lives until the next call on this thread. `tokens` may be NULL. */
REPRISE_EXPORT reprise_code reprise_explain(reprise_client* client, reprise_spec* spec,
                                            const uint8_t* keys, size_t key_count,
                                            const uint32_t* tokens, size_t token_count,
                                            int64_t timeout_us, const char** json,
                                            reprise_error* error);

/* ---- Memory on a GPU. Buffers and planes are device addresses of this process, in the memory of
 * one device; blocks are verified and moved there by the GPU. A call is done when the memory is
 * right for every stream. */

/* GPUs that this library can use; 0 with the reason in `error` (UNAVAILABLE): the library was built
 * without CUDA, or there is no driver or no device. */
REPRISE_EXPORT int32_t reprise_gpu_count(reprise_error* error);
/* The device that `address` is of; -1: host memory. */
REPRISE_EXPORT reprise_code reprise_device_of(const void* address, int32_t* device,
                                              reprise_error* error);

/* As reprise_plan_create, over planes on `device`; -1: in host memory. Once per engine: it is
 * uploaded here. INVALID_ARGUMENT for a plane that is not on that device, UNAVAILABLE without it.
 */
REPRISE_EXPORT reprise_code reprise_plan_create_on(const reprise_spec* spec,
                                                   const reprise_plane* planes, size_t plane_count,
                                                   uint32_t page_tokens, int32_t device,
                                                   reprise_plan** plan, reprise_error* error);

/* REPRISE_STREAM_NONE: nothing that was given to the GPU has to be waited for. */
enum { REPRISE_STREAM_NONE = 0, REPRISE_STREAM_LEGACY = 1, REPRISE_STREAM_PER_THREAD = 2 };
typedef struct reprise_device_memory { /* set `buffers`, or `plan` and `pages` */
  void* const* buffers; /* one per block, at a multiple of 16, reprise_spec_block_bytes() each */
  const reprise_plan* plan; /* of reprise_plan_create_on with the same device */
  const int64_t* pages;
  uint64_t stream; /* a cudaStream_t, or REPRISE_STREAM_*: the memory is not touched before what was
                      given to this stream by now is done */
  int32_t device;  /* -1: host memory; `stream` is not looked at */
} reprise_device_memory;

/* As reprise_fetch_start and reprise_store_start; their results are taken by the same functions. */
REPRISE_EXPORT reprise_code reprise_fetch_start_on(reprise_run* run, uint32_t first, uint32_t count,
                                                   const reprise_device_memory* memory,
                                                   int64_t timeout_us, reprise_op** op,
                                                   reprise_error* error);
REPRISE_EXPORT reprise_code reprise_store_start_on(
    reprise_client* client, reprise_spec* spec, const char* session, const uint8_t* keys,
    size_t key_count, uint32_t first, const uint32_t* tokens, size_t token_count,
    const reprise_device_memory* memory, int64_t timeout_us, reprise_op** op, reprise_error* error);

/* ---- Hints: what the caller asks of K/V that it is not about to use. */
enum {
  REPRISE_HINT_RETAIN = 1,  /* goes after all that nobody claims, lower priority first */
  REPRISE_HINT_PIN = 2,     /* is not evicted until it ends; may move to a slower tier */
  REPRISE_HINT_RELEASE = 3, /* ends a claim; its blocks stay, as cold as they are */
  REPRISE_HINT_EVICT = 4,   /* drops blocks now, from the chain's end */
  REPRISE_HINT_DEMOTE = 5   /* moves blocks to the next slower tier now, from the chain's end */
};
typedef struct reprise_hint {
  const char* claim_id; /* RETAIN, PIN, RELEASE: the claim's name within tenant and spec */
  int64_t ttl_us;       /* RETAIN, PIN: above 0; shards cut what is longer than they allow */
  int32_t verb;         /* REPRISE_HINT_* */
  uint32_t priority;    /* RETAIN: 1 to 100; 0: the default */
  uint32_t first_block; /* EVICT, DEMOTE: blocks before it stay */
} reprise_hint;

enum {
  REPRISE_HINT_APPLIED = 1,  /* all of it */
  REPRISE_HINT_CLIPPED = 2,  /* a part of it, and no more will come */
  REPRISE_HINT_DEFERRED = 3, /* what is stored; the rest of a claim as soon as it is stored */
  REPRISE_HINT_MISSING = 4   /* there is nothing that it is about */
};
typedef struct reprise_hint_result { /* of the shard that did the most */
  int64_t ttl_us;                    /* RETAIN, PIN: what it got */
  int32_t outcome;                   /* REPRISE_HINT_*; MISSING when no shard answered */
  uint32_t blocks; /* RETAIN, PIN: held now, from the chain's first on; EVICT: dropped; DEMOTE:
                      moved; RELEASE: held before */
  uint32_t shards; /* shards that answered, refusals not counted */
  char why[512];   /* a sentence, NUL-terminated, cut to fit; empty: APPLIED */
} reprise_hint_result;

/* A RETAIN or PIN leaves a claim, by a name, that ends at its time or with RELEASE, and takes also
 * what of the chain is stored later. `keys` is the whole chain, and may be NULL and 0 for RELEASE
 * alone, which then asks all shards. Copies `hint`. */
REPRISE_EXPORT reprise_code reprise_hint_start(reprise_client* client, reprise_spec* spec,
                                               const char* session, const uint8_t* keys,
                                               size_t key_count, const reprise_hint* hint,
                                               int64_t timeout_us, reprise_op** op,
                                               reprise_error* error);
/* `result` is filled in every case: a code other than REPRISE_OK says that no shard answered, or
 * not all that should have, and why. */
REPRISE_EXPORT reprise_code reprise_hint_result_take(reprise_op* op, reprise_hint_result* result,
                                                     reprise_error* error);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* REPRISE_H_ */
