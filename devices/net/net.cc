#include "devices/net/net.h"

#include <sys/epoll.h>
#include <sys/random.h>

#include <algorithm>
#include <mutex>
#include <utility>

namespace cube::devices {

using net::kReceiveQueue;
using net::kTransmitQueue;
using net::Stopped;

Result<MacAddress> RandomMacAddress() {
  MacAddress mac;
  if (getrandom(mac.data(), mac.size(), 0) != static_cast<ssize_t>(mac.size())) {
    return ErrnoError("getrandom");
  }
  mac[0] = static_cast<uint8_t>((mac[0] & ~1) | 2);
  return mac;
}

Net::Net(std::unique_ptr<net::Backend> backend, const NetOptions& options, vmm::EventLoop* loop)
    : backend_(std::move(backend)),
      loop_(loop),
      offloads_(options.offloads ? backend_->offloads() : 0) {
  std::ranges::copy(options.mac, config_.mac);
  config_.status = backend_->link_up() ? net::kStatusLinkUp : 0;
  config_.mtu = static_cast<uint16_t>(options.mtu);
}

Net::~Net() {
  if (watched_) loop_->Remove(backend_->fd());
}

Result<std::unique_ptr<Net>> Net::Create(std::unique_ptr<net::Backend> backend,
                                         const NetOptions& options, vmm::EventLoop* loop) {
  if (options.mtu != 0 && (options.mtu < net::kMinMtu || options.mtu > net::kMaxMtu)) {
    return Errorf("an MTU of %u is not between %u and %u", options.mtu, net::kMinMtu, net::kMaxMtu);
  }
  if ((options.mac[0] & 1) != 0) return Errorf("a multicast address is no NIC's own");
  std::unique_ptr<Net> device(new Net(std::move(backend), options, loop));
  CUBE_TRY(device->SetUp(options));
  return device;
}

Status Net::SetUp(const NetOptions& options) {
  CUBE_ASSIGN(receive_limiter_, RateLimiter::Create(options.receive, loop_, [this] {
                std::lock_guard lock(mutex());
                Receive(false);
              }));
  CUBE_ASSIGN(transmit_limiter_, RateLimiter::Create(options.transmit, loop_, [this] {
                std::lock_guard lock(mutex());
                Transmit();
              }));
  if (backend_->fd() < 0) return OkStatus();  // as if it had gone
  CUBE_TRY(loop_->Add(backend_->fd(), 0, [this](uint32_t events) { OnBackend(events); }));
  watched_ = 0;
  return OkStatus();
}

uint64_t Net::features() const {
  return net::kFeatureMac | net::kFeatureStatus | net::kFeatureMergeableBuffers |
         (config_.mtu != 0 ? net::kFeatureMtu : 0) | offloads_;
}

// On a vCPU's thread, which may not touch the event loop: the backend is waited for once the driver
// has made buffers available, and has said so.
void Net::Activate(uint64_t features) {
  receiver_.Start(features, config_.mtu != 0 ? config_.mtu : net::kDefaultMtu);
  transmitter_.Start(features);
  want_input_ = want_output_ = false;
  Status set = backend_->SetOffloads(features);
  if (!set.ok()) {
    host().Fail(set.error());
    return;
  }
  negotiated_ = features;
  active_ = true;
  quiesced_ = false;
}

Status Net::Plug(std::unique_ptr<net::Backend> backend) {
  std::lock_guard lock(mutex());
  uint64_t lacking = negotiated_ & (net::kTcpOffloads | net::kUdpOffloads) & ~backend->offloads();
  if (active_ && lacking != 0) {
    return Errorf("the driver has negotiated offloads %#llx that the network does not have",
                  static_cast<unsigned long long>(lacking));
  }
  if (active_) CUBE_TRY(backend->SetOffloads(negotiated_));
  if (backend->fd() >= 0) {
    CUBE_TRY(loop_->Add(backend->fd(), 0, [this](uint32_t events) { OnBackend(events); }));
  }
  if (watched_) loop_->Remove(backend_->fd());
  watched_.reset();
  if (backend->fd() >= 0) watched_ = 0;
  backend_ = std::move(backend);
  want_input_ = want_output_ = false;
  uint16_t status = backend_->link_up() ? net::kStatusLinkUp : 0;
  if (std::exchange(config_.status, status) != status) host().ConfigChanged();
  if (active_ && !quiesced_) {
    Receive(true);
    Transmit();
  }
  return OkStatus();
}

// Likewise; OnBackend() finds out.
void Net::Reset() {
  active_ = want_input_ = want_output_ = false;
  receiver_.Abandon();
  (void)backend_->SetOffloads(0);  // of a TAP that is gone; nothing comes from it
}

void Net::ProcessQueue(uint32_t index) {
  quiesced_ = false;
  if (index == kReceiveQueue) {
    Receive(true);
  } else if (!want_output_) {
    Transmit();
  }
}

void Net::OnBackend(uint32_t events) {
  std::lock_guard lock(mutex());
  if ((events & (EPOLLIN | EPOLLOUT)) == 0) {  // EPOLLERR, EPOLLHUP
    LinkDown();
    return;
  }
  if ((events & EPOLLIN) != 0 && want_input_) Receive(false);
  if ((events & EPOLLOUT) != 0 && want_output_) Transmit();
  Watch();
}

void Net::Receive(bool kicked) {
  if (!running()) return;
  Stopped stopped =
      receiver_.Run(host().queue(kReceiveQueue), backend_->fd(), *receive_limiter_, kicked);
  // After a batch the backend is still ready, and the loop comes by again.
  want_input_ = stopped == Stopped::kIdle || stopped == Stopped::kBatch;
  if (stopped == Stopped::kGone) {
    LinkDown();
  } else {
    Watch();
  }
}

void Net::Transmit() {
  // Nobody takes it: the frames are dropped, so that none of them waits for who is plugged in.
  if (active_ && !quiesced_ && backend_->fd() < 0 && backend_->link_up()) {
    transmitter_.Run(host().queue(kTransmitQueue), -1, *transmit_limiter_);
    return;
  }
  if (!running()) return;
  Stopped stopped =
      transmitter_.Run(host().queue(kTransmitQueue), backend_->fd(), *transmit_limiter_);
  want_output_ = stopped == Stopped::kBlocked;
  if (stopped == Stopped::kBatch) host().ProcessLater(kTransmitQueue);
  if (stopped == Stopped::kGone) {
    LinkDown();
  } else {
    Watch();
  }
}

void Net::Watch() {
  uint32_t events = 0;
  if (running() && want_input_) events |= EPOLLIN;
  if (running() && want_output_) events |= EPOLLOUT;
  if (!watched_ || *watched_ == events) return;
  Status modified = loop_->Modify(backend_->fd(), events);
  if (modified.ok()) {
    watched_ = events;
  } else {
    host().Fail(modified.error());
  }
}

// A TAP that was deleted is ready for ever, so it must not be waited for any more.
void Net::LinkDown() {
  if (!watched_) return;
  loop_->Remove(backend_->fd());
  watched_.reset();
  want_input_ = want_output_ = false;
  config_.status = 0;
  host().ConfigChanged();
}

void Net::Quiesce() {
  receiver_.GiveBack(host().queue(kReceiveQueue));
  quiesced_ = true;
  Watch();
}

void Net::Resume() {
  quiesced_ = false;
  want_input_ = want_output_ = false;
  Receive(true);
  Transmit();
}

Status Net::Save(StateWriter* state) {
  state->Put(config_);
  receive_limiter_->Save(state);
  transmit_limiter_->Save(state);
  return OkStatus();
}

// The guest knows its address and keeps it. The rest is the new host's, and the driver is told if
// that changes the link; an MTU that it has been told cannot change.
Status Net::Load(StateReader* state) {
  net::Config saved;
  CUBE_TRY(state->Get(&saved));
  if (saved.mtu != config_.mtu) {
    return Errorf("saved with an MTU of %u, not %u (0 is none)", saved.mtu, config_.mtu);
  }
  CUBE_TRY(receive_limiter_->Load(state));
  CUBE_TRY(transmit_limiter_->Load(state));
  std::ranges::copy(saved.mac, config_.mac);
  if (saved.status != config_.status) host().ConfigChanged();
  return OkStatus();
}

void Net::Metrics(const Count& count) const {
  receiver_.Metrics(count);
  transmitter_.Metrics(count);
  count("rx_limited", receive_limiter_->limited_count());
  count("tx_limited", transmit_limiter_->limited_count());
}

}  // namespace cube::devices
