// The C ABI over the C++ client: handles, codes and sentences. No exception leaves this file.
#include "client/c/reprise.h"

#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/c/json_options.h"
#include "client/cpp/client.h"
#include "client/cpp/explain_json.h"
#include "client/cpp/prefix_hasher.h"
#include "client/cpp/sglang_keys.h"
#include "client/cpp/vllm_keys.h"
#include "kernels/checksum/checksum.h"
#include "kernels/quantize/spec_codec.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace rc = reprise::client;

namespace {

using reprise::Refusal;
using reprise::abi::Fail;
using reprise::abi::Guard;
using reprise::abi::Keys;
using reprise::abi::Memory;
using reprise::abi::OnHost;
using reprise::abi::TakeResult;
using reprise::abi::Timeout;
using reprise::abi::Unset;

// reprise_block_keys writes keys where they belong, without a copy.
static_assert(sizeof(reprise::BlockKey) == reprise::kDigestBytes);

// The text that a function with a `const char*` result hands out.
const char* Keep(std::string text) {
  thread_local std::string kept;
  kept = std::move(text);
  return kept.c_str();
}

absl::Status CheckKeyArguments(const uint32_t* tokens, size_t token_count, uint32_t block_tokens,
                               const uint8_t* keys) {
  if (block_tokens == 0 || block_tokens > reprise::limits::kBlockTokensMax) {
    return Refusal(absl::StatusCode::kInvalidArgument, "BLOCK_TOKENS",
                   absl::StrCat("block_tokens is ", block_tokens, ": give 1 to ",
                                reprise::limits::kBlockTokensMax));
  }
  if (tokens == nullptr && token_count > 0) return Unset("tokens");
  if (keys == nullptr && token_count >= block_tokens) return Unset("keys");
  return absl::OkStatus();
}

absl::Status CheckContextBytes(absl::string_view name, const void* data, size_t bytes) {
  if (data == nullptr && bytes > 0) return Unset(name);
  if (bytes > reprise::limits::kKeyContextBytesMax) {
    return Refusal(absl::StatusCode::kInvalidArgument, "KEY_CONTEXT",
                   absl::StrCat(name, " has ", bytes, " bytes, more than ",
                                reprise::limits::kKeyContextBytesMax, ": give its digest"));
  }
  return absl::OkStatus();
}

absl::StatusOr<rc::AcquireCall> AcquireCallOf(reprise_client* client, reprise_spec* spec,
                                              const char* session, const uint8_t* keys,
                                              size_t key_count, uint32_t first_block,
                                              int64_t timeout_us) {
  if (client == nullptr) return Unset("client");
  if (spec == nullptr) return Unset("spec");
  if (keys == nullptr && key_count > 0) return Unset("keys");
  return rc::AcquireCall{.spec = spec->spec,
                         .keys = Keys(keys, key_count),
                         .session = session != nullptr ? session : "",
                         .first_block = first_block,
                         .timeout = Timeout(timeout_us)};
}

}  // namespace

extern "C" {

int32_t reprise_abi_version(void) {
  return REPRISE_ABI_VERSION;
}
const char* reprise_version(void) {
  return REPRISE_VERSION;
}

reprise_code reprise_client_open(const char* options_json, reprise_client** client,
                                 reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (client == nullptr) return Unset("client");
    if (options_json == nullptr) return Unset("options_json");
    REPRISE_ASSIGN_OR_RETURN(rc::ClientOptions options, rc::ClientOptionsFromJson(options_json));
    REPRISE_ASSIGN_OR_RETURN(auto opened, rc::Client::Create(std::move(options)));
    *client = new reprise_client{std::move(opened)};
    return absl::OkStatus();
  });
}

void reprise_client_close(reprise_client* client) {
  delete client;
}

const char* reprise_client_stats(reprise_client* client) {
  return Keep(client == nullptr ? "{}" : client->client->StatsJson());
}

reprise_code reprise_spec_open(reprise_client* client, const char* spec_json, reprise_spec** spec,
                               reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (client == nullptr) return Unset("client");
    if (spec_json == nullptr) return Unset("spec_json");
    if (spec == nullptr) return Unset("spec");
    REPRISE_ASSIGN_OR_RETURN(const reprise::CacheSpec parsed, rc::CacheSpecFromJson(spec_json));
    REPRISE_ASSIGN_OR_RETURN(auto opened, client->client->OpenSpec(parsed));
    *spec = new reprise_spec{std::move(opened)};
    return absl::OkStatus();
  });
}

void reprise_spec_close(reprise_spec* spec) {
  delete spec;
}
uint64_t reprise_spec_block_bytes(const reprise_spec* spec) {
  return spec->spec->layout.block_bytes;
}
uint64_t reprise_spec_stored_bytes(const reprise_spec* spec) {
  return spec->spec->stored.block_bytes;
}
void reprise_spec_fingerprint(const reprise_spec* spec, uint8_t fingerprint[32]) {
  std::memcpy(fingerprint, spec->spec->fingerprint.bytes.data(), reprise::kDigestBytes);
}

reprise_code reprise_fingerprint(const char* spec_json, uint8_t fingerprint[32],
                                 uint64_t* block_bytes, uint64_t* stored_bytes,
                                 reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (spec_json == nullptr) return Unset("spec_json");
    REPRISE_ASSIGN_OR_RETURN(const reprise::CacheSpec spec, rc::CacheSpecFromJson(spec_json));
    REPRISE_RETURN_IF_ERROR(reprise::ValidateSpec(spec));
    REPRISE_ASSIGN_OR_RETURN(const auto codec, reprise::kernels::CodecOf(spec));
    if (fingerprint != nullptr) {
      std::memcpy(fingerprint, reprise::FingerprintOf(spec).bytes.data(), reprise::kDigestBytes);
    }
    if (block_bytes != nullptr) *block_bytes = reprise::LayoutOf(spec).block_bytes;
    if (stored_bytes != nullptr) {
      *stored_bytes = reprise::kernels::StoredLayoutOf(spec, codec).block_bytes;
    }
    return absl::OkStatus();
  });
}

reprise_code reprise_block_keys(const uint32_t* tokens, size_t token_count, uint32_t block_tokens,
                                const uint8_t* parent, const void* salt, size_t salt_bytes,
                                const void* extra, size_t extra_bytes, uint8_t* keys,
                                reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    REPRISE_RETURN_IF_ERROR(CheckKeyArguments(tokens, token_count, block_tokens, keys));
    REPRISE_RETURN_IF_ERROR(CheckContextBytes("salt", salt, salt_bytes));
    REPRISE_RETURN_IF_ERROR(CheckContextBytes("extra", extra, extra_bytes));
    rc::KeyContext context{.parent = std::nullopt,
                           .salt = {static_cast<const uint8_t*>(salt), salt_bytes},
                           .extra = {static_cast<const uint8_t*>(extra), extra_bytes}};
    if (parent != nullptr) context.parent = Keys(parent, 1)[0];
    rc::PrefixKeysInto({tokens, token_count}, block_tokens, context,
                       {reinterpret_cast<reprise::BlockKey*>(keys), token_count / block_tokens});
    return absl::OkStatus();
  });
}

reprise_code reprise_vllm_block_keys(const uint32_t* tokens, size_t token_count,
                                     uint32_t block_tokens, const char* seed,
                                     const char* cache_salt, uint8_t* keys, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    REPRISE_RETURN_IF_ERROR(CheckKeyArguments(tokens, token_count, block_tokens, keys));
    rc::VllmKeyContext context;
    if (seed != nullptr) context.seed = seed;
    if (cache_salt != nullptr) context.cache_salt = cache_salt;
    const auto made = rc::VllmKeys({tokens, token_count}, block_tokens, context);
    if (!made.empty()) std::memcpy(keys, made.data(), made.size() * reprise::kDigestBytes);
    return absl::OkStatus();
  });
}

reprise_code reprise_sglang_page_keys(const uint32_t* tokens, size_t token_count,
                                      uint32_t page_tokens, const char* extra_key,
                                      const char* cache_salt, uint8_t* keys, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    REPRISE_RETURN_IF_ERROR(CheckKeyArguments(tokens, token_count, page_tokens, keys));
    rc::SglangKeyContext context;
    if (extra_key != nullptr) context.extra_key = extra_key;
    if (cache_salt != nullptr) context.cache_salt = cache_salt;
    const auto made = rc::SglangKeys({tokens, token_count}, page_tokens, context);
    if (!made.empty()) std::memcpy(keys, made.data(), made.size() * reprise::kDigestBytes);
    return absl::OkStatus();
  });
}

void reprise_checksum(const void* block, uint64_t block_bytes, uint64_t section_bytes,
                      uint8_t checksum[16]) {
  reprise::kernels::ChecksumBlock(block, block_bytes, section_bytes, checksum);
}

int32_t reprise_op_done(reprise_op* op) {
  return std::visit([](auto& operation) { return operation.Done() ? 1 : 0; }, op->operation);
}

int32_t reprise_op_wait(reprise_op* op, int64_t timeout_us) {
  return std::visit(
      [&](auto& operation) { return operation.Wait(absl::Microseconds(timeout_us)) ? 1 : 0; },
      op->operation);
}

void reprise_op_cancel(reprise_op* op) {
  std::visit([](auto& operation) { operation.Cancel(); }, op->operation);
}

void reprise_op_free(reprise_op* op) {
  if (op == nullptr) return;
  std::visit([](auto& operation) { (void)operation.Wait(absl::InfiniteDuration()); },
             op->operation);
  delete op;
}

reprise_code reprise_acquire_start(reprise_client* client, reprise_spec* spec, const char* session,
                                   const uint8_t* keys, size_t key_count, uint32_t first_block,
                                   int64_t timeout_us, reprise_op** op, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    REPRISE_ASSIGN_OR_RETURN(
        rc::AcquireCall call,
        AcquireCallOf(client, spec, session, keys, key_count, first_block, timeout_us));
    if (op == nullptr) return Unset("op");
    REPRISE_ASSIGN_OR_RETURN(auto started, client->client->StartAcquire(std::move(call)));
    *op = new reprise_op{client->client.get(), std::move(started)};
    return absl::OkStatus();
  });
}

reprise_code reprise_acquire_result(reprise_op* op, reprise_run** run, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (run == nullptr) return Unset("run");
    *run = nullptr;
    REPRISE_ASSIGN_OR_RETURN(rc::AcquireResult result, TakeResult<rc::AcquireResult>(op));
    *run = new reprise_run{op->client, std::move(result.run)};
    return result.status;
  });
}

reprise_code reprise_acquire(reprise_client* client, reprise_spec* spec, const char* session,
                             const uint8_t* keys, size_t key_count, uint32_t first_block,
                             int64_t timeout_us, reprise_run** run, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (run == nullptr) return Unset("run");
    *run = nullptr;
    REPRISE_ASSIGN_OR_RETURN(
        const rc::AcquireCall call,
        AcquireCallOf(client, spec, session, keys, key_count, first_block, timeout_us));
    REPRISE_ASSIGN_OR_RETURN(rc::AcquireResult result, client->client->Acquire(call));
    *run = new reprise_run{client->client.get(), std::move(result.run)};
    return result.status;
  });
}

uint32_t reprise_run_blocks(const reprise_run* run) {
  return run->run == nullptr ? 0 : run->run->blocks();
}
void reprise_run_release(reprise_run* run) {
  delete run;
}

reprise_code reprise_fetch_start(reprise_run* run, uint32_t first, uint32_t count,
                                 const reprise_memory* memory, int64_t timeout_us, reprise_op** op,
                                 reprise_error* error) {
  if (memory == nullptr) return Fail(Unset("memory"), error);
  const reprise_device_memory on_host = OnHost(*memory);
  return reprise_fetch_start_on(run, first, count, &on_host, timeout_us, op, error);
}

reprise_code reprise_fetch_result_take(reprise_op* op, reprise_fetch_result* result,
                                       reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (result == nullptr) return Unset("result");
    *result = {};
    REPRISE_ASSIGN_OR_RETURN(const rc::FetchResult taken, TakeResult<rc::FetchResult>(op));
    const auto lane = [&](reprise::LaneKind kind) {
      return taken.by_lane[static_cast<size_t>(kind)];
    };
    const auto tier = [&](reprise::Tier kind) { return taken.by_tier[static_cast<size_t>(kind)]; };
    result->blocks = taken.blocks;
    result->corrupt = taken.corrupt;
    result->bytes = taken.bytes;
    result->stream_blocks = lane(reprise::LaneKind::kStream);
    result->view_blocks = lane(reprise::LaneKind::kView);
    result->nccl_blocks = lane(reprise::LaneKind::kNccl);
    result->hbm_blocks = tier(reprise::Tier::kHbm);
    result->dram_blocks = tier(reprise::Tier::kDram);
    result->nvme_blocks = tier(reprise::Tier::kNvme);
    result->shards = taken.shards;
    result->tcp_blocks = lane(reprise::LaneKind::kTcp);
    return taken.status;
  });
}

reprise_code reprise_store_start(reprise_client* client, reprise_spec* spec, const char* session,
                                 const uint8_t* keys, size_t key_count, uint32_t first,
                                 const uint32_t* tokens, size_t token_count,
                                 const reprise_memory* memory, int64_t timeout_us, reprise_op** op,
                                 reprise_error* error) {
  if (memory == nullptr) return Fail(Unset("memory"), error);
  const reprise_device_memory on_host = OnHost(*memory);
  return reprise_store_start_on(client, spec, session, keys, key_count, first, tokens, token_count,
                                &on_host, timeout_us, op, error);
}

reprise_code reprise_store_result_take(reprise_op* op, reprise_store_result* result,
                                       reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (result == nullptr) return Unset("result");
    *result = {};
    REPRISE_ASSIGN_OR_RETURN(const rc::StoreResult taken, TakeResult<rc::StoreResult>(op));
    result->stored = taken.stored;
    result->present = taken.present;
    result->refused = taken.refused;
    result->bytes = taken.bytes;
    return taken.status;
  });
}

reprise_code reprise_prefetch(reprise_client* client, reprise_spec* spec, const char* session,
                              const uint8_t* keys, size_t key_count, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (client == nullptr) return Unset("client");
    if (spec == nullptr) return Unset("spec");
    if (keys == nullptr && key_count > 0) return Unset("keys");
    return client->client->Prefetch({.spec = spec->spec,
                                     .keys = Keys(keys, key_count),
                                     .session = session != nullptr ? session : "",
                                     .first_block = 0,
                                     .timeout = absl::ZeroDuration()});
  });
}

reprise_code reprise_note_prefill(reprise_client* client, reprise_spec* spec, uint64_t tokens,
                                  double seconds, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (client == nullptr) return Unset("client");
    if (spec == nullptr) return Unset("spec");
    return client->client->NotePrefill(*spec->spec, tokens, absl::Seconds(seconds));
  });
}

reprise_code reprise_explain(reprise_client* client, reprise_spec* spec, const uint8_t* keys,
                             size_t key_count, const uint32_t* tokens, size_t token_count,
                             int64_t timeout_us, const char** json, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (client == nullptr) return Unset("client");
    if (spec == nullptr) return Unset("spec");
    if (keys == nullptr && key_count > 0) return Unset("keys");
    if (tokens == nullptr && token_count > 0) return Unset("tokens");
    if (json == nullptr) return Unset("json");
    rc::ExplainCall call{.fingerprint = spec->spec->fingerprint,
                         .keys = Keys(keys, key_count),
                         .tokens = {},
                         .timeout = Timeout(timeout_us)};
    if (token_count > 0) call.tokens.assign(tokens, tokens + token_count);
    REPRISE_ASSIGN_OR_RETURN(const auto explanations, client->client->Explain(call));
    *json = Keep(rc::ExplainJson(explanations));
    return absl::OkStatus();
  });
}

// ---- Memory on a GPU

reprise_code reprise_fetch_start_on(reprise_run* run, uint32_t first, uint32_t count,
                                    const reprise_device_memory* memory, int64_t timeout_us,
                                    reprise_op** op, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (run == nullptr || run->run == nullptr) return Unset("run");
    if (memory == nullptr) return Unset("memory");
    if (op == nullptr) return Unset("op");
    rc::FetchCall call{
        .first = first, .count = count, .memory = {}, .timeout = Timeout(timeout_us)};
    REPRISE_ASSIGN_OR_RETURN(call.memory, Memory(*memory, count));
    REPRISE_ASSIGN_OR_RETURN(auto started, run->client->StartFetch(run->run, std::move(call)));
    *op = new reprise_op{run->client, std::move(started)};
    return absl::OkStatus();
  });
}

reprise_code reprise_store_start_on(reprise_client* client, reprise_spec* spec, const char* session,
                                    const uint8_t* keys, size_t key_count, uint32_t first,
                                    const uint32_t* tokens, size_t token_count,
                                    const reprise_device_memory* memory, int64_t timeout_us,
                                    reprise_op** op, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (client == nullptr) return Unset("client");
    if (spec == nullptr) return Unset("spec");
    if (keys == nullptr && key_count > 0) return Unset("keys");
    if (tokens == nullptr && token_count > 0) return Unset("tokens");
    if (memory == nullptr) return Unset("memory");
    if (op == nullptr) return Unset("op");
    if (first > key_count) {
      return Refusal(absl::StatusCode::kInvalidArgument, "STORE_FIRST",
                     absl::StrCat("first ", first, " lies beyond the ", key_count,
                                  " keys: give the whole chain of keys from its first block"));
    }
    rc::StoreCall call{.spec = spec->spec,
                       .keys = Keys(keys, key_count),
                       .first = first,
                       .tokens = {},
                       .session = session != nullptr ? session : "",
                       .memory = {},
                       .timeout = Timeout(timeout_us)};
    if (token_count > 0) call.tokens.assign(tokens, tokens + token_count);
    REPRISE_ASSIGN_OR_RETURN(call.memory,
                             Memory(*memory, static_cast<uint32_t>(key_count - first)));
    REPRISE_ASSIGN_OR_RETURN(auto started, client->client->StartStore(std::move(call)));
    *op = new reprise_op{client->client.get(), std::move(started)};
    return absl::OkStatus();
  });
}

}  // extern "C"
