#include "devices/blk/disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/byte_io.h"
#include "devices/blk/spec.h"

namespace cube::devices::blk {
namespace {

// Layers cost a look each at every read; snapshots of snapshots stay far below.
constexpr size_t kMaxLayers = 64;

bool IsMissingOrEmpty(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return errno == ENOENT;
  return S_ISREG(info.st_mode) && info.st_size == 0;
}

}  // namespace

Result<Disk> Disk::Open(const DiskFiles& files) {
  Disk disk;
  bool layered = !files.layers.empty() || !files.overlay.empty();
  if (files.read_only && !files.overlay.empty()) {
    return Errorf("%s: a read-only disk has no overlay", files.base.c_str());
  }
  if (files.layers.size() > kMaxLayers) {
    return Errorf("%s: %zu layers, at most %zu are possible", files.base.c_str(),
                  files.layers.size(), kMaxLayers);
  }
  disk.read_only_ = files.read_only || (layered && files.overlay.empty());
  bool write_base = !disk.read_only_ && !layered;
  CUBE_ASSIGN(disk.base_, OpenFile(files.base, (write_base ? O_RDWR : O_RDONLY) | O_NONBLOCK));
  CUBE_ASSIGN(disk.size_, RegularFileSize(disk.base_.get(), files.base.c_str()));
  if (disk.size_ == 0 || disk.size_ % kSectorSize != 0 || disk.size_ > OverlayFile::kMaxDiskSize) {
    return Errorf("%s has %llu bytes; a disk has a multiple of %llu up to %llu", files.base.c_str(),
                  static_cast<unsigned long long>(disk.size_),
                  static_cast<unsigned long long>(kSectorSize),
                  static_cast<unsigned long long>(OverlayFile::kMaxDiskSize));
  }
  CUBE_TRY(LockFile(disk.base_.get(), write_base, files.base));
  for (const std::string& path : files.layers) {
    CUBE_ASSIGN(OverlayFile layer,
                OverlayFile::Open(path, disk.size_, OverlayFile::Access::kReadOnly));
    disk.layers_.push_back(std::move(layer));
  }
  if (files.overlay.empty()) return disk;
  auto overlay = IsMissingOrEmpty(files.overlay)
                     ? OverlayFile::Create(files.overlay, disk.size_, files.new_block_size)
                     : OverlayFile::Open(files.overlay, disk.size_, OverlayFile::Access::kWrite);
  if (!overlay.ok()) return overlay.error();
  disk.overlay_ = std::move(overlay).value();
  return disk;
}

void Disk::Map(uint64_t offset, uint64_t size, std::vector<Extent>* extents) const {
  uint64_t end = offset + size;
  while (offset < end) {
    // As far as the same file has it: the topmost one with the block, and none above it.
    uint64_t limit = end;
    Extent extent = {base_.get(), offset, 0};
    auto look = [&](const OverlayFile& file) {
      uint64_t first = offset / file.block_size();
      uint64_t count = (limit - 1) / file.block_size() + 1 - first;
      uint64_t run = file.present().RunLength(first, count);
      limit = std::min(limit, (first + run) * file.block_size());
      if (!file.present().Get(first)) return false;
      extent.fd = file.fd();
      extent.file_offset = file.FileOffset(offset);
      return true;
    };
    bool found = overlay_ && look(*overlay_);
    for (auto layer = layers_.rbegin(); !found && layer != layers_.rend(); ++layer) {
      found = look(*layer);
    }
    extent.size = limit - offset;
    extents->push_back(extent);
    offset = limit;
  }
}

Status Disk::Freeze(const std::string& path) {
  if (!overlay_) return Errorf("%s: the disk has no overlay to freeze", path.c_str());
  if (layers_.size() == kMaxLayers) {
    return Errorf("%s: the disk has %zu layers, no more are possible", path.c_str(), kMaxLayers);
  }
  CUBE_ASSIGN(OverlayFile next, OverlayFile::Create(path, size_, overlay_->block_size()));
  Status frozen = overlay_->Freeze();
  if (!frozen.ok()) {
    unlink(path.c_str());
    return frozen;
  }
  layers_.push_back(std::move(*overlay_));
  overlay_ = std::move(next);
  return OkStatus();
}

Status Disk::Reset() {
  if (!overlay_) return Errorf("the disk has no overlay to reset");
  return overlay_->Reset();
}

Status FlattenDisk(const Disk& disk, const std::string& path) {
  CUBE_ASSIGN(UniqueFd out, OpenFile(path, O_WRONLY | O_CREAT | O_NONBLOCK, 0644));
  // Locked before it is emptied: it might be what the disk is made of.
  CUBE_TRY(LockFile(out.get(), true, path));
  if (ftruncate(out.get(), 0) < 0 || ftruncate(out.get(), static_cast<off_t>(disk.size())) < 0) {
    return ErrnoError("cannot make %s as large as the disk", path.c_str());
  }
  std::vector<Disk::Extent> extents;
  std::vector<uint8_t> buffer(1 << 20);
  for (uint64_t offset = 0; offset < disk.size(); offset += buffer.size()) {
    extents.clear();
    disk.Map(offset, std::min<uint64_t>(buffer.size(), disk.size() - offset), &extents);
    uint64_t at = offset;
    for (const Disk::Extent& extent : extents) {
      auto bytes = std::span(buffer).first(extent.size);
      CUBE_TRY(ReadExactAt(extent.fd, bytes, extent.file_offset, "the disk"));
      bool zeros = std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; });
      for (size_t done = 0; !zeros && done < bytes.size();) {
        ssize_t n = pwrite(out.get(), bytes.data() + done, bytes.size() - done,
                           static_cast<off_t>(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return ErrnoError("cannot write to %s", path.c_str());
        done += static_cast<size_t>(n);
      }
      at += extent.size;
    }
  }
  return OkStatus();
}

}  // namespace cube::devices::blk
