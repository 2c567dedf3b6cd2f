#include "vmm/cli/machine_disks.h"

#include <algorithm>

#include "devices/blk/blk.h"
#include "vmm/cli/cube_home.h"

namespace cube::vmm {

using ::cube::devices::blk::CopyBlocks;
using ::cube::devices::blk::Disk;
using ::cube::devices::blk::DiskStack;
using ::cube::devices::blk::OverlayFile;

namespace {

// Layers of a disk's own, above those it was cloned from, before they are made one.
constexpr size_t kMaxOwnLayers = 24;

// Makes those from `first` on one, by copying what they hold.
Status MergeLayers(Disk* disk, size_t first) {
  CUBE_ASSIGN(OverlayFile merged,
              OverlayFile::CreateTemporary(ScratchFolder(), disk->size(),
                                           disk->layers().back()->block_size()));
  std::vector<const OverlayFile*> from;
  for (size_t i = first; i < disk->layers().size(); ++i) from.push_back(disk->layers()[i].get());
  CUBE_TRY(CopyBlocks(from, &merged));
  disk->Squash(first, from.size(), std::make_shared<const OverlayFile>(std::move(merged)));
  return OkStatus();
}

}  // namespace

std::vector<Disk*> DisksOf(const Machine& machine) {
  std::vector<Disk*> disks;
  for (const auto& transport : machine.virtio()) {
    if (transport->device().id() != ::cube::devices::virtio::kDeviceBlock) break;
    disks.push_back(&static_cast<::cube::devices::Blk&>(transport->device()).disk());
  }
  return disks;
}

std::vector<::cube::devices::fs::FsDevice*> VolumeSharesOf(const Machine& machine) {
  std::vector<::cube::devices::fs::FsDevice*> shares;
  for (const auto& transport : machine.virtio()) {
    if (transport->device().id() != ::cube::devices::virtio::kDeviceFs) continue;
    auto* device = static_cast<::cube::devices::fs::FsDevice*>(&transport->device());
    if (device->share().directory.empty()) shares.push_back(device);
  }
  return shares;
}

std::vector<::cube::devices::Net*> NicsOf(const Machine& machine) {
  std::vector<::cube::devices::Net*> nics;
  for (const auto& transport : machine.virtio()) {
    if (transport->device().id() != ::cube::devices::virtio::kDeviceNet) continue;
    nics.push_back(static_cast<::cube::devices::Net*>(&transport->device()));
  }
  return nics;
}

Result<std::vector<DiskStack>> CaptureDisks(Machine* machine, const snapshot::Hardware& hardware,
                                            const snapshot::Snapshot* base) {
  std::vector<DiskStack> stacks;
  std::vector<Disk*> disks = DisksOf(*machine);
  for (size_t i = 0; i < disks.size(); ++i) {
    Disk* disk = disks[i];
    size_t first =
        base != nullptr ? base->disks()[i].layers.size() : hardware.disks[i].files.size() - 1;
    if (disk->layers().size() >= first + kMaxOwnLayers) CUBE_TRY(MergeLayers(disk, first));
    auto stack = disk->Capture(ScratchFolder());
    if (!stack.ok()) return Error(stack.error()).Wrap("disk " + hardware.disks[i].name);
    stacks.push_back(std::move(*stack));
  }
  return stacks;
}

Status RebaseDisks(Machine* machine, const snapshot::Snapshot& target) {
  std::vector<Disk*> disks = DisksOf(*machine);
  if (disks.size() != target.disks().size()) {
    return Errorf("%s has %zu disks, the machine %zu", target.path().c_str(), target.disks().size(),
                  disks.size());
  }
  for (size_t i = 0; i < disks.size(); ++i) CUBE_TRY(disks[i]->Rebase(target.disks()[i]));
  return OkStatus();
}

void CapturedDisks::Squash(const std::vector<Disk*>& disks, const snapshot::Hardware& hardware,
                           const std::string& path) const {
  for (size_t i = 0; i < stacks.size(); ++i) {
    const auto& captured = stacks[i].layers;
    const auto& now = disks[i]->layers();
    size_t first = base->disks()[i].layers.size();
    size_t own = captured.size() - first;
    if (own < 2 || now.size() < captured.size() ||
        !std::equal(captured.begin(), captured.end(), now.begin())) {
      continue;
    }
    auto layer = OverlayFile::Open(path + "/" + hardware.disks[i].layer_name(), disks[i]->size(),
                                   OverlayFile::Access::kReadOnly);
    if (!layer.ok()) continue;
    disks[i]->Squash(first, own, std::make_shared<const OverlayFile>(std::move(*layer)));
  }
}

}  // namespace cube::vmm
