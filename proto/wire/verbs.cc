#include "proto/wire/verbs.h"

#include "proto/types/status_macros.h"
#include "proto/wire/enums.h"

namespace reprise::wire {

void ToMessage(std::span<const TierRun> runs, TierRunField* field) {
  field->Reserve(static_cast<int>(runs.size()));
  for (const TierRun& run : runs) {
    v1::TierRun* message = field->Add();
    message->set_tier(ToMessage(run.tier));
    message->set_blocks(run.blocks);
  }
}

absl::StatusOr<std::vector<TierRun>> FromMessage(const TierRunField& field) {
  std::vector<TierRun> runs;
  runs.reserve(static_cast<size_t>(field.size()));
  for (const v1::TierRun& message : field) {
    REPRISE_ASSIGN_OR_RETURN(const Tier tier, FromMessage(message.tier(), "tiers.tier"));
    runs.push_back({.tier = tier, .blocks = message.blocks()});
  }
  return runs;
}

void ToMessage(std::span<const ReserveOutcome> outcomes, OutcomeField* field) {
  field->Reserve(static_cast<int>(outcomes.size()));
  for (const ReserveOutcome outcome : outcomes) field->Add(ToMessage(outcome));
}

absl::StatusOr<std::vector<ReserveOutcome>> FromMessage(const OutcomeField& field) {
  std::vector<ReserveOutcome> outcomes;
  outcomes.reserve(static_cast<size_t>(field.size()));
  for (const int number : field) {
    REPRISE_ASSIGN_OR_RETURN(const ReserveOutcome outcome,
                             FromMessage(static_cast<v1::ReserveOutcome>(number), "outcomes"));
    outcomes.push_back(outcome);
  }
  return outcomes;
}

v1::ExplainResponse ToMessage(const Explanation& explanation) {
  v1::ExplainResponse message;
  message.set_run_blocks(explanation.run_blocks);
  ToMessage(explanation.tiers, message.mutable_tiers());
  message.set_reason(ToMessage(explanation.reason));
  message.set_miss_block(explanation.miss_block);
  message.set_event_unix_ms(static_cast<uint64_t>(explanation.event_unix_ms));
  message.set_event_cause(explanation.event_cause);
  message.set_first_differing_token(explanation.first_differing_token);
  message.set_prompt_token(explanation.prompt_token);
  message.set_stored_token(explanation.stored_token);
  message.set_spec_field(explanation.spec_difference.field);
  message.set_spec_value_asked(explanation.spec_difference.left);
  message.set_spec_value_stored(explanation.spec_difference.right);
  message.set_sentence(explanation.sentence);
  return message;
}

absl::StatusOr<Explanation> FromMessage(const v1::ExplainResponse& message) {
  Explanation explanation;
  explanation.run_blocks = message.run_blocks();
  REPRISE_ASSIGN_OR_RETURN(explanation.tiers, FromMessage(message.tiers()));
  REPRISE_ASSIGN_OR_RETURN(explanation.reason, FromMessage(message.reason(), "reason"));
  explanation.miss_block = message.miss_block();
  explanation.event_unix_ms = static_cast<int64_t>(message.event_unix_ms());
  explanation.event_cause = message.event_cause();
  explanation.first_differing_token = message.first_differing_token();
  explanation.prompt_token = message.prompt_token();
  explanation.stored_token = message.stored_token();
  explanation.spec_difference = {.field = message.spec_field(),
                                 .left = message.spec_value_asked(),
                                 .right = message.spec_value_stored()};
  explanation.sentence = message.sentence();
  return explanation;
}

}  // namespace reprise::wire
