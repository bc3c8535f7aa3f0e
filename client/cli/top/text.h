// A TopView as people read it. Pure: what the terminal can do is an argument.
//
// Invariants: no line is wider than the style's width, and there are no more lines than its height;
// no word of a server reaches a terminal as anything but printable text.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <cstddef>
#include <string>

#include "client/cli/top/view.h"

namespace reprise::cli {

struct TopStyle {
  size_t width = 0;   // columns; 0: as many as it takes
  size_t height = 0;  // lines; 0: the same
  bool bars = false;
  bool colours = false;
};

// Lines, each with its end. What does not fit is left out: columns by their importance, shards from
// the end, with a line that says how many.
std::string TopText(const TopView& view, const TopStyle& style);

}  // namespace reprise::cli
