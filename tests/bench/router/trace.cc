#include "tests/bench/router/trace.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace reprise::bench {
namespace {

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

absl::StatusOr<Trace> ReadTrace(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  Trace trace = {.name = path.substr(path.rfind('/') + 1)};
  std::string line;
  while (std::getline(file, line)) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("timestamp") || !json.contains("hash_ids")) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": line ", trace.requests.size() + 1, " is no request"));
    }
    trace.requests.push_back({.at = absl::Milliseconds(json["timestamp"].get<int64_t>()),
                              .blocks = json["hash_ids"].get<std::vector<uint32_t>>()});
  }
  return trace;
}

Trace GeneratedTrace(uint32_t seed) {
  std::mt19937 random(seed);
  Trace trace = {.name = "generated"};
  std::vector<std::vector<uint32_t>> conversations;
  uint32_t ids = 1;
  constexpr int kRequests = 12'000;
  std::geometric_distribution<int> first(0.06);
  std::geometric_distribution<int> more(0.25);
  for (int i = 0; i < kRequests; ++i) {
    // Recent conversations go on, older ones seldom do.
    const bool fresh = conversations.empty() || random() % 100 < 40;
    if (fresh) conversations.push_back({0});
    const size_t back = std::min<size_t>(std::geometric_distribution<size_t>(0.01)(random),
                                         conversations.size() - 1);
    std::vector<uint32_t>& blocks =
        fresh ? conversations.back() : conversations[conversations.size() - 1 - back];
    const int grow = 1 + (fresh ? first(random) : more(random));
    for (int b = 0; b < grow; ++b) blocks.push_back(ids++);
    trace.requests.push_back({.at = absl::Milliseconds(294) * i, .blocks = blocks});
  }
  return trace;
}

BlockKey KeyOf(uint64_t id) {
  BlockKey key;
  const uint64_t words[4] = {Mix(id), Mix(id + (1ull << 40)), Mix(id + (2ull << 40)),
                             Mix(id + (3ull << 40))};
  std::memcpy(key.bytes.data(), words, sizeof(words));
  return key;
}

std::vector<BlockKey> KeysOf(const Request& request, uint32_t parts) {
  std::vector<BlockKey> keys;
  keys.reserve(request.blocks.size() * parts);
  for (uint32_t id : request.blocks) {
    for (uint32_t part = 0; part < parts; ++part)
      keys.push_back(KeyOf(uint64_t{id} * parts + part));
  }
  return keys;
}

double InfiniteHitRatio(const Trace& trace) {
  absl::flat_hash_set<uint32_t> seen;
  uint64_t hits = 0;
  uint64_t references = 0;
  for (const Request& request : trace.requests) {
    bool run = true;
    for (uint32_t id : request.blocks) {
      run = run && seen.contains(id);
      hits += run ? 1 : 0;
    }
    seen.insert(request.blocks.begin(), request.blocks.end());
    references += request.blocks.size();
  }
  return references == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(references);
}

}  // namespace reprise::bench
