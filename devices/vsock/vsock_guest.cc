#include "devices/vsock/vsock_guest.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace cube::devices::vsock::testing {
namespace {

using virtio::fake::FakeDriver;

std::string NewFolder() {
  const char* base = getenv("TEST_TMPDIR");
  // A socket's path is short, and a test's folder may not be.
  std::string name = "/tmp/vsock-XXXXXX";
  if (base != nullptr && strlen(base) < 40) name = std::string(base) + "/vsock-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) abort();
  return name;
}

sockaddr_un Address(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) abort();
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

}  // namespace

std::string Pattern(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
  return bytes;
}

VsockGuest::VsockGuest(uint64_t timeout, uint32_t receive_buffers, uint64_t features)
    : folder_(NewFolder()),
      timeout_(timeout),
      features_(features),
      receive_buffers_(receive_buffers) {
  driver_ = std::make_unique<FakeDriver>([this](vmm::EventLoop* loop) { return Make(loop); });
  Restart();
}

void VsockGuest::Restart() {
  free_.clear();
  driver_->Start(features_);
  AddReceiveBuffers(receive_buffers_);
}

VsockGuest::~VsockGuest() {
  driver_.reset();
  std::filesystem::remove_all(folder_);
}

std::unique_ptr<virtio::Device> VsockGuest::Make(vmm::EventLoop* loop) {
  VsockConfig config;
  config.path = path();
  config.guest_cid = guest_cid_;
  config.timeout = timeout_;
  auto device = Vsock::Create(std::move(config), loop);
  if (!device.ok()) {
    fprintf(stderr, "%s\n", device.error().message().c_str());
    abort();
  }
  return std::move(*device);
}

uint64_t VsockGuest::Metric(std::string_view name) {
  uint64_t found = ~0ull;
  device().Metrics([&](const char* each, uint64_t value) {
    if (name == each) found = value;
  });
  return found;
}

// ---- the guest's driver

void VsockGuest::AddReceiveBuffers(uint32_t count, uint32_t size) {
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t address = driver_->Allocate(size);
    uint16_t head = driver_->Add(kRxQueue, {{address, size, true}});
    if (buffers_.size() <= head) buffers_.resize(head + 1);
    buffers_[head] = {address, size};
  }
  if (count != 0) driver_->Kick(kRxQueue);
}

void VsockGuest::AddEventBuffers(uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    driver_->Add(kEventQueue, {{driver_->Allocate(sizeof(Event)), sizeof(Event), true}});
  }
  driver_->Kick(kEventQueue);
}

Header VsockGuest::Make(Operation op, uint32_t guest_port, uint32_t host_port) {
  Header header = {};
  header.src_cid = kCid;
  header.dst_cid = kHostCid;
  header.src_port = guest_port;
  header.dst_port = host_port;
  header.type = kTypeStream;
  header.op = op;
  header.buf_alloc = 65536;
  return header;
}

bool VsockGuest::CanSend() {
  while (auto used = driver_->TakeUsed(kTxQueue)) {
    auto [address, size] = sent_[used->head];
    free_[size].push_back(address);
  }
  return driver_->CanAdd(kTxQueue, 1);
}

void VsockGuest::Send(const Header& header, std::string_view payload, bool kick) {
  if (!CanSend()) abort();
  auto total = static_cast<uint32_t>(sizeof header + payload.size());
  uint32_t size = total <= kReceiveSize ? kReceiveSize : Connection::kMaxPacket + sizeof header;
  auto& free = free_[size];
  if (free.empty()) free.push_back(driver_->Allocate(size));
  uint64_t address = free.back();
  free.pop_back();
  auto bytes = driver_->Memory(address, size);
  memcpy(bytes.data(), &header, sizeof header);
  std::ranges::copy(payload, bytes.begin() + sizeof header);
  uint16_t head = driver_->Add(kTxQueue, {{address, total, false}});
  if (sent_.size() <= head) sent_.resize(head + 1);
  sent_[head] = {address, size};
  if (kick) driver_->Kick(kTxQueue);
}

std::optional<Packet> VsockGuest::TryReceive() {
  auto used = driver_->TakeUsed(kRxQueue);
  if (!used) return std::nullopt;
  auto [address, size] = buffers_[used->head];
  Packet packet = {};
  auto bytes = driver_->Memory(address, size);
  if (used->written < sizeof packet.header || used->written > size) abort();
  memcpy(&packet.header, bytes.data(), sizeof packet.header);
  packet.payload.assign(reinterpret_cast<char*>(bytes.data()) + sizeof packet.header,
                        used->written - sizeof packet.header);
  if (packet.payload.size() != packet.header.len) abort();
  if (refill_) {
    uint16_t head = driver_->Add(kRxQueue, {{address, size, true}});
    buffers_[head] = {address, size};
    driver_->Kick(kRxQueue);
  }
  return packet;
}

Packet VsockGuest::Receive() {
  std::optional<Packet> packet;
  driver_->PumpUntil([&] { return (packet = TryReceive()).has_value(); });
  return packet.value_or(Packet{});
}

Packet VsockGuest::ReceiveOp(Operation op) {
  for (;;) {
    Packet packet = Receive();
    if (packet.header.op == op || packet.header.op == kOpInvalid) return packet;
  }
}

bool VsockGuest::HasPacket() {
  driver_->Pump();
  return TryReceive().has_value();
}

std::string VsockGuest::ReceiveData(size_t size) {
  std::string data;
  while (data.size() < size) {
    Packet packet = Receive();
    if (packet.header.op != kOpData) break;
    data += packet.payload;
  }
  return data;
}

// ---- the host

UniqueFd VsockGuest::Connect(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = Address(path);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) abort();
  return fd;
}

UniqueFd VsockGuest::Listen(uint32_t port, int backlog) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address = Address(path(port));
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) abort();
  if (listen(fd.get(), backlog) < 0) abort();
  return fd;
}

std::string VsockGuest::Read(const UniqueFd& fd, size_t size) {
  std::string all;
  bool ended = false;
  driver_->PumpUntil([&] {
    char bytes[65536];
    while (all.size() < size && !ended) {
      ssize_t n = recv(fd.get(), bytes, std::min(sizeof bytes, size - all.size()), MSG_DONTWAIT);
      if (n < 0 && errno == EAGAIN) return false;
      ended = n <= 0;
      if (n > 0) all.append(bytes, static_cast<size_t>(n));
    }
    return true;
  });
  return all;
}

bool VsockGuest::Ended(const UniqueFd& fd) {
  bool ended = false;
  driver_->PumpUntil([&] {
    char byte;
    ssize_t n = recv(fd.get(), &byte, 1, MSG_DONTWAIT);
    ended = n == 0 || (n < 0 && errno == ECONNRESET);
    return ended || n > 0;
  });
  return ended;
}

void VsockGuest::Write(const UniqueFd& fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) abort();
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

// ---- both

UniqueFd VsockGuest::ConnectToGuest(uint32_t guest_port, uint32_t* host_port) {
  UniqueFd client = Connect(path());
  Write(client, "CONNECT " + std::to_string(guest_port) + "\n");
  Packet request = Receive();
  if (request.header.op != kOpRequest || request.header.dst_port != guest_port) abort();
  *host_port = request.header.src_port;
  Send(Make(kOpResponse, guest_port, *host_port));
  std::string expected = "OK " + std::to_string(*host_port) + "\n";
  if (Read(client, expected.size()) != expected) abort();
  return client;
}

UniqueFd VsockGuest::ConnectToHost(const UniqueFd& listener, uint32_t guest_port,
                                   uint32_t host_port) {
  Send(Make(kOpRequest, guest_port, host_port));
  if (Receive().header.op != kOpResponse) abort();
  UniqueFd fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd.valid()) abort();
  return fd;
}

Status VsockGuest::SaveAndRestore(uint64_t guest_cid) {
  guest_cid_ = guest_cid;
  return driver_->SaveAndRestore([this](vmm::EventLoop* loop) { return Make(loop); });
}

}  // namespace cube::devices::vsock::testing
