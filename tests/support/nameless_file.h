// The file without a name that this process has in a folder: to take it away from whoever uses it.
#pragma once

#include <dirent.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <memory>
#include <string>

namespace reprise::testing {

// Its descriptor, of several any; -1: there is none.
inline int NamelessFileIn(const std::string& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir("/proc/self/fd"), ::closedir);
  if (open == nullptr) return -1;
  while (const dirent* const entry = ::readdir(open.get())) {
    char target[PATH_MAX];
    const std::string link = std::string("/proc/self/fd/") + entry->d_name;
    const ssize_t length = ::readlink(link.c_str(), target, sizeof(target));
    if (length <= 0) continue;
    const std::string path(target, static_cast<size_t>(length));
    if (path.rfind(folder + "/", 0) == 0 && path.find("(deleted)") != std::string::npos) {
      return std::atoi(entry->d_name);
    }
  }
  return -1;
}

// From now on its owner reads nothing where there was something, as from a disk that fails.
inline bool EmptyNamelessFileIn(const std::string& folder) {
  const int fd = NamelessFileIn(folder);
  return fd >= 0 && ::ftruncate(fd, 0) == 0;
}

}  // namespace reprise::testing
