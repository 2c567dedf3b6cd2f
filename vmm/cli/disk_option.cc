#include "vmm/cli/disk_option.h"

#include <charconv>
#include <string_view>
#include <utility>

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

Result<::cube::devices::blk::Disk> OpenDisk(DiskOption* option, const std::string& scratch) {
  using ::cube::devices::blk::Disk;
  using ::cube::devices::blk::OverlayFile;
  if (!option->temporary) return Disk::Open(option->files);
  option->files.read_only = true;
  CUBE_ASSIGN(Disk below, Disk::Open(option->files));
  CUBE_ASSIGN(OverlayFile overlay, OverlayFile::CreateTemporary(scratch, below.size()));
  return Disk::Over(below.stack(), std::move(overlay));
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

Result<MadeDisk> MakeDisk(const std::string& text, const std::string& name,
                          const std::string& scratch, EventLoop* loop) {
  using snapshot::OutsideFile;
  auto make = [&]() -> Result<MadeDisk> {
    CUBE_ASSIGN(DiskOption option, ParseDiskOption(text));
    if (option.device.id.empty()) option.device.id = name;
    CUBE_ASSIGN(auto disk, OpenDisk(&option, scratch));
    MadeDisk made;
    made.hardware.name = name;
    made.hardware.options = option.device;
    made.hardware.read_only = disk.read_only();
    CUBE_ASSIGN(OutsideFile image, OutsideFile::Of(disk.stack().image->get(), option.files.base));
    made.hardware.files.push_back(std::move(image));
    for (const auto& layer : disk.layers()) {
      CUBE_ASSIGN(OutsideFile file, OutsideFile::Of(layer->fd(), layer->path()));
      made.hardware.files.push_back(std::move(file));
    }
    CUBE_ASSIGN(made.device, ::cube::devices::Blk::Create(std::move(disk), option.device, loop));
    return made;
  };
  auto made = make();
  if (!made.ok()) return Error(made.error()).Wrap("--disk " + text);
  return made;
}

}  // namespace cube::vmm
