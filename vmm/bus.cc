#include "vmm/bus.h"

#include <algorithm>

namespace cube::vmm {

Status Bus::Attach(uint64_t start, uint64_t size, BusDevice* device) {
  if (size == 0 || start + size < start) {
    return Errorf("bus range at %#llx of %#llx bytes is not a range",
                  static_cast<unsigned long long>(start), static_cast<unsigned long long>(size));
  }
  auto after = std::find_if(ranges_.begin(), ranges_.end(),
                            [&](const Range& range) { return range.start >= start; });
  bool overlaps = after != ranges_.end() && after->start < start + size;
  if (after != ranges_.begin()) {
    auto before = after - 1;
    overlaps = overlaps || before->start + before->size > start;
  }
  if (overlaps) {
    return Errorf("bus range at %#llx of %#llx bytes is taken",
                  static_cast<unsigned long long>(start), static_cast<unsigned long long>(size));
  }
  ranges_.insert(after, {start, size, device});
  return OkStatus();
}

const Bus::Range* Bus::Find(uint64_t address) const {
  auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                [](uint64_t a, const Range& range) { return a < range.start; });
  if (after == ranges_.begin()) return nullptr;
  const Range& range = *(after - 1);
  return address - range.start < range.size ? &range : nullptr;
}

void Bus::Read(uint64_t address, std::span<uint8_t> data) const {
  const Range* range = Find(address);
  if (range == nullptr) {
    std::fill(data.begin(), data.end(), 0xff);
    return;
  }
  range->device->Read(address - range->start, data);
}

void Bus::Write(uint64_t address, std::span<const uint8_t> data) const {
  const Range* range = Find(address);
  if (range != nullptr) range->device->Write(address - range->start, data);
}

}  // namespace cube::vmm
