#include "vmm/guest_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>

#include "vmm/memory_map.h"

namespace cube::vmm {

Result<GuestMemory> GuestMemory::Create(uint64_t ram_size) { return Map(ram_size, -1); }

Result<GuestMemory> GuestMemory::MapImage(uint64_t ram_size, int fd) {
  struct stat info;
  if (fstat(fd, &info) < 0) return ErrnoError("fstat of a memory image");
  if (static_cast<uint64_t>(info.st_size) != ImageSize(ram_size)) {
    return Errorf("a memory image of %lld bytes, %llu are wanted",
                  static_cast<long long>(info.st_size),
                  static_cast<unsigned long long>(ImageSize(ram_size)));
  }
  return Map(ram_size, fd);
}

Result<GuestMemory> GuestMemory::Map(uint64_t ram_size, int fd) {
  if (ram_size < kMinMemory || ram_size > kMaxMemory || ram_size % kPageSize != 0) {
    return Errorf("guest memory of %llu bytes is not between %llu MiB and %llu MiB",
                  static_cast<unsigned long long>(ram_size),
                  static_cast<unsigned long long>(kMinMemory / kMiB),
                  static_cast<unsigned long long>(kMaxMemory / kMiB));
  }
  GuestMemory memory;
  memory.ram_size_ = ram_size;
  memory.low_ram_end_ = std::min(ram_size, kHoleStart);
  int flags = MAP_PRIVATE | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0);
  uint64_t offset = 0;
  auto add = [&](uint64_t address, uint64_t size, bool ram) -> Status {
    CUBE_ASSIGN(Mapping mapping,
                Mapping::Map(size, PROT_READ | PROT_WRITE, flags, fd, offset, "guest memory"));
    offset += size;
    memory.regions_.push_back({address, mapping.span(), ram});
    memory.mappings_.push_back(std::move(mapping));
    return OkStatus();
  };
  CUBE_TRY(add(0, memory.low_ram_end_, true));
  if (ram_size > kHoleStart) CUBE_TRY(add(kHoleEnd, ram_size - kHoleStart, true));
  CUBE_TRY(add(abi::kMailboxAddress, abi::kMailboxSize, false));
  return memory;
}

Status GuestMemory::MapOver(uint64_t offset, uint64_t size, int fd, uint64_t file_offset) const {
  auto slice = ImageSlice(offset, size);
  if (!slice) {
    return Errorf("%llu bytes at %llu of a memory image are not within one region",
                  static_cast<unsigned long long>(size), static_cast<unsigned long long>(offset));
  }
  int flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0);
  if (mmap(slice->data(), size, PROT_READ | PROT_WRITE, flags, fd,
           static_cast<off_t>(file_offset)) == MAP_FAILED) {
    return ErrnoError("mapping %llu bytes over guest memory",
                      static_cast<unsigned long long>(size));
  }
  // A page that is touched is 4 KiB, wherever the host would give 2 MiB: an idle guest touches few.
  if (fd < 0) (void)madvise(slice->data(), size, MADV_NOHUGEPAGE);
  return OkStatus();
}

bool GuestMemory::WithinRegion(uint64_t ram_size, uint64_t offset, uint64_t size) {
  const uint64_t ends[] = {std::min(ram_size, kHoleStart), ram_size, ImageSize(ram_size)};
  for (uint64_t end : ends) {
    if (offset < end) return size <= end - offset;
  }
  return false;
}

std::optional<std::span<uint8_t>> GuestMemory::ImageSlice(uint64_t offset, uint64_t size) const {
  for (const MemoryRegion& region : regions_) {
    if (offset < region.host.size()) {
      if (size > region.host.size() - offset) return std::nullopt;
      return region.host.subspan(offset, size);
    }
    offset -= region.host.size();
  }
  return std::nullopt;
}

GuestMemory GuestMemory::Borrow(std::vector<MemoryRegion> regions) {
  GuestMemory memory;
  memory.regions_ = std::move(regions);
  for (const MemoryRegion& region : memory.regions_) {
    if (!region.ram) continue;
    memory.ram_size_ += region.host.size();
    if (region.guest_address < kHoleStart) {
      memory.low_ram_end_ =
          std::max<uint64_t>(memory.low_ram_end_, region.guest_address + region.host.size());
    }
  }
  return memory;
}

std::optional<std::span<uint8_t>> GuestMemory::Slice(uint64_t address, uint64_t size) const {
  for (const MemoryRegion& region : regions_) {
    if (address < region.guest_address) continue;
    uint64_t offset = address - region.guest_address;
    if (offset > region.host.size() || size > region.host.size() - offset) continue;
    return region.host.subspan(offset, size);
  }
  return std::nullopt;
}

bool GuestMemory::Read(uint64_t address, std::span<uint8_t> out) const {
  auto slice = Slice(address, out.size());
  if (!slice) return false;
  // An empty span's data() may be null, which memcpy does not take even for no bytes.
  if (!out.empty()) memcpy(out.data(), slice->data(), out.size());
  return true;
}

bool GuestMemory::Write(uint64_t address, std::span<const uint8_t> bytes) const {
  auto slice = Slice(address, bytes.size());
  if (!slice) return false;
  if (!bytes.empty()) memcpy(slice->data(), bytes.data(), bytes.size());
  return true;
}

bool GuestMemory::Discard(std::span<uint8_t> bytes) const {
  auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  uintptr_t end = begin + bytes.size();
  bool ram = std::any_of(regions_.begin(), regions_.end(), [&](const MemoryRegion& region) {
    auto start = reinterpret_cast<uintptr_t>(region.host.data());
    return region.ram && begin >= start && end <= start + region.host.size();
  });
  if (!ram) return false;
  begin = (begin + kPageSize - 1) & ~(kPageSize - 1);
  end &= ~(kPageSize - 1);
  return begin >= end || madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED) == 0;
}

void GuestMemory::Populate(uint64_t offset, uint64_t size) const {
  auto slice = ImageSlice(offset, size);
  if (slice) (void)madvise(slice->data(), slice->size(), MADV_POPULATE_WRITE);
}

std::span<uint8_t> GuestMemory::mailbox() const {
  for (const MemoryRegion& region : regions_) {
    if (region.guest_address == abi::kMailboxAddress && !region.ram) return region.host;
  }
  return {};
}

}  // namespace cube::vmm
