#include "guestkernel/agent/root_option.h"

#include <algorithm>

#include "guestkernel/agent/kernel_words.h"

namespace cube::agent {
namespace {

constexpr std::string_view kWord = "cube.root=";
constexpr std::string_view kReadOnly = ":ro";
constexpr std::string_view kDevices = "/dev/";

bool IsNameOfDevice(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

}  // namespace

Result<std::optional<RootOption>> ParseRootOption(std::string_view command_line) {
  std::optional<RootOption> root;
  for (std::string_view value : KernelWords(command_line, kWord)) {
    std::string_view device = value;
    const bool read_only = CutSuffix(&device, kReadOnly);
    if (!device.starts_with(kDevices) || device.size() == kDevices.size() ||
        !std::ranges::all_of(device.substr(kDevices.size()), IsNameOfDevice)) {
      return Errorf("'cube.root=%s' is not cube.root=/dev/NAME[:ro]", std::string(value).c_str());
    }
    root = RootOption{.device = std::string(device), .read_only = read_only};
  }
  return root;
}

}  // namespace cube::agent
