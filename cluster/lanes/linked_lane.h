// A lane over a link that is made, lost and rebuilt in the background: what whoever orders lanes
// has to know of it.
//
// Thread safety: as Lane.
#pragma once

#include <functional>

#include "cluster/lanes/lane.h"
#include "cluster/lanes/lane_choice.h"

namespace reprise::lanes {

class LinkedLane : public Lane {
 public:
  virtual NcclLinkState link_state() const = 0;
  // Makes the link ahead of the first use. Returns at once.
  virtual void Prepare() = 0;
  // What ends the link for good, and every call that is under way on it: the attachment is over.
  // May be called from any thread, also after the lane's end; returns at once.
  virtual std::function<void()> Closer() const = 0;
};

}  // namespace reprise::lanes
