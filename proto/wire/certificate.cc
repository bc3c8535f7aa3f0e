#include "proto/wire/certificate.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::wire {
namespace {

constexpr absl::string_view kScheme = "spiffe://";

template <auto kFree>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Freed<GENERAL_NAMES_free>>;

absl::Status Wrong(absl::string_view role, const std::string& file, absl::string_view what) {
  return Refusal(absl::StatusCode::kInvalidArgument, "TLS_FILES",
                 absl::StrCat("TLS ", role, " file ", file, " ", what));
}

absl::StatusOr<Bio> Open(absl::string_view role, const std::string& file) {
  if (file.empty()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "TLS_FILES",
                   absl::StrCat("TLS needs three files, and the ", role,
                                " is missing: give CA, certificate and key, or none of them"));
  }
  std::ifstream stream(file, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(stream)),
                         std::istreambuf_iterator<char>());
  if (!stream.is_open()) {
    return Wrong(role, file, absl::StrCat("cannot be read: ", std::strerror(errno)));
  }
  Bio bio(BIO_new(BIO_s_mem()));
  BIO_write(bio.get(), text.data(), static_cast<int>(text.size()));
  return bio;
}

absl::StatusOr<Certificate> FirstCertificate(absl::string_view role, const std::string& file) {
  REPRISE_ASSIGN_OR_RETURN(const Bio bio, Open(role, file));
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (certificate == nullptr) return Wrong(role, file, "has no certificate in PEM form");
  return certificate;
}

absl::StatusOr<Key> PrivateKey(const std::string& file) {
  REPRISE_ASSIGN_OR_RETURN(const Bio bio, Open("key", file));
  // A passphrase would be asked for on the terminal.
  const auto no_passphrase = [](char*, int, int, void*) { return 0; };
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) return Wrong("key", file, "has no private key in PEM form (unencrypted)");
  return key;
}

std::vector<std::string> UrisOf(const X509* certificate) {
  std::vector<std::string> uris;
  const Names names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* const uri = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                      static_cast<size_t>(ASN1_STRING_length(uri)));
  }
  return uris;
}

absl::Time ExpiryOf(const X509* certificate) {
  std::tm when = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &when) != 1) return absl::InfinitePast();
  return absl::FromTM(when, absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<Identity> ReadIdentity(const TlsOptions& options) {
  REPRISE_RETURN_IF_ERROR(FirstCertificate("CA", options.ca_file).status());
  REPRISE_ASSIGN_OR_RETURN(const Certificate certificate,
                           FirstCertificate("certificate", options.certificate_file));
  REPRISE_ASSIGN_OR_RETURN(const Key key, PrivateKey(options.key_file));
  const bool pair = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!pair) {
    return Wrong("key", options.key_file,
                 absl::StrCat("is not the key of ", options.certificate_file));
  }
  const std::vector<std::string> uris = UrisOf(certificate.get());
  if (uris.size() != 1 || !CheckSpiffeId(uris[0]).ok()) {
    return Wrong("certificate", options.certificate_file,
                 absl::StrCat("has ", uris.size(), " URIs among its subject alternative names (",
                              absl::StrJoin(uris, ", ").substr(0, 200),
                              "): issue it with one, its SPIFFE id, e.g. "
                              "spiffe://example.org/worker"));
  }
  return Identity{.spiffe_id = uris[0], .expires = ExpiryOf(certificate.get())};
}

absl::Status CheckSpiffeId(absl::string_view id) {
  const absl::string_view rest = absl::StartsWith(id, kScheme) ? id.substr(kScheme.size()) : "";
  if (!rest.empty() && rest[0] != '/' && id.size() <= limits::kTenantBytesMax) {
    return absl::OkStatus();
  }
  return Refusal(absl::StatusCode::kInvalidArgument, "SPIFFE_ID",
                 absl::StrCat("\"", id.substr(0, 200),
                              "\" is no SPIFFE id: write spiffe://TRUST-DOMAIN/PATH, at most "
                              "kTenantBytesMax = ",
                              limits::kTenantBytesMax, " bytes"));
}

absl::string_view TrustDomainOf(absl::string_view id) {
  return id.substr(0, id.find('/', kScheme.size()));
}

}  // namespace reprise::wire
