#include "devices/vsock/vsock.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace cube::devices {

using vsock::HostClient;
using vsock::Ports;
using vsock::UnixListener;

namespace {

// Host ports of clients' connections: the upper half, which leaves the lower one to services.
constexpr uint32_t kFirstClientPort = 1u << 30;
constexpr uint32_t kLastClientPort = (1u << 31) - 1;

// Where a device begins: a guest that was restored may still have a connection of its life before,
// which has ended here and whose program has yet to close it. It would refuse another one with the
// same ports. A later device on this host begins elsewhere.
uint32_t FirstHostPort(uint64_t now_ns) {
  constexpr uint64_t kMicrosecond = 1000;
  return kFirstClientPort +
         static_cast<uint32_t>(now_ns / kMicrosecond % (kLastClientPort - kFirstClientPort + 1));
}

constexpr size_t kPortDigits = 11;  // "_4294967295"
// Restores in a row of a guest that has not run long enough to notice any.
constexpr uint32_t kMaxUnhandled = 1024;

constexpr uint64_t kMillisecond = 1'000'000;
// Between two tries to connect to a listener of the host's that has no room.
constexpr uint64_t kRetry = 10 * kMillisecond;
// Until clients are accepted again after the process ran out of descriptors.
constexpr uint64_t kAcceptPause = 100 * kMillisecond;

// For a client that has just connected, whose socket has room.
void Tell(int fd, std::string_view line) {
  (void)send(fd, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

struct SavedVsock {
  uint64_t guest_cid;
  uint32_t connections;  // and resets the guest is owed
  uint32_t resets_unhandled;
};

}  // namespace

size_t Vsock::MaxPath() { return vsock::MaxUnixPath() - kPortDigits; }

Result<std::unique_ptr<Vsock>> Vsock::Create(VsockConfig config, vmm::EventLoop* loop) {
  if (config.guest_cid < vsock::kFirstGuestCid || config.guest_cid > vsock::kLastGuestCid) {
    return Errorf("guest CID %llu is not one of %llu to %llu",
                  static_cast<unsigned long long>(config.guest_cid),
                  static_cast<unsigned long long>(vsock::kFirstGuestCid),
                  static_cast<unsigned long long>(vsock::kLastGuestCid));
  }
  if (config.path.size() > MaxPath() || (config.path.empty() && !config.listener.valid())) {
    return Errorf("socket path of %zu bytes, 1 to %zu are possible", config.path.size(), MaxPath());
  }
  auto listener = config.listener.valid() ? UnixListener::Adopt(std::move(config.listener))
                                          : UnixListener::Bind(config.path);
  if (!listener.ok()) return listener.error();
  CUBE_ASSIGN(UniqueFd work, NewEventFd());
  CUBE_ASSIGN(vmm::Timer timer, vmm::Timer::Create());
  std::unique_ptr<Vsock> vsock(
      new Vsock(std::move(config), std::move(*listener), std::move(work), std::move(timer), loop));
  CUBE_TRY(vsock->WatchOwn());
  return vsock;
}

Vsock::Vsock(VsockConfig config, UnixListener listener, UniqueFd work, vmm::Timer timer,
             vmm::EventLoop* loop)
    : config_(std::move(config)),
      listener_(std::move(listener)),
      work_(std::move(work)),
      timer_(std::move(timer)),
      loop_(loop),
      next_host_port_(FirstHostPort(Now())) {}

uint64_t Vsock::Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

Status Vsock::WatchOwn() {
  CUBE_TRY(loop_->Add(work_.get(), EPOLLIN, [this](uint32_t) {
    std::lock_guard lock(mutex());
    DrainEventFd(work_.get());
    Work();
  }));
  CUBE_TRY(loop_->Add(timer_.fd(), EPOLLIN, [this](uint32_t) {
    std::lock_guard lock(mutex());
    timer_.Acknowledge();
    OnTimer();
  }));
  WatchListener();
  return OkStatus();
}

Vsock::~Vsock() {
  Reset();
  Bury();
  for (const auto& connection : lingering_) {
    if (connection->watched) loop_->Remove(connection->fd());
  }
  loop_->Remove(work_.get());
  loop_->Remove(timer_.fd());
  if (listening_) loop_->Remove(listener_.fd());
  for (const auto& [fd, client] : clients_) loop_->Remove(fd);
}

void Vsock::ReadConfig(uint32_t offset, std::span<uint8_t> out) {
  virtio::ReadConfigFrom(vsock::Config{config_.guest_cid}, offset, out);
}

void Vsock::Activate(uint64_t) { active_ = true; }

// Perhaps on a vCPU's thread: the event loop lets go of the sockets when it comes to it.
void Vsock::Reset() {
  active_ = paused_ = broken_ = false;
  for (auto& [key, connection] : connections_) {
    connection->Kill();
    dead_.push_back(std::move(connection));
  }
  connections_.clear();
  resets_.clear();
  transmit_pending_ = reset_event_due_ = holding_ = false;
  resets_unhandled_ = 0;
  SignalEventFd(work_.get());
}

// ---- saved state

// Nothing is under way between two events; what comes from the host is left in its sockets.
void Vsock::Quiesce() {
  if (paused_) return;
  paused_ = true;
  paused_at_ = Now();
  for (auto& [key, connection] : connections_) UpdateWatched(connection.get());
  for (auto& [fd, client] : clients_) loop_->Remove(fd);
  WatchListener();
}

void Vsock::Resume() {
  if (!paused_) return;
  paused_ = false;
  uint64_t pause = Now() - paused_at_;
  for (auto& [key, connection] : connections_) {
    if (connection->deadline != 0) connection->deadline += pause;
    if (connection->retry_until != 0) connection->retry_until += pause;
    Touch(connection.get());
  }
  for (auto& [fd, client] : clients_) {
    client.Postpone(pause);
    (void)loop_->Add(fd, EPOLLIN, [this, fd = fd](uint32_t) { OnClient(fd); });
  }
  transmit_pending_ = true;
  if (holding_) hold_until_ = Now() + config_.timeout;
  armed_ = 0;
  OnTimer();
}

Status Vsock::Save(StateWriter* state) {
  SavedVsock saved = {};
  saved.guest_cid = config_.guest_cid;
  saved.connections = static_cast<uint32_t>(connections_.size() + resets_.size());
  bool handled = holding_ && !reset_event_due_ && ResetsHandled();
  saved.resets_unhandled = handled ? 0 : resets_unhandled_ + (reset_event_due_ ? 1 : 0);
  state->Put(saved);
  return OkStatus();
}

Status Vsock::Load(StateReader* state) {
  SavedVsock saved;
  CUBE_TRY(state->Get(&saved));
  if (saved.resets_unhandled > kMaxUnhandled) {
    return Errorf("%u resets not handled, at most %u are valid", saved.resets_unhandled,
                  kMaxUnhandled);
  }
  if (!active_) return OkStatus();
  paused_ = true;  // until Resume()
  paused_at_ = Now();
  WatchListener();
  // The driver reads its CID again when it resets its sockets. Not otherwise: a clone of a guest
  // that had no connection is not woken for nothing.
  if (saved.connections != 0 || saved.resets_unhandled != 0 ||
      saved.guest_cid != config_.guest_cid) {
    resets_unhandled_ = saved.resets_unhandled;
    reset_event_due_ = holding_ = true;
  }
  return OkStatus();
}

void Vsock::Metrics(const Count& count) const {
  count("connections", connections_.size());
  count("from_host", counts_.from_host);
  count("from_guest", counts_.from_guest);
  count("refused", counts_.refused);
  count("resets", counts_.resets);
  count("timeouts", counts_.timeouts);
  count("malformed", counts_.malformed);
  count("packets_to_guest", counts_.packets_to_guest);
  count("packets_from_guest", counts_.packets_from_guest);
  count("bytes_to_guest", counts_.bytes_to_guest);
  count("bytes_from_guest", counts_.bytes_to_host);
}

// ---- connections

Vsock::Connection* Vsock::Find(Ports ports) {
  auto found = connections_.find(ports.key());
  return found == connections_.end() ? nullptr : found->second.get();
}

bool Vsock::Full() const {
  return connections_.size() + clients_.size() + lingering_.size() >= kMaxConnections;
}

Vsock::Connection* Vsock::Add(Ports ports, State state, UniqueFd fd) {
  uint32_t buffer = connections_.size() < kLargeBuffers ? kLargeBuffer : kSmallBuffer;
  auto& connection = connections_[ports.key()];
  connection = std::make_unique<Connection>(ports, config_.guest_cid, buffer, state, std::move(fd));
  Touch(connection.get());
  return connection.get();
}

void Vsock::ConnectToHost(const Header& request) {
  Ports ports = {request.src_port, request.dst_port};
  if (Full() || config_.path.empty()) {
    ++counts_.refused;
    Refuse(request);
    return;
  }
  UniqueFd fd = vsock::ConnectUnix(config_.path + "_" + std::to_string(ports.host));
  Connection* connection;
  if (fd.valid()) {
    connection = Add(ports, State::kEstablished, std::move(fd));
    ++counts_.from_guest;
  } else if (errno == EAGAIN) {
    connection = Add(ports, State::kBusy, UniqueFd());
    uint64_t now = Now();
    connection->retry_until = now + config_.timeout;
    connection->deadline = now + kRetry;
    Arm(connection->deadline);
  } else {
    ++counts_.refused;
    Refuse(request);
    return;
  }
  if (!connection->UpdateCredit(request)) Abort(connection);
}

void Vsock::RetryConnect(Connection* connection, uint64_t now) {
  UniqueFd fd = vsock::ConnectUnix(config_.path + "_" + std::to_string(connection->ports().host));
  if (fd.valid()) {
    connection->deadline = 0;
    connection->Accept(std::move(fd));
    ++counts_.from_guest;
    Touch(connection);
  } else if (errno == EAGAIN && now < connection->retry_until) {
    connection->deadline = now + kRetry;
  } else {
    ++counts_.refused;
    Abort(connection);
  }
}

uint32_t Vsock::NextHostPort(uint32_t guest_port) {
  // More ports than there can be connections: one is free.
  for (;;) {
    uint32_t port = next_host_port_;
    next_host_port_ = port == kLastClientPort ? kFirstClientPort : port + 1;
    if (Find({guest_port, port}) == nullptr) return port;
  }
}

void Vsock::ConnectToGuest(UniqueFd fd, uint32_t port) {
  if (!active_) return;  // as if nobody listened
  Connection* connection = Add({port, NextHostPort(port)}, State::kRequested, std::move(fd));
  connection->deadline = Now() + config_.timeout;
  Arm(connection->deadline);
}

void Vsock::GuestAccepted(Connection* connection) {
  connection->deadline = 0;
  connection->GuestAccepted();
  Tell(connection->fd(), "OK " + std::to_string(connection->ports().host) + "\n");
  ++counts_.from_host;
  Touch(connection);
}

void Vsock::Refuse(const Header& header) {
  Header reply = {};
  reply.src_cid = header.dst_cid;
  reply.dst_cid = header.src_cid;
  reply.src_port = header.dst_port;
  reply.dst_port = header.src_port;
  reply.type = header.type;
  reply.op = vsock::kOpReset;
  resets_.push_back(reply);
}

void Vsock::Abort(Connection* connection) {
  if (connection->known_to_guest()) {
    resets_.push_back(connection->MakeHeader(vsock::kOpReset));
  }
  connection->Kill();
  Forget(connection);
}

void Vsock::Forget(Connection* connection) {
  auto found = connections_.find(connection->ports().key());
  auto& list = connection->state() == State::kLingering ? lingering_ : dead_;
  list.push_back(std::move(found->second));
  connections_.erase(found);
  Touch(connection);
}

void Vsock::Touch(Connection* connection) {
  if (!connection->queued && connection->HasWork()) {
    connection->queued = true;
    ready_.push_back(connection);
  }
  if (!connection->dirty) {
    connection->dirty = true;
    dirty_.push_back(connection);
  }
}

void Vsock::UpdateWatched(Connection* connection) {
  bool idle = paused_ && connection->state() != State::kLingering;
  auto wanted = idle ? std::nullopt : connection->WantedEvents();
  if (wanted == connection->watched) return;
  if (!wanted) {
    loop_->Remove(connection->fd());
  } else if (connection->watched) {
    (void)loop_->Modify(connection->fd(), *wanted);
  } else if (!loop_
                  ->Add(connection->fd(), *wanted,
                        [this, connection](uint32_t events) { OnSocket(connection, events); })
                  .ok()) {
    return;  // out of kernel memory: tried again at the next change
  }
  connection->watched = wanted;
}

// Lets go of the dead, on the event loop's thread.
void Vsock::Bury() {
  if (dead_.empty()) return;
  std::erase_if(ready_, [](Connection* c) { return c->state() == State::kDead; });
  std::erase_if(dirty_, [](Connection* c) { return c->state() == State::kDead; });
  for (const auto& connection : dead_) {
    if (connection->watched) loop_->Remove(connection->fd());
  }
  dead_.clear();
}

// ---- events of the host's

void Vsock::OnSocket(Connection* connection, uint32_t events) {
  std::lock_guard lock(mutex());
  if (connection->state() == State::kDead) return;  // reset by the guest meanwhile
  bool lingers = connection->state() == State::kLingering;
  if ((events & EPOLLIN) != 0) connection->SetReadable();
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) connection->Flush();
  if (lingers) {
    if (connection->state() == State::kDead) {
      auto found = std::ranges::find(lingering_, connection, &std::unique_ptr<Connection>::get);
      dead_.push_back(std::move(*found));
      lingering_.erase(found);
    }
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0 && connection->CheckHangUp() &&
             connection->state() == State::kRequested) {
    Abort(connection);
  }
  Touch(connection);
  Work();
}

void Vsock::WatchListener() {
  bool wanted = !paused_ && !holding_ && accept_after_ == 0;
  if (wanted == listening_) return;
  listening_ = wanted;
  if (!wanted) {
    loop_->Remove(listener_.fd());
  } else if (!loop_->Add(listener_.fd(), EPOLLIN, [this](uint32_t) { OnAccept(); }).ok()) {
    listening_ = false;
  }
}

void Vsock::OnAccept() {
  std::lock_guard lock(mutex());
  // One at a time: if there are more, the event loop says so.
  UniqueFd fd(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd.valid()) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      accept_after_ = Now() + kAcceptPause;
      Arm(accept_after_);
      WatchListener();
    }
    return;
  }
  if (Full()) {
    ++counts_.refused;
    Tell(fd.get(), "ERR " + std::to_string(kMaxConnections) +
                       " connections are open, the most there can be\n");
    return;
  }
  int number = fd.get();
  if (!loop_->Add(number, EPOLLIN, [this, number](uint32_t) { OnClient(number); }).ok()) return;
  uint64_t deadline = Now() + config_.timeout;
  clients_.emplace(number, HostClient(std::move(fd), deadline));
  Arm(deadline);
}

void Vsock::OnClient(int fd) {
  std::lock_guard lock(mutex());
  auto found = clients_.find(fd);
  if (found == clients_.end()) return;
  switch (found->second.Read()) {
    case HostClient::Progress::kMore:
      return;
    case HostClient::Progress::kBad:
      ++counts_.refused;
      DropClient(fd, "ERR expected CONNECT <port>\n");
      return;
    case HostClient::Progress::kPort:
      break;
  }
  uint32_t port = found->second.port();
  UniqueFd socket = found->second.TakeFd();
  loop_->Remove(fd);
  clients_.erase(found);
  ConnectToGuest(std::move(socket), port);
  Work();
}

void Vsock::DropClient(int fd, const char* reason) {
  Tell(fd, reason);
  loop_->Remove(fd);
  clients_.erase(fd);
}

void Vsock::Arm(uint64_t deadline) {
  if (armed_ != 0 && armed_ <= deadline) return;
  armed_ = deadline;
  uint64_t now = Now();
  (void)timer_.Set(deadline > now ? deadline - now : 1);
}

void Vsock::OnTimer() {
  armed_ = 0;
  if (paused_) return;  // Resume() comes here again
  uint64_t now = Now();
  uint64_t next = ~0ull;
  // False if `deadline` is there and has passed.
  auto lasts = [&](uint64_t deadline) {
    if (deadline == 0) return true;
    if (deadline <= now) return false;
    next = std::min(next, deadline);
    return true;
  };
  if (!lasts(accept_after_)) accept_after_ = 0;
  if (holding_ && !lasts(hold_until_)) StopHolding();
  std::vector<int> late_clients;
  for (const auto& [fd, client] : clients_) {
    if (!lasts(client.deadline())) late_clients.push_back(fd);
  }
  std::vector<Connection*> late;
  for (const auto& [key, connection] : connections_) {
    if (!lasts(connection->deadline)) late.push_back(connection.get());
  }
  for (int fd : late_clients) {
    ++counts_.timeouts;
    DropClient(fd, "ERR no CONNECT <port> in time\n");
  }
  for (Connection* connection : late) {
    if (connection->state() == State::kBusy) {
      RetryConnect(connection, now);
      if (connection->state() == State::kBusy) lasts(connection->deadline);
    } else {
      ++counts_.timeouts;
      Abort(connection);
    }
  }
  if (next != ~0ull) Arm(next);
  Work();
}

// The driver has reset its sockets, or takes too long about it.
void Vsock::StopHolding() {
  holding_ = false;
  resets_unhandled_ = 0;
}

}  // namespace cube::devices
