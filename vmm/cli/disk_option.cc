#include "vmm/cli/disk_option.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "base/unique_fd.h"
#include "vmm/cli/option_words.h"

namespace cube::vmm {
namespace {

using ::cube::devices::blk::IoEngine;

// A number with k, M or G (of 1024) after it, or nothing; at least 1.
Result<uint64_t> ParseRate(std::string_view name, std::string_view text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  int shift = unit.empty() ? 0 : unit == "k" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (error != std::errc() || shift < 0 || value == 0 || value > (uint64_t{1} << 40) >> shift) {
    return Errorf("'%.*s' in %.*s= is not a number from 1 to 1024G, with k, M or G",
                  static_cast<int>(text.size()), text.data(), static_cast<int>(name.size()),
                  name.data());
  }
  return value << shift;
}

Status ParseWord(std::string_view word, DiskOption* option) {
  size_t equals = word.find('=');
  std::string_view name = word.substr(0, equals);
  std::string_view value = equals == word.npos ? "" : word.substr(equals + 1);
  if (word == "ro") {
    option->files.read_only = true;
    return OkStatus();
  }
  if (word == "temporary") {
    option->temporary = true;
    return OkStatus();
  }
  if (value.empty()) {
    return Errorf(
        "'%.*s' is not one of ro, layer=FILE, overlay=FILE, temporary, id=NAME, bps=N, iops=N, "
        "engine=auto|uring|thread",
        static_cast<int>(word.size()), word.data());
  }
  if (name == "overlay") {
    if (!option->files.overlay.empty()) return Errorf("overlay= is there twice");
    option->files.overlay = value;
  } else if (name == "layer") {
    option->files.layers.emplace_back(value);
  } else if (name == "id") {
    option->device.id = value;
  } else if (name == "bps") {
    CUBE_ASSIGN(option->device.limits.bytes_per_second, ParseRate(name, value));
  } else if (name == "iops") {
    CUBE_ASSIGN(option->device.limits.operations_per_second, ParseRate(name, value));
  } else if (name == "engine" && (value == "auto" || value == "uring" || value == "thread")) {
    option->device.engine = value == "auto"    ? IoEngine::Kind::kAuto
                            : value == "uring" ? IoEngine::Kind::kUring
                                               : IoEngine::Kind::kThread;
  } else {
    return ParseWord(name, option);  // says what there is
  }
  return OkStatus();
}

// A file without a name; on disk, since a guest may fill it.
Result<UniqueFd> TemporaryFile() {
  const char* folder = getenv("TMPDIR");
  if (folder == nullptr || *folder == '\0') folder = "/var/tmp";
  UniqueFd file(open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file.valid()) return ErrnoError("cannot make a temporary file in %s", folder);
  return file;
}

}  // namespace

Result<DiskOption> ParseDiskOption(const std::string& text) {
  DiskOption option;
  std::vector<std::string_view> words = SplitWords(text, ':');
  option.files.base = words[0];
  if (option.files.base.empty()) return Errorf("a file is missing");
  for (size_t i = 1; i < words.size(); ++i) CUBE_TRY(ParseWord(words[i], &option));
  if (option.temporary && (option.files.read_only || !option.files.overlay.empty())) {
    return Errorf("'temporary' goes with neither ro nor overlay=");
  }
  return option;
}

Result<std::unique_ptr<::cube::devices::Blk>> MakeDisk(const std::string& text,
                                                       const std::string& default_id,
                                                       EventLoop* loop) {
  auto make = [&]() -> Result<std::unique_ptr<::cube::devices::Blk>> {
    CUBE_ASSIGN(DiskOption option, ParseDiskOption(text));
    if (option.device.id.empty()) option.device.id = default_id;
    UniqueFd temporary;
    if (option.temporary) {
      CUBE_ASSIGN(temporary, TemporaryFile());
      option.files.overlay = Format("/proc/self/fd/%d", temporary.get());
    }
    CUBE_ASSIGN(auto disk, ::cube::devices::blk::Disk::Open(option.files));
    return ::cube::devices::Blk::Create(std::move(disk), option.device, loop);
  };
  auto made = make();
  if (!made.ok()) return Error(made.error()).Wrap("--disk " + text);
  return made;
}

}  // namespace cube::vmm
