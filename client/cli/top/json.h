// A TopView as programs read it.
//
// Thread safety: free functions; no shared state.
#pragma once

#include "client/cli/top/view.h"
#include "nlohmann/json_fwd.hpp"

namespace reprise::cli {

// One object. What is not known is null; names are stable, and numbers end in their unit.
nlohmann::ordered_json TopJson(const TopView& view);

}  // namespace reprise::cli
