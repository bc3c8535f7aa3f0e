// A shard's snapshot as what is scraped, and as the page for people. service/telemetry/README.md
// describes every metric; a test compares it with what a running shard serves.
//
// Invariants: which series there are depends on nothing: all are there, at 0, from the start, also
// of tiers, lanes and peers that this shard has not.
//
// Thread safety: pure functions.
#pragma once

#include <vector>

#include "service/shard/shard_snapshot.h"
#include "service/telemetry/metric_family.h"
#include "service/telemetry/status_pages.h"

namespace reprise::shard {

std::vector<telemetry::Family> ToFamilies(const ShardSnapshot& shard);
telemetry::StatusPage ToPage(const ShardSnapshot& shard);

}  // namespace reprise::shard
