// What the files of the C ABI share: its handles, how arguments are read, and how a status becomes
// a code. Internal to client/c.
//
// Thread safety: as reprise.h says of each handle; the functions are pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/c/reprise.h"
#include "client/cpp/client.h"
#include "client/cpp/device_memory.h"
#include "client/cpp/operation.h"
#include "proto/types/block_key.h"
#include "proto/types/refusal.h"

struct reprise_client {
  std::unique_ptr<reprise::client::Client> client;
};
struct reprise_spec {
  std::shared_ptr<const reprise::client::ClientSpec> spec;
};
struct reprise_plan {
  reprise::client::DevicePlan plan;  // of host memory: without `uploaded`
};
struct reprise_run {
  reprise::client::Client* client;
  std::shared_ptr<reprise::client::Run> run;
};
struct reprise_op {
  reprise::client::Client* client;
  std::variant<reprise::client::Operation<reprise::client::AcquireResult>,
               reprise::client::Operation<reprise::client::FetchResult>,
               reprise::client::Operation<reprise::client::StoreResult>,
               reprise::client::Operation<reprise::client::HintAnswer>>
      operation;
};

namespace reprise::abi {

// Copies as much of `text` as fits and a NUL.
template <size_t kBytes>
void CopyText(absl::string_view text, char (&to)[kBytes]) {
  const size_t bytes = std::min(text.size(), kBytes - 1);
  if (bytes > 0) std::memcpy(to, text.data(), bytes);  // no text has no address
  to[bytes] = '\0';
}

inline reprise_code Fail(const absl::Status& status, reprise_error* error) {
  const auto code = static_cast<reprise_code>(status.code());
  if (error != nullptr) {
    error->code = code;
    CopyText(status.message(), error->message);
  }
  return code;
}

// Runs `body` and turns its status, or what it threw, into a code.
template <typename Body>
reprise_code Guard(reprise_error* error, Body body) {
  try {
    return Fail(body(), error);
  } catch (const std::bad_alloc&) {
    return Fail(absl::ResourceExhaustedError("out of memory"), error);
  } catch (const std::exception& e) {
    return Fail(absl::InternalError(e.what()), error);
  }
}

inline absl::Status Unset(absl::string_view name) {
  return Refusal(absl::StatusCode::kInvalidArgument, "ARGUMENT_NULL",
                 absl::StrCat(name, " is NULL: it must be given"));
}

inline absl::Duration Timeout(int64_t timeout_us) {
  return timeout_us > 0 ? absl::Microseconds(timeout_us) : absl::ZeroDuration();
}

inline std::vector<BlockKey> Keys(const uint8_t* keys, size_t count) {
  std::vector<BlockKey> copied(count);
  if (count > 0) std::memcpy(copied.data(), keys, count * kDigestBytes);
  return copied;
}

// INVALID_ARGUMENT when `op` is of another verb, FAILED_PRECONDITION when it is not done.
template <typename Result>
absl::StatusOr<Result> TakeResult(reprise_op* op) {
  if (op == nullptr) return Unset("op");
  auto* operation = std::get_if<client::Operation<Result>>(&op->operation);
  if (operation == nullptr) {
    return Refusal(
        absl::StatusCode::kInvalidArgument, "OPERATION_KIND",
        "the operation is of another kind: take its result with the function of its verb");
  }
  if (!operation->Done()) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "OPERATION_UNDER_WAY",
                   "the operation is not done: wait for it first");
  }
  return operation->Take();
}

// `blocks` blocks of the caller's. What was given to its stream by now is marked.
absl::StatusOr<client::CallerMemory> Memory(const reprise_device_memory& memory, uint32_t blocks);
reprise_device_memory OnHost(const reprise_memory& memory);

}  // namespace reprise::abi
