// The flags of both servers that say who they are and whom they serve.
//
// Thread safety: for main alone.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/types/tls_options.h"
#include "proto/wire/caller.h"
#include "proto/wire/credentials.h"

namespace reprise::process {

struct Security {
  std::shared_ptr<const wire::Credentials> credentials;  // nullptr: plaintext
  wire::AccessPolicy access;
  std::string summary;  // one line for the log
};

class TlsFlags {
 public:
  void AddTo(CLI::App& app);
  // INVALID_ARGUMENT naming the flag or the file that is wrong.
  absl::StatusOr<Security> Open() const;

 private:
  TlsOptions files_;
  std::vector<std::string> fleet_;
  std::vector<std::string> operators_;
  std::vector<std::string> allowed_;
};

}  // namespace reprise::process
