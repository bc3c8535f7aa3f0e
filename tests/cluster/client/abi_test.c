/* The C ABI as a C program sees it: stores and fetches against the router named by its argument, in
 * both forms of memory, and misuses what it can. Prints "ok", or the first thing that is not as it
 * should be. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/c/reprise.h"

#define BLOCKS 6
#define BLOCK_TOKENS 16
#define TOKENS (BLOCKS * BLOCK_TOKENS)
#define LAYERS 2
#define HEADS 2
#define ROW_BYTES 64 /* head_dim 32 in f16 */
#define WAIT_US (60 * 1000 * 1000)

#define EXPECT(condition)                                                \
  do {                                                                   \
    if (!(condition)) {                                                  \
      printf("line %d: %s [%s]\n", __LINE__, #condition, error.message); \
      exit(EXIT_FAILURE);                                                \
    }                                                                    \
  } while (0)

static const char kSpec[] =
    "{\"model\": \"abi\", \"attention\": \"gqa\", \"dtype\": \"f16\", \"layers\": 2, \"kv_heads\": "
    "2,"
    " \"head_dim\": 32, \"block_tokens\": 16}";

static reprise_error error;

static void TestMisuse(reprise_client* client) {
  reprise_client* none = NULL;
  reprise_spec* spec = NULL;
  EXPECT(reprise_client_open("{\"ruter\": \"a:1\"}", &none, &error) == 3);
  EXPECT(strstr(error.message, "\"router\"") != NULL && none == NULL);
  EXPECT(reprise_client_open(NULL, &none, &error) == 3);
  EXPECT(reprise_spec_open(client, "{\"model\": \"abi\"}", &spec, &error) == 3 && spec == NULL);
  EXPECT(reprise_client_open("{}", &none, NULL) == 3);
}

static void TestKeys(uint8_t* keys, const uint32_t* tokens) {
  uint8_t vllm[32], rest[32 * (BLOCKS - 1)], fingerprint[32], checksum[16];
  uint64_t block_bytes = 0, stored_bytes = 0;
  static const uint8_t expected[4] = {0xd8, 0x30, 0xde,
                                      0x3d}; /* tests/unit/client/key_vectors.json */
  EXPECT(reprise_block_keys(tokens, TOKENS, BLOCK_TOKENS, NULL, "s", 1, NULL, 0, keys, &error) ==
         REPRISE_OK);
  EXPECT(reprise_block_keys(tokens + BLOCK_TOKENS, TOKENS - BLOCK_TOKENS, BLOCK_TOKENS, keys, NULL,
                            0, NULL, 0, rest, &error) == REPRISE_OK);
  EXPECT(memcmp(rest, keys + 32, sizeof(rest)) == 0);
  EXPECT(reprise_vllm_block_keys(tokens, BLOCK_TOKENS, BLOCK_TOKENS, "0", NULL, vllm, &error) ==
         REPRISE_OK);
  EXPECT(memcmp(vllm, expected, sizeof(expected)) == 0);
  EXPECT(reprise_block_keys(tokens, TOKENS, 0, NULL, NULL, 0, NULL, 0, keys, &error) == 3);
  EXPECT(reprise_fingerprint(kSpec, fingerprint, &block_bytes, &stored_bytes, &error) ==
         REPRISE_OK);
  EXPECT(block_bytes == LAYERS * 2 * HEADS * BLOCK_TOKENS * ROW_BYTES);
  EXPECT(stored_bytes == block_bytes);
  reprise_checksum(tokens, sizeof(uint32_t) * TOKENS, 64, checksum);
}

static void StoreBuffers(reprise_client* client, reprise_spec* spec, const uint8_t* keys,
                         const uint32_t* tokens, void* const* buffers) {
  reprise_memory memory = {buffers, NULL, NULL};
  reprise_store_result stored;
  reprise_fetch_result wrong;
  reprise_op* op = NULL;
  EXPECT(reprise_store_start(client, spec, "abi", keys, BLOCKS, 0, tokens, TOKENS, &memory, 0, &op,
                             &error) == REPRISE_OK);
  EXPECT(reprise_op_wait(op, WAIT_US) == 1 && reprise_op_done(op) == 1);
  EXPECT(reprise_fetch_result_take(op, &wrong, &error) == 3);
  EXPECT(reprise_store_result_take(op, &stored, &error) == REPRISE_OK);
  EXPECT(stored.stored == BLOCKS && stored.refused == 0);
  EXPECT(stored.bytes == BLOCKS * reprise_spec_block_bytes(spec));
  reprise_op_free(op);
}

static reprise_run* Acquire(reprise_client* client, reprise_spec* spec, const uint8_t* keys) {
  reprise_op* op = NULL;
  reprise_run* run = NULL;
  EXPECT(reprise_acquire_start(client, spec, "abi", keys, BLOCKS, 0, 0, &op, &error) == REPRISE_OK);
  EXPECT(reprise_op_wait(op, WAIT_US) == 1);
  EXPECT(reprise_acquire_result(op, &run, &error) == REPRISE_OK);
  EXPECT(reprise_run_blocks(run) == BLOCKS);
  reprise_op_free(op);
  return run;
}

/* The same on this thread. */
static void TestAcquireAtOnce(reprise_client* client, reprise_spec* spec, const uint8_t* keys) {
  uint8_t absent[32 * BLOCKS];
  char session[2000];
  int block;
  reprise_run* run = NULL;
  EXPECT(reprise_acquire(client, spec, "abi", keys, BLOCKS, 0, 0, &run, &error) == REPRISE_OK);
  EXPECT(run != NULL && reprise_run_blocks(run) == BLOCKS);
  reprise_run_release(run);
  EXPECT(reprise_acquire(client, spec, NULL, keys, BLOCKS, BLOCKS - 1, WAIT_US, &run, &error) ==
         REPRISE_OK);
  EXPECT(run != NULL && reprise_run_blocks(run) == BLOCKS);
  reprise_run_release(run);
  /* A miss is a run of no blocks, and so is a prompt of none. */
  memset(absent, 0, sizeof(absent));
  for (block = 0; block < BLOCKS; ++block) absent[32 * block] = (uint8_t)(block + 1);
  EXPECT(reprise_acquire(client, spec, "abi", absent, BLOCKS, 0, 0, &run, &error) == REPRISE_OK);
  EXPECT(run != NULL && reprise_run_blocks(run) == 0);
  reprise_run_release(run);
  EXPECT(reprise_acquire(client, spec, "abi", NULL, 0, 0, 0, &run, &error) == REPRISE_OK);
  EXPECT(run != NULL && reprise_run_blocks(run) == 0);
  reprise_run_release(run);
  /* Whatever stood there, a refusal leaves NULL. */
  EXPECT(reprise_acquire(NULL, spec, "abi", keys, BLOCKS, 0, 0, &run, &error) == 3 && run == NULL);
  EXPECT(strstr(error.message, "client") != NULL);
  run = (reprise_run*)absent;
  EXPECT(reprise_acquire(client, NULL, "abi", keys, BLOCKS, 0, 0, &run, &error) == 3);
  EXPECT(run == NULL && strstr(error.message, "spec") != NULL);
  run = (reprise_run*)absent;
  EXPECT(reprise_acquire(client, spec, "abi", NULL, BLOCKS, 0, 0, &run, &error) == 3);
  EXPECT(run == NULL && strstr(error.message, "keys") != NULL);
  memset(session, 's', sizeof(session));
  session[sizeof(session) - 1] = '\0';
  run = (reprise_run*)absent;
  EXPECT(reprise_acquire(client, spec, session, keys, BLOCKS, 0, 0, &run, &error) == 3);
  EXPECT(run == NULL && strstr(error.message, "session") != NULL);
  EXPECT(reprise_acquire(client, spec, "abi", keys, BLOCKS, 0, 0, NULL, &error) == 3);
  EXPECT(strstr(error.message, "run") != NULL);
}

static void Fetch(reprise_run* run, const reprise_memory* memory) {
  reprise_op* op = NULL;
  reprise_fetch_result fetched;
  EXPECT(reprise_fetch_start(run, 0, BLOCKS, memory, 0, &op, &error) == REPRISE_OK);
  EXPECT(reprise_op_wait(op, WAIT_US) == 1);
  EXPECT(reprise_fetch_result_take(op, &fetched, &error) == REPRISE_OK);
  EXPECT(fetched.blocks == BLOCKS && fetched.corrupt == 0 && fetched.shards == 1);
  EXPECT(fetched.stream_blocks + fetched.tcp_blocks + fetched.view_blocks == BLOCKS);
  EXPECT(fetched.dram_blocks == BLOCKS);
  reprise_op_free(op);
}

/* Restores the blocks into tensors of 8-token pages, and compares row by row. */
static void FetchPaged(reprise_run* run, const reprise_spec* spec, void* const* buffers) {
  enum { kPageTokens = 8, kPages = 2 * BLOCKS, kTokenBytes = HEADS * ROW_BYTES };
  static uint8_t tensors[LAYERS * 2][kPages * kPageTokens * kTokenBytes];
  reprise_plane planes[LAYERS * 2];
  int64_t pages[2 * BLOCKS];
  reprise_plan* plan = NULL;
  reprise_memory memory = {NULL, NULL, NULL};
  int plane, block, head, token;
  for (plane = 0; plane < LAYERS * 2; ++plane) {
    planes[plane].base = tensors[plane];
    planes[plane].page_stride = kPageTokens * kTokenBytes;
    planes[plane].head_stride = ROW_BYTES;
    planes[plane].token_stride = kTokenBytes;
  }
  for (block = 0; block < 2 * BLOCKS; ++block) pages[block] = 2 * BLOCKS - 1 - block;
  EXPECT(reprise_plan_create(spec, planes, 1, kPageTokens, &plan, &error) == 3);
  EXPECT(reprise_plan_create(spec, planes, LAYERS * 2, kPageTokens, &plan, &error) == REPRISE_OK);
  memory.plan = plan;
  memory.pages = pages;
  Fetch(run, &memory);
  for (block = 0; block < BLOCKS; ++block) {
    for (plane = 0; plane < LAYERS * 2; ++plane) {
      for (head = 0; head < HEADS; ++head) {
        for (token = 0; token < BLOCK_TOKENS; ++token) {
          const int64_t page = pages[2 * block + token / kPageTokens];
          const uint8_t* got = tensors[plane] +
                               (page * kPageTokens + token % kPageTokens) * kTokenBytes +
                               head * ROW_BYTES;
          const uint8_t* want = (const uint8_t*)buffers[block] +
                                (((size_t)plane * HEADS + head) * BLOCK_TOKENS + token) * ROW_BYTES;
          EXPECT(memcmp(got, want, ROW_BYTES) == 0);
        }
      }
    }
  }
  reprise_plan_free(plan);
}

/* What holds with and without a GPU: -1 is host memory, and host memory is none of a GPU's. */
static void TestDeviceMemory(reprise_run* run, const reprise_spec* spec, void* const* buffers) {
  const int32_t gpus = reprise_gpu_count(&error);
  static uint8_t tensor[BLOCK_TOKENS * HEADS * ROW_BYTES];
  reprise_plane planes[LAYERS * 2];
  reprise_plan* plan = NULL;
  reprise_device_memory memory = {NULL, NULL, NULL, REPRISE_STREAM_NONE, -1};
  reprise_op* op = NULL;
  reprise_fetch_result fetched;
  int plane;
  EXPECT(gpus >= 0 && (gpus > 0) == (error.code == REPRISE_OK));
  for (plane = 0; plane < LAYERS * 2; ++plane) {
    planes[plane].base = tensor;
    planes[plane].page_stride = sizeof(tensor);
    planes[plane].head_stride = ROW_BYTES;
    planes[plane].token_stride = HEADS * ROW_BYTES;
  }
  EXPECT(reprise_plan_create_on(spec, planes, LAYERS * 2, BLOCK_TOKENS, 0, &plan, &error) ==
         (gpus > 0 ? 3 : 14));
  EXPECT(strstr(error.message, "GPU 0") != NULL && plan == NULL);
  EXPECT(reprise_plan_create_on(spec, planes, LAYERS * 2, BLOCK_TOKENS, -1, &plan, &error) ==
         REPRISE_OK);
  reprise_plan_free(plan);
  memory.buffers = buffers;
  memory.device = 0;
  EXPECT(reprise_fetch_start_on(run, 0, BLOCKS, &memory, 0, &op, &error) == (gpus > 0 ? 3 : 14));
  memory.device = -1;
  EXPECT(reprise_fetch_start_on(run, 0, BLOCKS, &memory, 0, &op, &error) == REPRISE_OK);
  EXPECT(reprise_op_wait(op, WAIT_US) == 1);
  EXPECT(reprise_fetch_result_take(op, &fetched, &error) == REPRISE_OK);
  EXPECT(fetched.blocks == BLOCKS);
  reprise_op_free(op);
}

int main(int argc, char** argv) {
  char options[256];
  reprise_client* client = NULL;
  reprise_spec* spec = NULL;
  reprise_run* run = NULL;
  const char* json = NULL;
  uint32_t tokens[TOKENS];
  uint8_t keys[32 * BLOCKS];
  void *buffers[BLOCKS], *back[BLOCKS];
  size_t bytes, i, b;
  if (argc != 2) return EXIT_FAILURE;
  EXPECT(reprise_abi_version() == REPRISE_ABI_VERSION && reprise_version()[0] != '\0');
  snprintf(options, sizeof(options),
           "{\"router\": \"%s\", \"name\": \"abi\", \"timeout_ms\": 20000}", argv[1]);
  EXPECT(reprise_client_open(options, &client, &error) == REPRISE_OK);
  TestMisuse(client);
  for (i = 0; i < TOKENS; ++i) tokens[i] = (uint32_t)i;
  TestKeys(keys, tokens);
  EXPECT(reprise_spec_open(client, kSpec, &spec, &error) == REPRISE_OK);
  bytes = (size_t)reprise_spec_block_bytes(spec);
  for (b = 0; b < BLOCKS; ++b) {
    buffers[b] = malloc(bytes);
    back[b] = calloc(1, bytes);
    for (i = 0; i < bytes; ++i) ((uint8_t*)buffers[b])[i] = (uint8_t)(i * 31 + b * 7 + i / 251);
  }
  StoreBuffers(client, spec, keys, tokens, buffers);
  TestAcquireAtOnce(client, spec, keys);
  run = Acquire(client, spec, keys);
  {
    reprise_memory memory = {back, NULL, NULL};
    Fetch(run, &memory);
  }
  for (b = 0; b < BLOCKS; ++b) EXPECT(memcmp(buffers[b], back[b], bytes) == 0);
  FetchPaged(run, spec, buffers);
  TestDeviceMemory(run, spec, back);
  for (b = 0; b < BLOCKS; ++b) EXPECT(memcmp(buffers[b], back[b], bytes) == 0);
  reprise_run_release(run);
  EXPECT(reprise_prefetch(client, spec, "abi", keys, BLOCKS, &error) == REPRISE_OK);
  EXPECT(reprise_note_prefill(client, spec, 4096, 0.25, &error) == REPRISE_OK);
  EXPECT(reprise_note_prefill(client, spec, 4096, 0.0, &error) == 3);
  EXPECT(reprise_explain(client, spec, keys, BLOCKS, tokens, TOKENS, 0, &json, &error) ==
         REPRISE_OK);
  EXPECT(strstr(json, "\"run_blocks\":6") != NULL);
  EXPECT(strstr(reprise_client_stats(client), "\"blocks_stored\":6") != NULL);
  for (b = 0; b < BLOCKS; ++b) {
    free(buffers[b]);
    free(back[b]);
  }
  reprise_spec_close(spec);
  reprise_client_close(client);
  printf("ok\n");
  return EXIT_SUCCESS;
}
