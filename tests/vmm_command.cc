#include "tests/vmm_command.h"

#include <cstdio>
#include <cstdlib>

namespace cube::testing {

std::string Env(const char* name) {
  const char* value = getenv(name);
  if (value == nullptr) {
    fprintf(stderr, "%s is not set: run this by bazel test\n", name);
    abort();
  }
  return value;
}

std::vector<std::string> Vmm(const std::vector<std::string>& options,
                             const std::vector<std::string>& command) {
  std::vector<std::string> all = {Env("CUBE_VMM"), "run", "--kernel", Env("CUBE_KERNEL"),
                                  "--initrd", Env("CUBE_INITRD")};
  all.insert(all.end(), options.begin(), options.end());
  if (!command.empty()) {
    all.push_back("--");
    all.insert(all.end(), command.begin(), command.end());
  }
  return all;
}

}  // namespace cube::testing
