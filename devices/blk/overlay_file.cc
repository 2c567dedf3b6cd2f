#include "devices/blk/overlay_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/byte_io.h"
#include "devices/blk/overlay_format.h"

namespace cube::devices::blk {
namespace {

Status WriteExactAt(int fd, std::span<const uint8_t> bytes, uint64_t offset,
                    const std::string& path) {
  while (!bytes.empty()) {
    ssize_t n = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot write to %s", path.c_str());
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return OkStatus();
}

Status CheckDiskSize(const std::string& path, uint64_t disk_size) {
  if (disk_size != 0 && disk_size % 512 == 0 && disk_size <= OverlayFile::kMaxDiskSize) {
    return OkStatus();
  }
  return Errorf("%s: a disk of %llu bytes; it must be a multiple of 512 up to %llu", path.c_str(),
                static_cast<unsigned long long>(disk_size),
                static_cast<unsigned long long>(OverlayFile::kMaxDiskSize));
}

Status CheckBlockSize(const std::string& path, uint32_t block_size) {
  if (std::has_single_bit(block_size) && block_size >= OverlayFile::kMinBlockSize &&
      block_size <= OverlayFile::kMaxBlockSize) {
    return OkStatus();
  }
  return Errorf("%s: blocks of %u bytes; a power of two from %u to %u is possible", path.c_str(),
                block_size, OverlayFile::kMinBlockSize, OverlayFile::kMaxBlockSize);
}

uint64_t BlockCount(uint64_t disk_size, uint32_t block_size) {
  return (disk_size + block_size - 1) / block_size;
}

}  // namespace

Status LockFile(int fd, bool exclusive, const std::string& path) {
  if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) return OkStatus();
  if (errno == EWOULDBLOCK) return Errorf("%s is in use by another process", path.c_str());
  return ErrnoError("cannot lock %s", path.c_str());
}

OverlayFile::OverlayFile(UniqueFd fd, std::string path, uint64_t disk_size, uint32_t block_size,
                         BlockBitmap bitmap)
    : fd_(std::move(fd)),
      path_(std::move(path)),
      disk_size_(disk_size),
      block_size_(block_size),
      bitmap_(std::move(bitmap)),
      data_offset_(kBitmapOffset + bitmap_.bytes().size()) {}

Result<OverlayFile> OverlayFile::Create(const std::string& path, uint64_t disk_size,
                                        uint32_t block_size) {
  CUBE_TRY(CheckDiskSize(path, disk_size));
  CUBE_TRY(CheckBlockSize(path, block_size));
  CUBE_ASSIGN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT, 0600));
  CUBE_TRY(LockFile(fd.get(), true, path));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(fd.get(), path.c_str()));
  if (size != 0) return Errorf("%s is not empty: it is not made an overlay", path.c_str());
  CUBE_ASSIGN(BlockBitmap bitmap, BlockBitmap::Create(BlockCount(disk_size, block_size)));
  OverlayFile file(std::move(fd), path, disk_size, block_size, std::move(bitmap));
  CUBE_TRY(file.Initialise());
  return file;
}

Result<OverlayFile> OverlayFile::CreateTemporary(const std::string& folder, uint64_t disk_size,
                                                 uint32_t block_size) {
  CUBE_TRY(CheckDiskSize(folder, disk_size));
  CUBE_TRY(CheckBlockSize(folder, block_size));
  UniqueFd fd(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoError("cannot make a temporary file in %s", folder.c_str());
  CUBE_ASSIGN(BlockBitmap bitmap, BlockBitmap::Create(BlockCount(disk_size, block_size)));
  OverlayFile file(std::move(fd), "a temporary overlay in " + folder, disk_size, block_size,
                   std::move(bitmap));
  file.temporary_ = true;
  // Without a header until it is sealed.
  if (ftruncate(file.fd(), static_cast<off_t>(file.FileOffset(disk_size))) < 0) {
    return ErrnoError("cannot make %s as large as its disk", file.path_.c_str());
  }
  return file;
}

Status OverlayFile::Initialise() {
  if (ftruncate(fd(), static_cast<off_t>(FileOffset(disk_size_))) < 0) {
    return ErrnoError("cannot make %s as large as its disk", path_.c_str());
  }
  return WriteHeader(kStateOverlay);
}

Status OverlayFile::WriteHeader(uint32_t state) const {
  OverlayHeader header = {};
  memcpy(header.magic, kOverlayMagic, sizeof kOverlayMagic);
  header.version = kOverlayVersion;
  header.state = state;
  header.disk_size = disk_size_;
  header.block_size = block_size_;
  header.checksum = OverlayChecksum(header);
  return WriteExactAt(fd(), {reinterpret_cast<const uint8_t*>(&header), sizeof header}, 0, path_);
}

Result<OverlayFile> OverlayFile::Open(const std::string& path, uint64_t disk_size, Access access) {
  CUBE_TRY(CheckDiskSize(path, disk_size));
  bool write = access == Access::kWrite;
  // Not blocked by a FIFO that somebody has put there.
  CUBE_ASSIGN(UniqueFd fd, OpenFile(path, (write ? O_RDWR : O_RDONLY) | O_NONBLOCK));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(fd.get(), path.c_str()));
  CUBE_TRY(LockFile(fd.get(), write, path));
  OverlayHeader header;
  CUBE_TRY(
      ReadExactAt(fd.get(), {reinterpret_cast<uint8_t*>(&header), sizeof header}, 0, path.c_str()));
  if (memcmp(header.magic, kOverlayMagic, sizeof kOverlayMagic) != 0) {
    return Errorf("%s is not an overlay", path.c_str());
  }
  if (header.version != kOverlayVersion) {
    return Errorf("%s: overlay of version %u, this is version %u", path.c_str(), header.version,
                  kOverlayVersion);
  }
  if (header.checksum != OverlayChecksum(header) || header.state > kStateLayer) {
    return Errorf("%s: the overlay's header is damaged", path.c_str());
  }
  if (header.state == kStateLayer && write) {
    return Errorf("%s is a frozen layer and cannot be written", path.c_str());
  }
  if (header.disk_size != disk_size) {
    return Errorf("%s is an overlay of a disk of %llu bytes, its base has %llu", path.c_str(),
                  static_cast<unsigned long long>(header.disk_size),
                  static_cast<unsigned long long>(disk_size));
  }
  CUBE_TRY(CheckBlockSize(path, header.block_size));
  CUBE_ASSIGN(BlockBitmap bitmap, BlockBitmap::Create(BlockCount(disk_size, header.block_size)));
  OverlayFile file(std::move(fd), path, disk_size, header.block_size, std::move(bitmap));
  if (size != file.FileOffset(disk_size)) {
    return Errorf("%s has %llu bytes, an overlay of its disk has %llu", path.c_str(),
                  static_cast<unsigned long long>(size),
                  static_cast<unsigned long long>(file.FileOffset(disk_size)));
  }
  CUBE_TRY(file.LoadBitmap());
  return file;
}

Status OverlayFile::LoadBitmap() {
  uint8_t chunk[BlockBitmap::kChunk];
  uint64_t end = data_offset_;
  for (uint64_t offset = kBitmapOffset; offset < end; offset += sizeof chunk) {
    // Holes, most of a bitmap, are passed over.
    off_t data = lseek(fd(), static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data > 0) {
      offset = std::max(offset, static_cast<uint64_t>(data) / sizeof chunk * sizeof chunk);
    }
    if (offset >= end) break;
    CUBE_TRY(ReadExactAt(fd(), chunk, offset, path_.c_str()));
    if (!bitmap_.LoadChunk((offset - kBitmapOffset) / sizeof chunk, chunk)) {
      return Errorf("%s: its bitmap has a block beyond the disk's %llu", path_.c_str(),
                    static_cast<unsigned long long>(bitmap_.blocks()));
    }
  }
  return OkStatus();
}

std::vector<OverlayFile::Piece> OverlayFile::TakeUncommitted() {
  std::vector<Piece> pieces;
  for (uint32_t chunk : bitmap_.TakeDirty()) {
    auto bytes = bitmap_.bytes().subspan(chunk * BlockBitmap::kChunk, BlockBitmap::kChunk);
    pieces.push_back({kBitmapOffset + chunk * BlockBitmap::kChunk, chunk,
                      std::vector<uint8_t>(bytes.begin(), bytes.end())});
  }
  return pieces;
}

void OverlayFile::PutBack(const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces) bitmap_.MarkDirty(piece.chunk);
}

Status OverlayFile::Commit() {
  if (fdatasync(fd()) < 0) return ErrnoError("cannot sync %s", path_.c_str());
  if (!uncommitted()) return OkStatus();
  std::vector<Piece> pieces = TakeUncommitted();
  for (const Piece& piece : pieces) {
    Status written = WriteExactAt(fd(), piece.bytes, piece.file_offset, path_);
    if (!written.ok()) {
      PutBack(pieces);
      return written;
    }
  }
  if (fdatasync(fd()) < 0) {
    PutBack(pieces);
    return ErrnoError("cannot sync %s", path_.c_str());
  }
  return OkStatus();
}

Status OverlayFile::Freeze() {
  CUBE_TRY(Commit());
  CUBE_TRY(WriteHeader(kStateLayer));
  if (fdatasync(fd()) < 0) return ErrnoError("cannot sync %s", path_.c_str());
  return LockFile(fd(), false, path_);
}

Status OverlayFile::Seal() const {
  OverlayHeader header = {};
  if (pread(fd(), &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header) &&
      header.state == kStateLayer && header.checksum == OverlayChecksum(header)) {
    return OkStatus();  // it has been, and nothing was written since
  }
  std::span<const uint8_t> bits = bitmap_.bytes();
  for (uint64_t at = 0; at < bits.size(); at += BlockBitmap::kChunk) {
    auto chunk = bits.subspan(at, BlockBitmap::kChunk);
    if (std::ranges::all_of(chunk, [](uint8_t byte) { return byte == 0; })) continue;
    CUBE_TRY(WriteExactAt(fd(), chunk, kBitmapOffset + at, path_));
  }
  return WriteHeader(kStateLayer);
}

Result<bool> OverlayFile::Link(const std::string& path) const {
  if (fchmod(fd(), 0644) < 0) return ErrnoError("%s", path_.c_str());
  const std::string self = Format("/proc/self/fd/%d", fd());
  if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return true;
  if (errno == EXDEV) return false;
  Error error = ErrnoError("cannot make %s", path.c_str());
  // Linux gives no name to a file that has had one, and has lost it (linkat(2), ENOENT).
  struct stat info;
  if (fstat(fd(), &info) == 0 && info.st_nlink == 0) return false;
  return error;
}

Status OverlayFile::Reset() {
  // Bits before blocks: a bit without its data would be a lie. A hole reads as zeros.
  for (auto [from, to] :
       {std::pair(kBitmapOffset, data_offset_), std::pair(data_offset_, FileOffset(disk_size_))}) {
    if (fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(from),
                  static_cast<off_t>(to - from)) < 0) {
      return ErrnoError("cannot empty %s", path_.c_str());
    }
  }
  bitmap_.Clear();
  return OkStatus();
}

}  // namespace cube::devices::blk
