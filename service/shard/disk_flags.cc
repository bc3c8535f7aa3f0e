#include "service/shard/disk_flags.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

absl::Status Contradiction(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

}  // namespace

void DiskFlags::AddTo(CLI::App& app) {
  app.add_option("--nvme", bytes,
                 "Room on a local disk for the coldest blocks, e.g. 100GiB, filled after --dram; "
                 "reserved at start; 0: none; at least kExtentBytesMin = " +
                     std::to_string(limits::kExtentBytesMin) + " bytes")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("0");
  app.add_option("--nvme-dir", folder,
                 "Folder of the disk that --nvme is on; without --nvme-keep the file there has no "
                 "name and ends with this process");
  app.add_option("--nvme-cipher", cipher,
                 "What is written to --nvme-dir: aes-256 (ciphertext, under a random key that ends "
                 "with this process, or under --nvme-key's), or none (as it is: for a volume that "
                 "is encrypted already)")
      ->transform(CLI::CheckedTransformer(std::map<std::string, DiskCipher>{
          {"aes-256", DiskCipher::kAes256}, {"none", DiskCipher::kNone}}))
      ->default_str("aes-256");
  app.add_flag("--nvme-keep", keep,
               "Keep what is on the disk for the next process of this --id; when stopped, what is "
               "in memory goes there, within --grace, instead of to other shards");
  app.add_option("--nvme-key", key_path,
                 "File with the secret that --nvme-keep encrypts under, " +
                     std::to_string(limits::kDiskKeyBytesMin) +
                     " bytes or more, the same for the next process");
}

absl::Status DiskFlags::AddTo(ShardEngineOptions& options) const {
  if (bytes > 0 && folder.empty()) {
    return Contradiction("NVME_FOLDER",
                         "--nvme needs --nvme-dir: name a folder on the disk that it is to use");
  }
  if (keep && bytes == 0) {
    return Contradiction("NVME_KEEP", "--nvme-keep has no disk to keep: give --nvme a size");
  }
  const bool wants_key = keep && cipher != DiskCipher::kNone;
  if (wants_key && key_path.empty()) {
    return Contradiction("NVME_KEY",
                         "--nvme-keep needs --nvme-key, the secret under which the next process "
                         "reads what this one wrote: make one (head -c 32 /dev/urandom > FILE) and "
                         "keep it off that disk; or give --nvme-cipher none on a volume that is "
                         "encrypted already");
  }
  if (!wants_key && !key_path.empty()) {
    return Contradiction("NVME_KEY",
                         "--nvme-key is for --nvme-keep with --nvme-cipher aes-256: leave it out");
  }
  options.nvme_bytes = bytes;
  options.nvme_folder = folder;
  options.nvme_cipher = cipher;
  options.nvme_keep = keep;
  if (wants_key) {
    REPRISE_ASSIGN_OR_RETURN(options.nvme_key, DiskKey::Read(key_path));
  }
  return absl::OkStatus();
}

std::string DiskFlags::Summary() const {
  const std::string what = absl::StrCat("disk: up to ", bytes, " bytes in ", folder);
  const char* const kept = keep ? ", kept for the next process" : "";
  if (cipher == DiskCipher::kNone) {
    return absl::StrCat(what, kept, ", not encrypted (--nvme-cipher none)");
  }
  return absl::StrCat(
      what, kept, ", encrypted (AES-256-XTS, under ",
      keep ? absl::StrCat("a key made from ", key_path) : "a key of this process alone", ")");
}

std::string RestoredSummary(const KeptDiskUse& use) {
  if (!use.why_empty.empty()) return absl::StrCat("disk: starts empty: ", use.why_empty);
  if (use.restored_blocks == 0) return "disk: nothing was left there";
  std::string summary =
      absl::StrCat("disk: ", use.restored_blocks, " blocks of the last process are back");
  if (!use.clean) {
    absl::StrAppend(&summary, " as each is read and checked: it ended without saying so");
  } else if (use.waiting_blocks > 0) {
    absl::StrAppend(&summary, ", ", use.waiting_blocks,
                    " of them when what they hang from is stored again");
  }
  return summary;
}

}  // namespace reprise::shard
