#include "guestkernel/agent/doorbell.h"

#include <sys/mman.h>

#include <utility>

namespace cube::agent {

Result<DeviceDoorbell> DeviceDoorbell::Map(int dev_mem) {
  CUBE_ASSIGN(Mapping page,
              Mapping::Map(abi::kDoorbellSize, PROT_READ | PROT_WRITE, MAP_SHARED, dev_mem,
                           abi::kDoorbellAddress, "the doorbell"));
  return DeviceDoorbell(std::move(page));
}

void DeviceDoorbell::Send(abi::Command command, uint32_t argument) {
  // What the rings hold must be there before the VMM looks. The store exits synchronously, so only
  // the compiler could get the order wrong, but the fence costs nothing next to the exit.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  *reinterpret_cast<volatile uint64_t*>(page_.data() + abi::kDoorbellCommand) =
      static_cast<uint64_t>(argument) << 32 | static_cast<uint32_t>(command);
}

void DeviceDoorbell::Notify() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  *reinterpret_cast<volatile uint32_t*>(page_.data() + abi::kDoorbellNotify) = 1;
}

}  // namespace cube::agent
