#ifndef CUBE_VMM_BUS_H_
#define CUBE_VMM_BUS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace cube::vmm {

// What answers accesses to a range of a bus. Called on the vCPU threads, several at once: an
// implementation locks for itself. `offset` is within the range; `data` is 1, 2, 4 or 8 bytes,
// little-endian, and may reach past the range's end by what an unaligned access does.
class BusDevice {
 public:
  virtual ~BusDevice() = default;
  virtual void Read(uint64_t offset, std::span<uint8_t> data) = 0;
  virtual void Write(uint64_t offset, std::span<const uint8_t> data) = 0;
};

// An address space of devices: I/O ports or MMIO. Filled before the vCPUs start, constant after.
class Bus {
 public:
  // `device` answers [start, start + size) and must outlive the bus's use. An overlap is an error.
  Status Attach(uint64_t start, uint64_t size, BusDevice* device);

  // What nobody answers reads as all ones, and writes to it are lost, as on a real bus.
  void Read(uint64_t address, std::span<uint8_t> data) const;
  void Write(uint64_t address, std::span<const uint8_t> data) const;
  // Whether a device answers at `address`.
  bool Claims(uint64_t address) const { return Find(address) != nullptr; }

 private:
  struct Range {
    uint64_t start;
    uint64_t size;
    BusDevice* device;
  };
  const Range* Find(uint64_t address) const;

  std::vector<Range> ranges_;  // by start
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_BUS_H_
