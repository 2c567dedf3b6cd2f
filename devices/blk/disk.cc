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

// By the kernel, which shares the blocks where the file system can.
Status CopyRange(const OverlayFile& from, uint64_t offset, uint64_t size, const OverlayFile& to) {
  auto source = static_cast<off_t>(from.FileOffset(offset));
  auto target = static_cast<off_t>(to.FileOffset(offset));
  while (size > 0) {
    ssize_t n = copy_file_range(from.fd(), &source, to.fd(), &target, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP)) {
      // Not between these file systems.
      uint8_t piece[65536];
      auto bytes = std::span(piece).first(std::min<uint64_t>(size, sizeof piece));
      CUBE_TRY(ReadExactAt(from.fd(), bytes, static_cast<uint64_t>(source), from.path().c_str()));
      n = pwrite(to.fd(), bytes.data(), bytes.size(), target);
      if (n > 0) source += n;
      if (n > 0) target += n;
    }
    if (n < 0)
      return ErrnoError("cannot copy from %s to %s", from.path().c_str(), to.path().c_str());
    if (n == 0) return Errorf("%s shrank while it was copied", from.path().c_str());
    size -= static_cast<uint64_t>(n);
  }
  return OkStatus();
}

}  // namespace

std::vector<int> DiskStack::descriptors() const {
  std::vector<int> all = {image->get()};
  for (const auto& layer : layers) all.push_back(layer->fd());
  return all;
}

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
  CUBE_ASSIGN(UniqueFd base, OpenFile(files.base, (write_base ? O_RDWR : O_RDONLY) | O_NONBLOCK));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(base.get(), files.base.c_str()));
  if (size == 0 || size % kSectorSize != 0 || size > OverlayFile::kMaxDiskSize) {
    return Errorf("%s has %llu bytes; a disk has a multiple of %llu up to %llu", files.base.c_str(),
                  static_cast<unsigned long long>(size),
                  static_cast<unsigned long long>(kSectorSize),
                  static_cast<unsigned long long>(OverlayFile::kMaxDiskSize));
  }
  CUBE_TRY(LockFile(base.get(), write_base, files.base));
  disk.stack_ = {std::make_shared<const UniqueFd>(std::move(base)), size, {}};
  for (const std::string& path : files.layers) {
    CUBE_ASSIGN(OverlayFile layer, OverlayFile::Open(path, size, OverlayFile::Access::kReadOnly));
    disk.stack_.layers.push_back(std::make_shared<const OverlayFile>(std::move(layer)));
  }
  if (files.overlay.empty()) return disk;
  auto overlay = IsMissingOrEmpty(files.overlay)
                     ? OverlayFile::Create(files.overlay, size, files.new_block_size)
                     : OverlayFile::Open(files.overlay, size, OverlayFile::Access::kWrite);
  if (!overlay.ok()) return overlay.error();
  disk.overlay_ = std::move(overlay).value();
  return disk;
}

Result<Disk> Disk::Over(DiskStack stack) {
  if (stack.layers.size() > kMaxLayers) {
    return Errorf("a disk of %zu layers, at most %zu are possible", stack.layers.size(),
                  kMaxLayers);
  }
  Disk disk;
  disk.stack_ = std::move(stack);
  disk.read_only_ = true;
  return disk;
}

Result<Disk> Disk::Over(DiskStack stack, OverlayFile overlay) {
  if (overlay.disk_size() != stack.size) {
    return Errorf("an overlay for %llu bytes over a disk of %llu",
                  static_cast<unsigned long long>(overlay.disk_size()),
                  static_cast<unsigned long long>(stack.size));
  }
  CUBE_ASSIGN(Disk disk, Over(std::move(stack)));
  disk.overlay_ = std::move(overlay);
  disk.read_only_ = false;
  return disk;
}

void Disk::Map(uint64_t offset, uint64_t size, std::vector<Extent>* extents) const {
  uint64_t end = offset + size;
  while (offset < end) {
    // As far as the same file has it: the topmost one with the block, and none above it.
    uint64_t limit = end;
    Extent extent = {stack_.image->get(), offset, 0};
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
    for (auto layer = layers().rbegin(); !found && layer != layers().rend(); ++layer) {
      found = look(**layer);
    }
    extent.size = limit - offset;
    extents->push_back(extent);
    offset = limit;
  }
}

Status Disk::Freeze(const std::string& path) {
  if (!overlay_) return Errorf("%s: the disk has no overlay to freeze", path.c_str());
  if (layers().size() == kMaxLayers) {
    return Errorf("%s: the disk has %zu layers, no more are possible", path.c_str(), kMaxLayers);
  }
  CUBE_ASSIGN(OverlayFile next, OverlayFile::Create(path, size(), overlay_->block_size()));
  Status frozen = overlay_->Freeze();
  if (!frozen.ok()) {
    unlink(path.c_str());
    return frozen;
  }
  stack_.layers.push_back(std::make_shared<const OverlayFile>(std::move(*overlay_)));
  overlay_ = std::move(next);
  return OkStatus();
}

Status Disk::RollOver(OverlayFile next) {
  if (!overlay_ || !overlay_->temporary()) return Errorf("the disk has no temporary overlay");
  if (next.disk_size() != size() || next.block_size() != overlay_->block_size()) {
    return Errorf("the next overlay is not of the same kind");
  }
  if (layers().size() == kMaxLayers) {
    return Errorf("the disk has %zu layers, no more are possible", kMaxLayers);
  }
  stack_.layers.push_back(std::make_shared<const OverlayFile>(std::move(*overlay_)));
  overlay_ = std::move(next);
  return OkStatus();
}

Result<DiskStack> Disk::Capture(const std::string& folder) {
  if (!overlay_) {
    if (read_only_) return stack_;
    return Errorf("the disk's image is written itself: an overlay over it could be frozen");
  }
  // All of a temporary overlay is uncommitted.
  if (overlay_->temporary() && !overlay_->uncommitted()) return stack_;
  CUBE_ASSIGN(OverlayFile next,
              OverlayFile::CreateTemporary(folder, size(), overlay_->block_size()));
  if (overlay_->temporary()) {
    CUBE_TRY(RollOver(std::move(next)));
    return stack_;
  }
  CUBE_TRY(CopyBlocks({&*overlay_}, &next));
  DiskStack copy = stack_;
  copy.layers.push_back(std::make_shared<const OverlayFile>(std::move(next)));
  return copy;
}

Status Disk::Rebase(DiskStack stack) {
  if (stack.size != size()) {
    return Errorf("a disk of %llu bytes cannot become one of %llu",
                  static_cast<unsigned long long>(size()),
                  static_cast<unsigned long long>(stack.size));
  }
  if (overlay_) CUBE_TRY(overlay_->Reset());
  stack_ = std::move(stack);
  return OkStatus();
}

void Disk::Squash(size_t first, size_t count, std::shared_ptr<const OverlayFile> layer) {
  auto begin = stack_.layers.begin() + static_cast<ptrdiff_t>(first);
  stack_.layers.erase(begin + 1, begin + static_cast<ptrdiff_t>(count));
  stack_.layers[first] = std::move(layer);
}

Status Disk::Reset() {
  if (!overlay_) return Errorf("the disk has no overlay to reset");
  return overlay_->Reset();
}

Status CopyBlocks(const std::vector<const OverlayFile*>& from, OverlayFile* to) {
  for (const OverlayFile* file : from) {
    if (file->block_size() == to->block_size() && file->disk_size() == to->disk_size()) continue;
    return Errorf("%s: blocks of %u bytes are not put into an overlay of %u", file->path().c_str(),
                  file->block_size(), to->block_size());
  }
  const uint64_t block = to->block_size();
  const uint64_t blocks = to->present().blocks();
  for (uint64_t at = 0; at < blocks;) {
    // As far as the same file has it, or none.
    uint64_t run = blocks - at;
    const OverlayFile* source = nullptr;
    for (auto file = from.rbegin(); source == nullptr && file != from.rend(); ++file) {
      run = (*file)->present().RunLength(at, run);
      if ((*file)->present().Get(at)) source = *file;
    }
    if (source != nullptr) {
      uint64_t end = std::min((at + run) * block, to->disk_size());
      CUBE_TRY(CopyRange(*source, at * block, end - at * block, *to));
      to->SetPresent(at, run);
    }
    at += run;
  }
  return OkStatus();
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
