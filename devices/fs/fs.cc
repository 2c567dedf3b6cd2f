#include "devices/fs/fs.h"

#include <sys/epoll.h>

#include <cctype>
#include <cstring>

namespace cube::devices::fs {

Status FsDevice::CheckTag(const std::string& tag) {
  bool good = !tag.empty() && tag.size() <= kTagSize && tag != "." && tag != "..";
  for (char c : tag) {
    good = good && (isalnum(static_cast<unsigned char>(c)) != 0 || strchr("._-", c) != nullptr);
  }
  if (good) return OkStatus();
  return Errorf("tag \"%s\": 1 to %zu of A-Z, a-z, 0-9, '.', '_' and '-' are valid", tag.c_str(),
                kTagSize);
}

Result<std::unique_ptr<FsDevice>> FsDevice::Create(const ShareConfig& config,
                                                   vmm::EventLoop* loop) {
  CUBE_TRY(CheckTag(config.tag));
  CUBE_ASSIGN(std::unique_ptr<FuseServer> server, FuseServer::Create(config));
  CUBE_ASSIGN(UniqueFd more, NewEventFd());
  std::unique_ptr<FsDevice> device(new FsDevice(std::move(server), loop, std::move(more)));
  memcpy(device->config_.tag, config.tag.data(), config.tag.size());
  device->config_.request_queues = 1;
  FsDevice* raw = device.get();
  CUBE_TRY(loop->Add(raw->more_.get(), EPOLLIN, [raw](uint32_t) { raw->OnMore(); }));
  return device;
}

FsDevice::~FsDevice() { loop_->Remove(more_.get()); }

void FsDevice::ProcessQueue(uint32_t index) {
  paused_ = false;
  virtio::Virtqueue& queue = host().queue(index);
  uint64_t before = server_->counts().bytes_read + server_->counts().bytes_written;
  uint32_t requests = 0;
  HostIdentity::Scope scope(server_->identity());
  queue.DisableKicks();
  do {
    while (queue.Pop(&chain_)) {
      queue.Push(&chain_, server_->Serve(chain_));
      uint64_t bytes = server_->counts().bytes_read + server_->counts().bytes_written - before;
      if (++requests >= kTurnRequests || bytes >= kTurnBytes) {
        ++full_turns_;
        queue.Notify();
        SignalEventFd(more_.get());
        return;
      }
    }
    queue.Notify();
  } while (queue.EnableKicks());
}

void FsDevice::OnMore() {
  std::lock_guard lock(mutex());
  if (DrainEventFd(more_.get()) == 0 || paused_) return;
  // A queue that broke has stopped the device, until the driver resets it.
  if (!host().queue(kHighPriorityQueue).usable() || !host().queue(kRequestQueue).usable()) return;
  for (uint32_t queue : {kHighPriorityQueue, kRequestQueue}) ProcessQueue(queue);
}

void FsDevice::Resume() {
  paused_ = false;
  // The notification for what is waiting may have been taken already.
  SignalEventFd(more_.get());
}

Status FsDevice::Save(StateWriter* state) {
  server_->Save(state);
  return OkStatus();
}

Status FsDevice::Load(StateReader* state) {
  HostIdentity::Scope scope(server_->identity());
  return server_->Load(state);
}

void FsDevice::Metrics(const Count& count) const {
  const FuseServer::Counts& counts = server_->counts();
  count("requests", counts.requests);
  count("errors", counts.errors);
  count("malformed", counts.malformed);
  count("bytes_read", counts.bytes_read);
  count("bytes_written", counts.bytes_written);
  count("inodes", server_->inodes());
  count("open_files", server_->handles());
  count("full_turns", full_turns_);
}

}  // namespace cube::devices::fs
