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

namespace {

std::vector<std::string> Run(const std::vector<std::string>& first,
                             const std::vector<std::string>& options,
                             const std::vector<std::string>& command) {
  std::vector<std::string> all = {Env("CUBE_VMM"), "run"};
  all.insert(all.end(), first.begin(), first.end());
  for (const char* word : {"--kernel", "CUBE_KERNEL", "--initrd", "CUBE_INITRD"}) {
    all.push_back(word[0] == '-' ? word : Env(word));
  }
  all.insert(all.end(), options.begin(), options.end());
  if (!command.empty()) {
    all.push_back("--");
    all.insert(all.end(), command.begin(), command.end());
  }
  return all;
}

}  // namespace

std::vector<std::string> Vmm(const std::vector<std::string>& options,
                             const std::vector<std::string>& command) {
  return Run({"--boot"}, options, command);
}

std::vector<std::string> CloneVmm(const std::vector<std::string>& options,
                                  const std::vector<std::string>& command) {
  return Run({}, options, command);
}

}  // namespace cube::testing
