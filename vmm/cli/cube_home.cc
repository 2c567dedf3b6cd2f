#include "vmm/cli/cube_home.h"

#include <cstdlib>
#include <filesystem>

namespace cube::vmm {

std::string CubeHome() {
  const char* home = getenv("CUBE_HOME");
  return home != nullptr && *home != '\0' ? home : "/var/lib/cube";
}

std::string RunFolder() { return CubeHome() + "/run"; }

Status CheckSandboxId(const std::string& id) {
  if (id.size() == kSandboxIdSize &&
      id.find_first_not_of("0123456789abcdef") == std::string::npos) {
    return OkStatus();
  }
  return Errorf("a sandbox's id has %zu of the digits 0-9 and a-f", kSandboxIdSize);
}

std::string ControlPath(const std::string& id) { return RunFolder() + "/" + id + ".sock"; }

std::string LogPath(const std::string& id) { return RunFolder() + "/" + id + ".log"; }

std::string VsockPath(const std::string& id) { return RunFolder() + "/" + id + ".vsock"; }

Status MakeRunFolder() {
  std::error_code failed;
  std::filesystem::create_directories(RunFolder(), failed);
  if (failed) return Errorf("%s: %s", RunFolder().c_str(), failed.message().c_str());
  return OkStatus();
}

std::string ScratchFolder() {
  const char* folder = getenv("TMPDIR");
  return folder != nullptr && *folder != '\0' ? folder : RunFolder();
}

}  // namespace cube::vmm
