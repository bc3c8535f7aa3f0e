#include "proto/wire/spec.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <gtest/gtest.h>

#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

// A spec message in which field number n holds a value that no other field has.
v1::CacheSpec EveryFieldDistinct() {
  v1::CacheSpec message;
  const google::protobuf::Descriptor* descriptor = message.GetDescriptor();
  const google::protobuf::Reflection* reflection = message.GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = descriptor->field(i);
    switch (field->cpp_type()) {
      case google::protobuf::FieldDescriptor::CPPTYPE_STRING:
        reflection->SetString(&message, field, "text of " + field->name());
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_UINT32:
        reflection->SetUInt32(&message, field, static_cast<uint32_t>(1000 + field->number()));
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_ENUM:
        reflection->SetEnumValue(&message, field, field->number() == 4 ? 2 : 3);
        break;
      default:
        ADD_FAILURE() << "a new kind of field: " << field->name();
    }
  }
  return message;
}

TEST(SpecTest, NoFieldIsLostOrSwappedOnTheWay) {
  const v1::CacheSpec sent = EveryFieldDistinct();
  EXPECT_EQ(ToMessage(FromMessage(sent)).SerializeAsString(), sent.SerializeAsString());
}

TEST(SpecTest, EveryFieldOfAMessageChangesTheFingerprint) {
  const v1::CacheSpec base = EveryFieldDistinct();
  const Fingerprint fingerprint = FingerprintOf(FromMessage(base));
  for (int i = 0; i < base.GetDescriptor()->field_count(); ++i) {
    v1::CacheSpec changed = base;
    changed.GetReflection()->ClearField(&changed, base.GetDescriptor()->field(i));
    EXPECT_NE(FingerprintOf(FromMessage(changed)), fingerprint)
        << base.GetDescriptor()->field(i)->name();
  }
}

TEST(SpecTest, UnknownKindsAreLeftForValidationToRefuse) {
  v1::CacheSpec message = EveryFieldDistinct();
  message.set_dtype(static_cast<v1::DataType>(55));
  EXPECT_EQ(FromMessage(message).dtype, DataType::kUnspecified);
  EXPECT_FALSE(ValidateSpec(FromMessage(message)).ok());
}

TEST(SpecTest, AFingerprintIsThirtyTwoBytes) {
  Fingerprint fingerprint;
  for (size_t i = 0; i < fingerprint.bytes.size(); ++i) {
    fingerprint.bytes[i] = static_cast<uint8_t>(i * 7);
  }
  EXPECT_EQ(*FingerprintFromBytes(ToBytes(fingerprint), "fingerprint"), fingerprint);
  for (size_t length : {0, 31, 33, 64}) {
    const absl::Status status =
        FingerprintFromBytes(std::string(length, 'x'), "expected_fingerprint").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(RefusalReason(status), "FINGERPRINT_LENGTH");
    EXPECT_NE(status.message().find("expected_fingerprint"), absl::string_view::npos);
  }
}

}  // namespace
}  // namespace reprise::wire
