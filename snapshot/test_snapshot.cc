#include "snapshot/test_snapshot.h"

#include "snapshot/page_scan.h"
#include "snapshot/publish.h"
#include "snapshot/snapshot_writer.h"

namespace cube::snapshot {

vmm::GuestMemory TestMemory() { return vmm::GuestMemory::Create(kTestMemory).value(); }

vmm::MachineState TestState() {
  vmm::MachineState state;
  for (uint32_t i = 0; i < 3; ++i) state.vm.chips[i].chip_id = i;
  state.vcpus.resize(1);
  state.serial = {1, 2, 3};
  state.devices.resize(TestManifest().devices.size());
  return state;
}

Manifest TestManifest() {
  Manifest manifest;
  manifest.memory_bytes = kTestMemory;
  manifest.cpus = 1;
  manifest.ring0 = "engine";
  manifest.devices = manifest.hardware.DeviceNames();
  return manifest;
}

Status WriteTestBase(const std::string& path, const vmm::GuestMemory& memory) {
  CUBE_ASSIGN(SnapshotWriter writer, SnapshotWriter::Create(path, TestManifest()));
  CUBE_ASSIGN(std::vector<PageRun> runs, PrivateRuns(memory));
  CUBE_TRY(writer.WriteBase(TestState(), memory, runs));
  CUBE_ASSIGN(std::string id, writer.Publish(false));
  return OkStatus();
}

Status WriteTestDiff(const std::string& path, const vmm::GuestMemory& memory,
                     const Snapshot& parent) {
  CUBE_ASSIGN(SnapshotWriter writer, SnapshotWriter::Create(path, TestManifest()));
  CUBE_ASSIGN(std::vector<PageRun> runs, PrivateRuns(memory));
  CUBE_TRY(writer.WriteDiff(TestState(), memory, runs, parent));
  CUBE_ASSIGN(std::string id, writer.Publish(false));
  return OkStatus();
}

Status WriteTestSnapshot(const std::string& path, const vmm::GuestMemory& memory,
                         devices::blk::Disk* disk, const std::string& image,
                         const Snapshot* parent) {
  Manifest about = TestManifest();
  DiskHardware root;
  root.name = "vda";
  CUBE_ASSIGN(OutsideFile file, OutsideFile::Of(disk->stack().image->get(), image));
  root.files = {file};
  about.hardware.disks = {root};
  about.devices = about.hardware.DeviceNames();
  vmm::MachineState state = TestState();
  state.devices.resize(about.devices.size());
  CUBE_ASSIGN(SnapshotWriter writer, SnapshotWriter::Create(path, std::move(about)));
  CUBE_ASSIGN(std::vector<PageRun> runs, PrivateRuns(memory));
  CUBE_TRY(parent != nullptr ? writer.WriteDiff(state, memory, runs, *parent)
                             : writer.WriteBase(state, memory, runs));
  CUBE_ASSIGN(devices::blk::DiskStack captured, disk->Capture(FolderOf(path)));
  CUBE_TRY(writer.WriteDisks({captured}, parent));
  CUBE_ASSIGN(std::string id, writer.Publish(false));
  return OkStatus();
}

std::vector<uint8_t> ImageOf(const vmm::GuestMemory& memory) {
  std::vector<uint8_t> image;
  for (const vmm::MemoryRegion& region : memory.regions()) {
    image.insert(image.end(), region.host.begin(), region.host.end());
  }
  return image;
}

std::vector<uint8_t> ImageOf(const Snapshot& snapshot) {
  return ImageOf(snapshot.MapMemory().value());
}

}  // namespace cube::snapshot
