#include "kernels/quantize/spec_codec.h"

#include <gtest/gtest.h>

#include "kernels/quantize/quantize.h"
#include "proto/types/refusal.h"

namespace reprise::kernels {
namespace {

CacheSpec Llama(const std::string& codec) {
  CacheSpec spec;
  spec.model = "llama";
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kBf16;
  spec.layers = 32;
  spec.kv_heads = 8;
  spec.head_dim = 128;
  spec.block_tokens = 16;
  spec.codec = codec;
  return spec;
}

TEST(SpecCodecTest, WithoutOneBlocksAreStoredAsTheyAre) {
  for (const char* none : {"", "none"}) {
    const CacheSpec spec = Llama(none);
    const auto codec = CodecOf(spec);
    ASSERT_TRUE(codec.ok()) << codec.status();
    EXPECT_FALSE(codec->has_value());
    EXPECT_EQ(StoredLayoutOf(spec, *codec).block_bytes, LayoutOf(spec).block_bytes);
    EXPECT_EQ(StoredLayoutOf(spec, *codec).layer_bytes, LayoutOf(spec).layer_bytes);
  }
}

TEST(SpecCodecTest, ItsShapeIsTheSpecsAndStoredBlocksAreWholeLayers) {
  for (const char* name : {"fp8_e4m3", "int8", "int4", "int4_g64"}) {
    for (const DataType dtype : {DataType::kF32, DataType::kF16, DataType::kBf16}) {
      CacheSpec spec = Llama(name);
      spec.dtype = dtype;
      const auto codec = CodecOf(spec);
      ASSERT_TRUE(codec.ok() && codec->has_value()) << codec.status();
      EXPECT_EQ(std::string(QuantFault(**codec)), "");
      EXPECT_EQ(LayoutOf(**codec).plain_block_bytes, LayoutOf(spec).block_bytes);
      const BlockLayout stored = StoredLayoutOf(spec, *codec);
      EXPECT_EQ(stored.block_bytes, EncodedBlockBytes(**codec));
      EXPECT_EQ(stored.block_bytes, spec.layers * stored.layer_bytes);
    }
  }
}

TEST(SpecCodecTest, AByteForAbf16IsHalfOfItAndTheScales) {
  const CacheSpec spec = Llama("int8");
  const BlockLayout stored = StoredLayoutOf(spec, *CodecOf(spec));
  const uint64_t scales = uint64_t{spec.layers} * 2 * spec.kv_heads * 4;
  EXPECT_EQ(stored.block_bytes, LayoutOf(spec).block_bytes / 2 + scales);
}

TEST(SpecCodecTest, ALatentHasOnePlane) {
  CacheSpec spec = Llama("int4");
  spec.attention = AttentionKind::kMla;
  spec.kv_heads = 0;
  spec.head_dim = 576;
  const auto codec = CodecOf(spec);
  ASSERT_TRUE(codec.ok() && codec->has_value()) << codec.status();
  EXPECT_EQ((*codec)->planes_per_layer, 1u);
  EXPECT_EQ((*codec)->heads, 1u);
  EXPECT_EQ(LayoutOf(**codec).plain_block_bytes, LayoutOf(spec).block_bytes);
}

TEST(SpecCodecTest, WhatNoCodecEncodesIsRefused) {
  EXPECT_EQ(RefusalReason(CodecOf(Llama("zip")).status()), "CODEC_UNKNOWN");
  for (const DataType dtype : {DataType::kF8E4M3, DataType::kF8E5M2, DataType::kI8}) {
    CacheSpec spec = Llama("int8");
    spec.dtype = dtype;
    EXPECT_EQ(RefusalReason(CodecOf(spec).status()), "CODEC_DTYPE");
  }
}

}  // namespace
}  // namespace reprise::kernels
