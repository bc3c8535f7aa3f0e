// One step of a random walk through the engine's verbs, and how rapidcheck draws it.
#pragma once

#include <rapidcheck.h>

#include <cstdint>
#include <ostream>

namespace reprise::shard {

enum class Verb {
  kStore,
  kAcquire,
  kRelease,
  kRemove,
  kAbandon,
  kDetach,
  kAdvance,
  kEvict,
  kQuarantine,
  kShare,
  kLose,
  kClaim,
  kEvictHint,
  kDemoteHint,
  kCount
};

struct Step {
  int verb = 0;
  uint32_t a = 0, b = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Step& step) {
  return out << "{" << step.verb << "," << step.a << "," << step.b << "}";
}

}  // namespace reprise::shard

namespace rc {
template <>
struct Arbitrary<reprise::shard::Step> {
  static Gen<reprise::shard::Step> arbitrary() {
    using reprise::shard::Step;
    return gen::build<Step>(
        gen::set(&Step::verb, gen::inRange(0, static_cast<int>(reprise::shard::Verb::kCount))),
        gen::set(&Step::a, gen::inRange<uint32_t>(0, 1u << 16)),
        gen::set(&Step::b, gen::inRange<uint32_t>(0, 1u << 16)));
  }
};
}  // namespace rc
