#ifndef CUBE_DEVICES_FS_FS_H_
#define CUBE_DEVICES_FS_FS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/fs/fuse_server.h"
#include "devices/fs/spec.h"
#include "devices/virtio/device.h"
#include "vmm/event_loop.h"

namespace cube::devices::fs {

// The file system device (virtio 1.2 section 5.11): a directory of the host's, served by a
// FuseServer on the event loop. A turn is bounded in requests and bytes, and a full one is followed
// by another only after the loop has looked after its other descriptors.
class FsDevice : public virtio::Device {
 public:
  // What the guest mounts the share by: 1 to 36 of A-Z, a-z, 0-9, '.', '_' and '-', not "." or
  // "..", for it becomes a folder's name there.
  static Status CheckTag(const std::string& tag);

  // `loop` outlives the device. Without a directory it answers EIO to whatever it is asked, until
  // it is plugged in. Errors name the directory or tag.
  static Result<std::unique_ptr<FsDevice>> Create(const ShareConfig& config, vmm::EventLoop* loop);
  ~FsDevice() override;

  // Gives it the directory, open, that it has none of. A session that was loaded goes on there, as
  // in another directory than that it was saved from, unless it is the same. After an error it is
  // as it was. On the event loop's thread, without mutex().
  Status Plug(UniqueFd directory);

  const ShareConfig& share() const { return share_; }

  uint32_t id() const override { return virtio::kDeviceFs; }
  uint64_t features() const override { return 0; }
  // A request of kMaxTransfer has 256 pages, and the guest's kernel adds headers.
  std::vector<uint16_t> queue_sizes() const override { return {64, 512}; }
  void ReadConfig(uint32_t offset, std::span<uint8_t> out) override {
    virtio::ReadConfigFrom(config_, offset, out);
  }
  void Activate(uint64_t) override {}
  void Reset() override;
  void ProcessQueue(uint32_t index) override;
  void Quiesce() override { paused_ = true; }
  void Resume() override;
  uint32_t state_version() const override { return 1; }
  Status Save(StateWriter* state) override;
  Status Load(StateReader* state) override;
  void Metrics(const Count& count) const override;

 private:
  FsDevice(ShareConfig share, std::unique_ptr<FuseServer> server, vmm::EventLoop* loop,
           UniqueFd more)
      : share_(std::move(share)), server_(std::move(server)), loop_(loop), more_(std::move(more)) {}

  void OnMore();

  Status LoadInto(FuseServer* server, std::span<const uint8_t> session) const;
  uint64_t BytesMoved() const;

  const ShareConfig share_;
  std::unique_ptr<FuseServer> server_;  // null: not plugged in
  std::vector<uint8_t> session_;        // without a server: the one that was loaded
  vmm::EventLoop* loop_;
  UniqueFd more_;  // an eventfd: a turn was full
  Config config_ = {};
  bool paused_ = false;
  virtio::DescriptorChain chain_;
  uint64_t full_turns_ = 0;
};

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_FS_H_
