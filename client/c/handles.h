// What the files of the C ABI share: its handles, and how a status becomes a code. Internal to
// client/c.
//
// Thread safety: as reprise.h says of each handle; the functions are pure.
#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/c/reprise.h"
#include "client/cpp/client.h"
#include "client/cpp/device_memory.h"
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
               reprise::client::Operation<reprise::client::StoreResult>>
      operation;
};

namespace reprise::abi {

inline reprise_code Fail(const absl::Status& status, reprise_error* error) {
  const auto code = static_cast<reprise_code>(status.code());
  if (error != nullptr) {
    error->code = code;
    const absl::string_view text = status.message();
    const size_t bytes = std::min(text.size(), sizeof(error->message) - 1);
    std::memcpy(error->message, text.data(), bytes);
    error->message[bytes] = '\0';
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

// `blocks` blocks of the caller's. What was given to its stream by now is marked.
absl::StatusOr<client::CallerMemory> Memory(const reprise_device_memory& memory, uint32_t blocks);
reprise_device_memory OnHost(const reprise_memory& memory);

}  // namespace reprise::abi
