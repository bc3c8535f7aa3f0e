#include "proto/types/cache_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <functional>
#include <set>

#include "absl/strings/escaping.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace rc {
template <>
struct Arbitrary<reprise::CacheSpec> {
  // Few values per field, so that specs that are alike but for one field are common.
  static Gen<reprise::CacheSpec> arbitrary() {
    using reprise::CacheSpec;
    const auto text =
        gen::element<std::string>("", "a", "b", "ab", std::string("\0", 1), "1", "gqa");
    const auto number = gen::element<uint32_t>(0, 1, 2, 10, 12, 21);
    return gen::build<CacheSpec>(
        gen::set(&CacheSpec::model, text), gen::set(&CacheSpec::revision, text),
        gen::set(&CacheSpec::scope, text),
        gen::set(&CacheSpec::attention,
                 gen::element(reprise::AttentionKind::kGqa, reprise::AttentionKind::kMla)),
        gen::set(&CacheSpec::dtype,
                 gen::element(reprise::DataType::kF16, reprise::DataType::kBf16)),
        gen::set(&CacheSpec::layers, number), gen::set(&CacheSpec::kv_heads, number),
        gen::set(&CacheSpec::head_dim, number), gen::set(&CacheSpec::block_tokens, number),
        gen::set(&CacheSpec::window_tokens, number),
        gen::set(&CacheSpec::tensor_parallel_size, number),
        gen::set(&CacheSpec::tensor_parallel_rank, number),
        gen::set(&CacheSpec::pipeline_parallel_size, number),
        gen::set(&CacheSpec::pipeline_parallel_rank, number),
        gen::set(&CacheSpec::rope_digest, text), gen::set(&CacheSpec::lora_digest, text),
        gen::set(&CacheSpec::codec, text), gen::set(&CacheSpec::engine_layout, text),
        gen::set(&CacheSpec::key_scheme, text));
  }
};
}  // namespace rc

namespace reprise {

void showValue(const CacheSpec& spec, std::ostream& out) {
  out << DescribeSpec(spec);
}

namespace {

using ::testing::HasSubstr;

CacheSpec Llama() {
  CacheSpec spec;
  spec.model = "llama";
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kBf16;
  spec.layers = 32;
  spec.kv_heads = 8;
  spec.head_dim = 128;
  spec.block_tokens = 16;
  return spec;
}

CacheSpec DeepSeek() {
  CacheSpec spec = Llama();
  spec.model = "deepseek";
  spec.attention = AttentionKind::kMla;
  spec.layers = 61;
  spec.kv_heads = 0;
  spec.head_dim = 576;
  return spec;
}

// One change per field, in field order.
struct Change {
  std::string field;
  std::function<void(CacheSpec&)> apply;
};
std::vector<Change> EveryChange() {
  return {{"model", [](CacheSpec& s) { s.model = "other"; }},
          {"revision", [](CacheSpec& s) { s.revision = "r"; }},
          {"scope", [](CacheSpec& s) { s.scope = "s"; }},
          {"attention", [](CacheSpec& s) { s.attention = AttentionKind::kMla; }},
          {"dtype", [](CacheSpec& s) { s.dtype = DataType::kF8E4M3; }},
          {"layers", [](CacheSpec& s) { s.layers = 31; }},
          {"kv_heads", [](CacheSpec& s) { s.kv_heads = 4; }},
          {"head_dim", [](CacheSpec& s) { s.head_dim = 64; }},
          {"block_tokens", [](CacheSpec& s) { s.block_tokens = 32; }},
          {"window_tokens", [](CacheSpec& s) { s.window_tokens = 4096; }},
          {"tensor_parallel_size", [](CacheSpec& s) { s.tensor_parallel_size = 2; }},
          {"tensor_parallel_rank", [](CacheSpec& s) { s.tensor_parallel_rank = 1; }},
          {"pipeline_parallel_size", [](CacheSpec& s) { s.pipeline_parallel_size = 2; }},
          {"pipeline_parallel_rank", [](CacheSpec& s) { s.pipeline_parallel_rank = 1; }},
          {"rope_digest", [](CacheSpec& s) { s.rope_digest = "r"; }},
          {"lora_digest", [](CacheSpec& s) { s.lora_digest = "l"; }},
          {"codec", [](CacheSpec& s) { s.codec = "fp8"; }},
          {"engine_layout", [](CacheSpec& s) { s.engine_layout = "vllm"; }},
          {"key_scheme", [](CacheSpec& s) { s.key_scheme = "sha256_cbor"; }}};
}

TEST(CacheSpec, TheEncodingIsInjective) {
  EXPECT_TRUE(rc::check("equal encodings come from equal specs",
                        [](const CacheSpec& a, const CacheSpec& b) {
                          RC_ASSERT((CanonicalEncoding(a) == CanonicalEncoding(b)) == (a == b));
                          RC_ASSERT((FingerprintOf(a) == FingerprintOf(b)) == (a == b));
                        }));
  EXPECT_TRUE(rc::check("moving text between fields changes it",
                        [](const std::string& x, const std::string& y) {
                          CacheSpec left = Llama(), right = Llama();
                          left.rope_digest = x + y;
                          right.rope_digest = x;
                          right.lora_digest = y;
                          RC_PRE(!y.empty());
                          RC_ASSERT(CanonicalEncoding(left) != CanonicalEncoding(right));
                        }));
}

TEST(CacheSpec, EveryFieldIsInTheFingerprintAndNamedWhenItDiffers) {
  std::set<std::string> encodings = {CanonicalEncoding(Llama())};
  for (const Change& change : EveryChange()) {
    CacheSpec changed = Llama();
    change.apply(changed);
    EXPECT_NE(FingerprintOf(changed), FingerprintOf(Llama())) << change.field;
    EXPECT_TRUE(encodings.insert(CanonicalEncoding(changed)).second) << change.field;
    const auto difference = FirstDifference(Llama(), changed);
    ASSERT_TRUE(difference.has_value()) << change.field;
    EXPECT_EQ(difference->field, change.field);
    EXPECT_NE(difference->left, difference->right);
  }
}

TEST(CacheSpec, TheFirstOfSeveralDifferencesIsNamedWithBothValues) {
  CacheSpec two = Llama();
  two.key_scheme = "x";
  two.dtype = DataType::kF16;
  EXPECT_EQ(FirstDifference(Llama(), two)->field, "dtype");
  EXPECT_EQ(FirstDifference(Llama(), two)->left, "bf16");
  EXPECT_EQ(FirstDifference(Llama(), two)->right, "f16");
  EXPECT_FALSE(FirstDifference(Llama(), Llama()).has_value());
  EXPECT_EQ(CountDifferences(Llama(), two), 2);
  EXPECT_EQ(CountDifferences(Llama(), Llama()), 0);
}

// Another implementation (tests/unit/types/golden_fingerprint.py) made the same value from the
// documented encoding.
TEST(CacheSpec, TheGoldenFingerprintHolds) {
  EXPECT_EQ(ToHex(FingerprintOf(Llama())),
            "9437e7df59605cf94a707f4ef0a729f6e4bf38a586ce3c54870d9dac62a72284");
  CacheSpec full = DeepSeek();
  full.revision = "abc";
  full.scope = "prod";
  full.window_tokens = 4096;
  full.tensor_parallel_size = 8;
  full.tensor_parallel_rank = 3;
  full.pipeline_parallel_size = 2;
  full.pipeline_parallel_rank = 1;
  full.rope_digest = "rope";
  full.lora_digest = "lora";
  full.codec = "none";
  full.engine_layout = "vllm:1:0";
  full.key_scheme = "sha256_cbor:seed";
  EXPECT_EQ(ToHex(FingerprintOf(full)),
            "c1518aa7367c04bda2bba922c4d5b76c1a1ba77c2ecc67cfb3a61f77974eab68");
}

TEST(CacheSpec, ABlockIsLaidOutLayerByLayer) {
  const BlockLayout gqa = LayoutOf(Llama());
  EXPECT_EQ(gqa.planes, 2u);
  EXPECT_EQ(gqa.heads, 8u);
  EXPECT_EQ(gqa.row_bytes, 256u);
  EXPECT_EQ(gqa.plane_bytes, 8u * 16 * 256);
  EXPECT_EQ(gqa.layer_bytes, 2 * gqa.plane_bytes);
  EXPECT_EQ(gqa.block_bytes, 32 * gqa.layer_bytes);
  const BlockLayout mla = LayoutOf(DeepSeek());
  EXPECT_EQ(mla.planes, 1u);
  EXPECT_EQ(mla.heads, 1u);
  EXPECT_EQ(mla.block_bytes, 61u * 16 * 576 * 2);
}

TEST(CacheSpec, RowsArePaddedToSixteenBytes) {
  CacheSpec odd = Llama();
  odd.head_dim = 9;
  EXPECT_EQ(LayoutOf(odd).row_data_bytes, 18u);
  EXPECT_EQ(LayoutOf(odd).row_bytes, 32u);
}

TEST(CacheSpec, GoodSpecsAreAccepted) {
  EXPECT_TRUE(ValidateSpec(Llama()).ok());
  EXPECT_TRUE(ValidateSpec(DeepSeek()).ok());
}

TEST(CacheSpec, ABadFieldIsRefusedByItsName) {
  const std::vector<Change> bad = {
      {"model", [](CacheSpec& s) { s.model = ""; }},
      {"model", [](CacheSpec& s) { s.model = std::string(limits::kSpecTextBytesMax + 1, 'x'); }},
      {"revision",
       [](CacheSpec& s) { s.revision = std::string(limits::kSpecTextBytesMax + 1, 'x'); }},
      {"attention", [](CacheSpec& s) { s.attention = AttentionKind::kUnspecified; }},
      {"dtype", [](CacheSpec& s) { s.dtype = DataType::kUnspecified; }},
      {"layers", [](CacheSpec& s) { s.layers = 0; }},
      {"layers", [](CacheSpec& s) { s.layers = limits::kLayersMax + 1; }},
      {"kv_heads", [](CacheSpec& s) { s.kv_heads = 0; }},
      {"kv_heads", [](CacheSpec& s) { s.attention = AttentionKind::kMla; }},
      {"head_dim", [](CacheSpec& s) { s.head_dim = 0; }},
      {"block_tokens", [](CacheSpec& s) { s.block_tokens = 0; }},
      {"block_tokens",
       [](CacheSpec& s) { s.block_tokens = limits::kBlockTokensMax; }},  // block too large
      {"block_tokens",
       [](CacheSpec& s) {
         s.layers = s.kv_heads = s.head_dim = s.block_tokens = 1;  // block too small
       }},
      {"tensor_parallel_size", [](CacheSpec& s) { s.tensor_parallel_size = 0; }},
      {"tensor_parallel_rank", [](CacheSpec& s) { s.tensor_parallel_rank = 1; }},
      {"pipeline_parallel_size", [](CacheSpec& s) { s.pipeline_parallel_size = 0; }},
      {"pipeline_parallel_rank", [](CacheSpec& s) { s.pipeline_parallel_rank = 7; }},
  };
  for (const Change& change : bad) {
    CacheSpec spec = Llama();
    change.apply(spec);
    const absl::Status status = ValidateSpec(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << change.field;
    EXPECT_EQ(RefusalReason(status), "SPEC_FIELD");
    EXPECT_THAT(std::string(status.message()), HasSubstr("spec." + change.field)) << status;
  }
}

TEST(CacheSpec, NumbersThatWouldOverflowABlocksSizeAreRefused) {
  CacheSpec spec = Llama();
  spec.dtype = DataType::kF32;
  spec.layers = limits::kLayersMax;
  spec.kv_heads = limits::kKvHeadsMax;
  spec.head_dim = limits::kHeadDimMax;
  spec.block_tokens = limits::kBlockTokensMax;
  EXPECT_EQ(RefusalReason(ValidateSpec(spec)), "SPEC_FIELD");
}

TEST(CacheSpec, NamesOfTypesGoBothWays) {
  for (DataType type : {DataType::kF32, DataType::kF16, DataType::kBf16, DataType::kF8E4M3,
                        DataType::kF8E5M2, DataType::kI8}) {
    EXPECT_EQ(DataTypeFromName(DataTypeName(type)).value(), type);
    EXPECT_GT(DataTypeBytes(type), 0u);
  }
  EXPECT_FALSE(DataTypeFromName("").ok());
  EXPECT_FALSE(DataTypeFromName("float16").ok());
}

TEST(CacheSpec, ForPeopleOnlyWhatIsSetIsShown) {
  EXPECT_EQ(
      DescribeSpec(Llama()),
      "model=llama attention=gqa dtype=bf16 layers=32 kv_heads=8 head_dim=128 block_tokens=16 "
      "tensor_parallel_size=1 pipeline_parallel_size=1");
}

}  // namespace
}  // namespace reprise
