#ifndef CUBE_SNAPSHOT_TEST_SNAPSHOT_H_
#define CUBE_SNAPSHOT_TEST_SNAPSHOT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "devices/blk/disk.h"
#include "snapshot/snapshot.h"

namespace cube::snapshot {

// For tests: a machine of 32 MiB and one vCPU that never ran, and snapshots of its memory.
inline constexpr uint64_t kTestMemory = 32 << 20;

vmm::GuestMemory TestMemory();
vmm::MachineState TestState();
Manifest TestManifest();

// Publishes all of `memory`; or what is private in it, which is mapped from `parent`.
Status WriteTestBase(const std::string& path, const vmm::GuestMemory& memory);
Status WriteTestDiff(const std::string& path, const vmm::GuestMemory& memory,
                     const Snapshot& parent);

// The same of a machine with one disk over the image at `image`, whose overlay becomes a layer.
// Without a parent it is a base.
Status WriteTestSnapshot(const std::string& path, const vmm::GuestMemory& memory,
                         devices::blk::Disk* disk, const std::string& image,
                         const Snapshot* parent);

// The bytes of the whole image, as a machine that is restored from it sees them.
std::vector<uint8_t> ImageOf(const vmm::GuestMemory& memory);
std::vector<uint8_t> ImageOf(const Snapshot& snapshot);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_TEST_SNAPSHOT_H_
