#include "templates/ext4_image.h"

#include <charconv>

#include "templates/child_run.h"

namespace cube::templates {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSpare = 2048 * kMiB;
constexpr uint64_t kLeast = 32 * kMiB;
constexpr uint64_t kMost = uint64_t{16} << 40;
constexpr uint64_t kStep = 64 * kMiB;
constexpr uint64_t kBytesForInode = 16384;  // mke2fs makes one for each so many

}  // namespace

Result<uint64_t> ParseDiskSize(const std::string& text) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  int shift = unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (error != std::errc() || shift < 0 || number > kMost >> shift || number << shift < kLeast) {
    return Errorf("a disk's size \"%.40s\" is not a number with M or G, from 32M to 16384G",
                  text.c_str());
  }
  return number << shift;
}

uint64_t DiskSizeFor(uint64_t content_bytes, uint64_t entries) {
  uint64_t bytes = content_bytes + entries * kBytesForInode + kSpare;
  return (bytes + kStep - 1) / kStep * kStep;
}

Status MakeExt4(const std::string& folder, const std::string& image, uint64_t bytes) {
  const std::string uuid = "c0be0000-0000-4000-8000-000000000002";
  LastLines last;
  ChildRun mke2fs;
  mke2fs.arguments = {
      "mke2fs",
      "-q",
      "-F",
      "-t",
      "ext4",
      "-b",
      "4096",
      "-m",
      "0",
      "-L",
      "root",
      "-U",
      uuid,
      "-e",
      "remount-ro",
      "-J",
      "size=8",
      "-E",
      "assume_storage_prezeroed=1,lazy_journal_init=0,root_owner=0:0,hash_seed=" + uuid,
      "-d",
      folder,
      image,
      std::to_string(bytes / 1024) + "k"};
  mke2fs.output = [&](std::string_view text) { last.Add(text); };
  CUBE_ASSIGN(int status, mke2fs.Run());
  if (status == 0) return OkStatus();
  std::string text = last.text();
  return Errorf("mke2fs could not make a disk of %llu MiB: %s",
                static_cast<unsigned long long>(bytes / kMiB),
                text.substr(text.rfind('\n') + 1).c_str());
}

}  // namespace cube::templates
