#include "guestkernel/agent/root_option.h"

#include <algorithm>

namespace cube::agent {
namespace {

constexpr std::string_view kWord = "cube.root=";
constexpr std::string_view kReadOnly = ":ro";
constexpr std::string_view kDevices = "/dev/";
constexpr std::string_view kBlank = " \t\n";

bool IsNameOfDevice(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

}  // namespace

Result<std::optional<RootOption>> ParseRootOption(std::string_view command_line) {
  std::optional<RootOption> root;
  while (true) {
    size_t start = command_line.find_first_not_of(kBlank);
    if (start == std::string_view::npos) return root;
    size_t end = std::min(command_line.find_first_of(kBlank, start), command_line.size());
    std::string_view word = command_line.substr(start, end - start);
    command_line.remove_prefix(end);
    if (!word.starts_with(kWord)) continue;
    std::string_view device = word.substr(kWord.size());
    bool read_only = device.ends_with(kReadOnly);
    if (read_only) device.remove_suffix(kReadOnly.size());
    if (!device.starts_with(kDevices) || device.size() == kDevices.size() ||
        !std::ranges::all_of(device.substr(kDevices.size()), IsNameOfDevice)) {
      return Errorf("'%s' is not cube.root=/dev/NAME[:ro]", std::string(word).c_str());
    }
    root = RootOption{.device = std::string(device), .read_only = read_only};
  }
}

}  // namespace cube::agent
