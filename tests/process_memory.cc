#include "tests/process_memory.h"

#include <fstream>
#include <string>

namespace cube::testing {

long AnonymousKib(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string word; file >> word;) {
    long value = 0;
    if (word == "Anonymous:" && file >> value) return value;
  }
  return -1;
}

}  // namespace cube::testing
