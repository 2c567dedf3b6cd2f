#ifndef CUBE_DEVICES_VSOCK_VSOCK_GUEST_H_
#define CUBE_DEVICES_VSOCK_VSOCK_GUEST_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "devices/virtio/testing/fake_driver.h"
#include "devices/vsock/spec.h"
#include "devices/vsock/vsock.h"

namespace cube::devices::vsock::testing {

// `size` bytes, the same ones for the same `seed`.
std::string Pattern(size_t size, uint32_t seed = 1);

// A packet as the guest got it.
struct Packet {
  Header header;
  std::string payload;
};

// A guest whose driver does what a test tells it, and the host's end of its device: sockets in a
// folder of the test's own.
class VsockGuest {
 public:
  static constexpr uint64_t kCid = 3;

  // `timeout` is VsockConfig's, in nanoseconds. The driver is started with `features` of the rings,
  // and `receive_buffers` of kReceiveSize.
  explicit VsockGuest(uint64_t timeout = 60'000'000'000, uint32_t receive_buffers = 32,
                      uint64_t features = ~0ull);
  ~VsockGuest();

  // Resets the device and starts it anew.
  void Restart();

  static constexpr uint32_t kReceiveSize = 4096 + sizeof(Header);
  std::string path() const { return folder_ + "/vsock"; }
  std::string path(uint32_t port) const { return path() + "_" + std::to_string(port); }
  virtio::fake::FakeDriver& driver() { return *driver_; }
  Vsock& device() { return static_cast<Vsock&>(driver_->device()); }
  uint64_t Metric(std::string_view name);

  // ---- the guest's driver
  void AddReceiveBuffers(uint32_t count, uint32_t size = kReceiveSize);
  // Returns buffers the device has used as soon as they are read. On by default.
  void set_refill(bool refill) { refill_ = refill; }
  void AddEventBuffers(uint32_t count);
  // A header from the guest's `guest_port` to the host's `host_port`, with credit of 64 KiB.
  static Header Make(Operation op, uint32_t guest_port, uint32_t host_port);
  // Whether the queue has room for one more packet.
  bool CanSend();
  // Sends a packet; without kick, Kick(kTxQueue) of the driver is to follow.
  void Send(const Header& header, std::string_view payload = {}, bool kick = true);
  // A packet that is there already.
  std::optional<Packet> TryReceive();
  // The next packet to the guest; waits for it. An op of kOpInvalid if there is none.
  Packet Receive();
  // The next one of operation `op`; others are dropped.
  Packet ReceiveOp(Operation op);
  // Whether a packet is there now, once the device has done what it can.
  bool HasPacket();
  // Payload of data packets until there are `size` bytes, or something else comes.
  std::string ReceiveData(size_t size);

  // ---- the host
  // A client connected to `path`, blocking.
  static UniqueFd Connect(const std::string& path);
  // A listener for the guest's connections, non-blocking.
  UniqueFd Listen(uint32_t port, int backlog = 16);
  // What is on a socket until there are `size` bytes, or it ends; the device works meanwhile.
  std::string Read(const UniqueFd& fd, size_t size);
  // True once the socket has ended (or was reset), with nothing left to read.
  bool Ended(const UniqueFd& fd);
  static void Write(const UniqueFd& fd, std::string_view bytes);

  // ---- both
  // A client of the host's connected to `guest_port`; `host_port` is its end's.
  UniqueFd ConnectToGuest(uint32_t guest_port, uint32_t* host_port);
  // A connection of the guest's to `host_port`, accepted by `listener`.
  UniqueFd ConnectToHost(const UniqueFd& listener, uint32_t guest_port, uint32_t host_port);
  // Saves the device and restores it into a new one; the old one's sockets are gone.
  Status SaveAndRestore(uint64_t guest_cid = kCid);

 private:
  std::unique_ptr<virtio::Device> Make(vmm::EventLoop* loop);

  std::string folder_;
  uint64_t timeout_;
  uint64_t features_;
  uint32_t receive_buffers_;
  uint64_t guest_cid_ = kCid;
  std::unique_ptr<virtio::fake::FakeDriver> driver_;
  bool refill_ = true;
  // By head: address and size of the buffers that are out.
  std::vector<std::pair<uint64_t, uint32_t>> buffers_, sent_;
  std::map<uint32_t, std::vector<uint64_t>> free_;  // to send from, by size
};

}  // namespace cube::devices::vsock::testing

#endif  // CUBE_DEVICES_VSOCK_VSOCK_GUEST_H_
