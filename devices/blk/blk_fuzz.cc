#include "devices/blk/blk.h"
#include "devices/blk/testing/scratch.h"
#include "devices/virtio/testing/device_fuzz.h"

namespace {

using namespace cube::devices;

// The input's first byte chooses the kind of disk; the rest is the guest's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const blk::testing::Scratch scratch;
  static const std::string base = scratch.Write("base", blk::testing::Pattern(64 * 1024, 1));
  if (size == 0) return 0;
  blk::DiskFiles files = {.base = base};
  if ((data[0] & 3) == 0) files.read_only = true;
  if ((data[0] & 3) > 1) {
    files.overlay = scratch.Path("overlay");
    files.new_block_size = (data[0] & 3) == 2 ? 4096 : 16384;
  }
  BlkOptions options = {
      .id = "fuzz",
      .engine = (data[0] & 4) != 0 ? blk::IoEngine::Kind::kThread : blk::IoEngine::Kind::kAuto};
  virtio::fake::FuzzDevice({data + 1, size - 1}, [&](cube::vmm::EventLoop* loop) {
    return Blk::Create(blk::Disk::Open(files).value(), options, loop).value();
  });
  if (!files.overlay.empty()) {
    // Whatever the guest did, the file it left is one.
    if (!blk::Disk::Open(files).ok()) __builtin_trap();
    std::filesystem::remove(files.overlay);
  }
  return 0;
}

}  // namespace
