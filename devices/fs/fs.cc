#include "devices/fs/fs.h"

#include <sys/epoll.h>

#include <cctype>
#include <cstring>
#include <optional>

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
  std::unique_ptr<FuseServer> server;
  if (!config.directory.empty()) {
    CUBE_ASSIGN(server, FuseServer::Create(config));
  }
  CUBE_ASSIGN(UniqueFd more, NewEventFd());
  std::unique_ptr<FsDevice> device(new FsDevice(config, std::move(server), loop, std::move(more)));
  memcpy(device->config_.tag, config.tag.data(), config.tag.size());
  device->config_.request_queues = 1;
  FsDevice* raw = device.get();
  CUBE_TRY(loop->Add(raw->more_.get(), EPOLLIN, [raw](uint32_t) { raw->OnMore(); }));
  return device;
}

FsDevice::~FsDevice() { loop_->Remove(more_.get()); }

Status FsDevice::Plug(UniqueFd directory) {
  std::lock_guard lock(mutex());
  if (server_ != nullptr) {
    return Errorf("share %s has a directory already", share_.tag.c_str());
  }
  CUBE_ASSIGN(std::unique_ptr<FuseServer> server, FuseServer::Over(share_, std::move(directory)));
  if (!session_.empty()) CUBE_TRY(LoadInto(server.get(), session_));
  server_ = std::move(server);
  session_ = {};
  return OkStatus();
}

Status FsDevice::LoadInto(FuseServer* server, std::span<const uint8_t> session) const {
  HostIdentity::Scope scope(server->identity());
  StateReader reader(session, "share " + share_.tag + "'s state");
  CUBE_TRY(server->Load(&reader));
  return reader.End();
}

uint64_t FsDevice::BytesMoved() const {
  if (server_ == nullptr) return 0;
  return server_->counts().bytes_read + server_->counts().bytes_written;
}

void FsDevice::ProcessQueue(uint32_t index) {
  paused_ = false;
  virtio::Virtqueue& queue = host().queue(index);
  uint64_t before = BytesMoved();
  uint32_t requests = 0;
  std::optional<HostIdentity::Scope> scope;
  if (server_ != nullptr) scope.emplace(server_->identity());
  queue.DisableKicks();
  do {
    while (queue.Pop(&chain_)) {
      queue.Push(&chain_, server_ != nullptr ? server_->Serve(chain_) : FuseServer::Refuse(chain_));
      if (++requests >= kTurnRequests || BytesMoved() - before >= kTurnBytes) {
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

void FsDevice::Reset() {
  session_ = {};
  if (server_ != nullptr) server_->Reset();
}

Status FsDevice::Save(StateWriter* state) {
  if (server_ != nullptr) {
    server_->Save(state);
  } else {
    state->PutRest(session_);
  }
  return OkStatus();
}

// Of a device that never had a directory there is nothing. What is kept for Plug() is looked at
// there.
Status FsDevice::Load(StateReader* state) {
  std::span<const uint8_t> session = state->TakeRest();
  if (server_ == nullptr) {
    session_.assign(session.begin(), session.end());
    return OkStatus();
  }
  if (session.empty()) {
    server_->Reset();
    return OkStatus();
  }
  return LoadInto(server_.get(), session);
}

void FsDevice::Metrics(const Count& count) const {
  if (server_ == nullptr) return;
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
