#include "tests/support/test_authority.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "proto/types/status_macros.h"

namespace reprise::testing {
namespace {

constexpr long kVersion3 = 2;

void Extend(X509* certificate, X509* issuer, int name, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, name, value.c_str());
  REPRISE_CHECK(extension != nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

// Not signed yet.
X509* NewCertificate(EVP_PKEY* key, const std::string& common_name, absl::Duration valid_for) {
  X509* const certificate = X509_new();
  X509_set_version(certificate, kVersion3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), static_cast<long>(random()));
  X509_gmtime_adj(X509_getm_notBefore(certificate), -2 * 24 * 3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), absl::ToInt64Seconds(valid_for));
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1,
                             0);
  return certificate;
}

template <typename Write>
void WriteFile(const std::string& path, Write write) {
  const std::string fresh = path + ".new";
  FILE* const file = std::fopen(fresh.c_str(), "w");
  REPRISE_CHECK(file != nullptr);
  REPRISE_CHECK(write(file) == 1);
  std::fclose(file);
  std::filesystem::rename(fresh, path);
}

}  // namespace

struct TestAuthority::Signer {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = NewCertificate(key, "test authority", absl::Hours(24));
};

TestAuthority::TestAuthority() : signer_(new Signer) {
  std::string name = (std::filesystem::temp_directory_path() / "reprise-ca.XXXXXX").string();
  REPRISE_CHECK(mkdtemp(name.data()) != nullptr);
  folder_ = name;
  ca_file_ = folder_ + "/ca.pem";
  X509* const own = signer_->certificate;
  X509_set_issuer_name(own, X509_get_subject_name(own));
  Extend(own, own, NID_basic_constraints, "critical,CA:TRUE");
  Extend(own, own, NID_subject_key_identifier, "hash");
  REPRISE_CHECK(X509_sign(own, signer_->key, EVP_sha256()) > 0);
  WriteFile(ca_file_, [&](FILE* file) { return PEM_write_X509(file, own); });
}

TestAuthority::~TestAuthority() {
  X509_free(signer_->certificate);
  EVP_PKEY_free(signer_->key);
  delete signer_;
  std::filesystem::remove_all(folder_);
}

TlsOptions TestAuthority::Issue(const std::string& name, const CertificateRequest& request) {
  TlsOptions options{.ca_file = ca_file_,
                     .certificate_file = absl::StrCat(folder_, "/", name, ".pem"),
                     .key_file = absl::StrCat(folder_, "/", name, ".key")};
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const certificate = NewCertificate(key, name, request.valid_for);
  X509_set_issuer_name(certificate, X509_get_subject_name(signer_->certificate));
  if (!request.names.empty()) {
    Extend(certificate, signer_->certificate, NID_subject_alt_name, request.names);
  }
  REPRISE_CHECK(X509_sign(certificate, signer_->key, EVP_sha256()) > 0);
  WriteFile(options.key_file, [&](FILE* file) {
    return PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  });
  WriteFile(options.certificate_file,
            [&](FILE* file) { return PEM_write_X509(file, certificate); });
  X509_free(certificate);
  EVP_PKEY_free(key);
  return options;
}

TlsOptions TestAuthority::IssueTo(const std::string& spiffe_id) {
  return Issue(absl::StrCat("holder-", ++issued_), {.names = absl::StrCat("URI:", spiffe_id)});
}

}  // namespace reprise::testing
