// What a block key costs, beside plain digests of the same bytes in the same run:
//   PrefixKeys          the chain as a client computes it
//   EVP_Digest          the same inputs, one call of OpenSSL for each
//   EVP_Digest, fetched the same with the algorithm looked up once
// Rates are per second of this thread's CPU time: what one core does, whoever else uses it.
//
//   reprise-bench-keys [--blocks 4096] [--block-tokens 16] [--rounds 101] [--json]
// Prints medians with the lowest and highest round, the ratio to EVP_Digest, and the load average.
#include <openssl/evp.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "client/cpp/prefix_hasher.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

struct Options {
  uint32_t blocks = 4096;
  uint32_t block_tokens = 16;
  int rounds = 101;
  bool json = false;
};

struct Case {
  std::string name;
  std::function<void()> run;
  std::vector<double> keys_per_s = {};
};

double CpuSeconds() {
  timespec now = {};
  REPRISE_CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

void Print(const std::vector<Case>& cases, size_t key_bytes, const Options& options) {
  double load[3] = {};
  getloadavg(load, 3);
  const double control = Quantile(cases.front().keys_per_s, .5);
  nlohmann::ordered_json out = {{"blocks", options.blocks},
                                {"bytes_per_key", key_bytes},
                                {"load_average", load[0]},
                                {"results", nlohmann::ordered_json::array()}};
  if (!options.json) {
    std::printf("%u keys of %zu bytes, one core, load average %.2f\n", options.blocks, key_bytes,
                load[0]);
    std::printf("%-22s %10s %18s %14s\n", "", "M keys/s", "lowest..highest", "of EVP_Digest");
  }
  for (const Case& one : cases) {
    const double median = Quantile(one.keys_per_s, .5), low = Quantile(one.keys_per_s, 0);
    const double high = Quantile(one.keys_per_s, 1);
    out["results"].push_back({{"name", one.name},
                              {"keys_per_s", median},
                              {"lowest", low},
                              {"highest", high},
                              {"of_evp_digest", median / control}});
    if (options.json) continue;
    std::printf("%-22s %10.2f %8.2f..%-8.2f %14.2f\n", one.name.c_str(), median / 1e6, low / 1e6,
                high / 1e6, median / control);
  }
  if (options.json) std::printf("%s\n", out.dump().c_str());
}

int Run(const Options& options) {
  std::vector<uint32_t> tokens(size_t{options.blocks} * options.block_tokens);
  std::mt19937 random(89);
  std::generate(tokens.begin(), tokens.end(), [&] { return random() % 128'000; });
  std::vector<BlockKey> keys(options.blocks), plain(options.blocks), fetched(options.blocks);

  // What is hashed for every key, so that the controls hash the same.
  std::vector<std::vector<uint8_t>> inputs;
  KeyContext context;
  PrefixKeysInto(tokens, options.block_tokens, context, keys);
  for (size_t i = 0; i < keys.size(); ++i) {
    inputs.push_back(EncodeKeyInput(
        std::span(tokens).subspan(i * options.block_tokens, options.block_tokens), context));
    context.parent = keys[i];
  }
  const auto digest_all = [&](std::vector<BlockKey>& into, const EVP_MD* algorithm) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      REPRISE_CHECK(EVP_Digest(inputs[i].data(), inputs[i].size(), into[i].bytes.data(), nullptr,
                               algorithm, nullptr) == 1);
    }
  };
  EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  std::vector<Case> cases = {
      {"EVP_Digest", [&] { digest_all(plain, EVP_sha256()); }},
      {"EVP_Digest, fetched", [&] { digest_all(fetched, algorithm); }},
      {"PrefixKeys", [&] { PrefixKeysInto(tokens, options.block_tokens, {}, keys); }}};
  for (int round = 0; round < options.rounds; ++round) {
    for (Case& one : cases) {
      const double started = CpuSeconds();
      one.run();
      one.keys_per_s.push_back(static_cast<double>(options.blocks) / (CpuSeconds() - started));
    }
  }
  EVP_MD_free(algorithm);
  REPRISE_CHECK(keys == plain && keys == fetched);
  Print(cases, inputs.back().size(), options);
  return 0;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app{"Block keys beside plain digests of the same bytes."};
  app.add_option("--blocks", options.blocks, "Blocks of one prompt")->check(CLI::Range(1, 1 << 20));
  app.add_option("--block-tokens", options.block_tokens, "Tokens of one block")
      ->check(CLI::Range(1, 4096));
  app.add_option("--rounds", options.rounds, "Rounds, each case once per round")
      ->check(CLI::Range(1, 100'000));
  app.add_flag("--json", options.json, "One JSON object");
  CLI11_PARSE(app, argc, argv);
  return Run(options);
}

}  // namespace
}  // namespace reprise::client

int main(int argc, char** argv) {
  return reprise::client::Main(argc, argv);
}
