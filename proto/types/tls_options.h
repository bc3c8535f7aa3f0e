// How a process shows who it is on mTLS, and whom it believes.
//
// Thread safety: a value.
#pragma once

#include <string>
#include <vector>

namespace reprise {

// Files are PEM, and are read again while they change, so that certificates are renewed without a
// restart. All three or none.
struct TlsOptions {
  std::string ca_file;           // the authorities that are believed
  std::string certificate_file;  // of this process, then its intermediates
  std::string key_file;
  // SPIFFE ids that a server which is dialled may have; empty: its certificate has to name the host
  // that was dialled.
  std::vector<std::string> servers;

  // Plaintext.
  bool none() const { return ca_file.empty() && certificate_file.empty() && key_file.empty(); }
};

}  // namespace reprise
