#ifndef CUBE_DEVICES_VSOCK_VSOCK_H_
#define CUBE_DEVICES_VSOCK_VSOCK_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/virtio/device.h"
#include "devices/vsock/connection.h"
#include "devices/vsock/host_client.h"
#include "devices/vsock/spec.h"
#include "devices/vsock/unix_socket.h"
#include "vmm/event_loop.h"

namespace cube::devices {

// Where the host's side of the sockets is. No part of the saved state: a parameter of restore too.
struct VsockConfig {
  // Host clients connect here, if `listener` is not given. The guest's connections to host port P
  // go to the socket at PATH_P; if empty, there are none.
  std::string path;
  // A listening Unix socket to use instead of binding `path`; its file is left alone.
  UniqueFd listener;
  uint64_t guest_cid = vsock::kFirstGuestCid;
  // How long a client may take to name its port, and the guest to answer it, in nanoseconds.
  uint64_t timeout = 5'000'000'000;
};

// The socket device (virtio 1.2 section 5.10), streams only, whose host side is Unix sockets: a
// client connects to PATH, sends "CONNECT <port>\n" and gets "OK <host port>\n" once a program in
// the guest has accepted, and an end of file if none listens. Connections of the guest's to CID 2
// arrive at PATH_<port>.
//
// Every connection has a bounded buffer, for what the guest sent and the host has not taken; what
// the host sends stays in its socket until the guest has room and a buffer for it. Sockets are
// never carried into a restored device: if there were any connections, the guest is told to reset
// them all.
class Vsock : public virtio::Device {
 public:
  // Connections and clients that have yet to name their port, together.
  static constexpr size_t kMaxConnections = 1024;
  // The credit of a connection, in bytes, if fewer than kLargeBuffers are there, and of the others:
  // at most 46 MiB in all.
  static constexpr uint32_t kLargeBuffer = 256 * 1024;
  static constexpr uint32_t kSmallBuffer = 32 * 1024;
  static constexpr size_t kLargeBuffers = 64;
  // Resets the guest is owed until its packets are left in the queue.
  static constexpr size_t kMaxResets = 512;
  // The longest VsockConfig::path: a port must fit behind it.
  static size_t MaxPath();

  // On the thread of `loop`, which outlives the device. Errors name the path or value at fault.
  static Result<std::unique_ptr<Vsock>> Create(VsockConfig config, vmm::EventLoop* loop);
  // On the loop's thread, or once it has ended.
  ~Vsock() override;

  uint32_t id() const override { return virtio::kDeviceVsock; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override { return {256, 256, 16}; }
  void ReadConfig(uint32_t offset, std::span<uint8_t> out) override;
  void Activate(uint64_t features) override;
  void Reset() override;
  void ProcessQueue(uint32_t index) override;
  void Quiesce() override;
  void Resume() override;
  uint32_t state_version() const override { return 1; }
  Status Save(StateWriter* state) override;
  Status Load(StateReader* state) override;
  void Metrics(const Count& count) const override;

 private:
  using Connection = vsock::Connection;
  using Header = vsock::Header;
  using State = Connection::State;

  Vsock(VsockConfig config, vsock::UnixListener listener, UniqueFd work, vmm::Timer timer,
        vmm::EventLoop* loop);
  Status WatchOwn();
  static uint64_t Now();  // CLOCK_MONOTONIC, nanoseconds

  // ---- the queues (vsock_queues.cc)
  // Everything that can be done now; to be called at the end of every event.
  void Work();
  void ProcessTransmitted();
  void FillReceiveQueue();
  bool HasReceiveWork() const { return !broken_ && (!resets_.empty() || !ready_.empty()); }
  bool SendOne();
  void SendHeader(const Header& header);
  uint32_t SendData(Connection* connection);
  void Break(const Error& error);
  bool PopReceiveChain(virtio::DescriptorChain* chain);
  void SendEvent();
  bool ResetsHandled();
  void HandlePacket(const virtio::DescriptorChain& chain);
  void HandleConnected(Connection* connection, const Header& header,
                       const virtio::DescriptorChain& chain);

  // ---- connections
  Connection* Find(vsock::Ports ports);
  Connection* Add(vsock::Ports ports, State state, UniqueFd fd);
  bool Full() const;
  void ConnectToHost(const Header& request);
  void RetryConnect(Connection* connection, uint64_t now);
  void ConnectToGuest(UniqueFd fd, uint32_t port);
  void GuestAccepted(Connection* connection);
  uint32_t NextHostPort(uint32_t guest_port);
  // Queues the answer to a packet of no connection.
  void Refuse(const Header& header);
  // Ends a connection, and tells the guest.
  void Abort(Connection* connection);
  // Takes a connection that is dead, or lingers, from those that the guest knows.
  void Forget(Connection* connection);
  // Something has changed: it may have work, and other events to wait for.
  void Touch(Connection* connection);
  void UpdateWatched(Connection* connection);
  void Bury();

  // ---- events of the host's
  void OnSocket(Connection* connection, uint32_t events);
  void OnAccept();
  void OnClient(int fd);
  void DropClient(int fd, const char* reason);
  void WatchListener();
  void OnTimer();
  void Arm(uint64_t deadline);
  void StopHolding();

  VsockConfig config_;
  vsock::UnixListener listener_;
  UniqueFd work_;  // signalled when there is more to do than one turn may, or the lock's holder can
  vmm::Timer timer_;
  vmm::EventLoop* loop_;

  bool active_ = false;
  bool broken_ = false;  // by what the driver did, until it resets the device
  bool paused_ = false;
  uint64_t paused_at_ = 0;
  uint64_t armed_ = 0;         // what the timer is set to
  bool listening_ = false;     // the listener is in the event loop
  uint64_t accept_after_ = 0;  // out of descriptors: not before then
  uint32_t next_host_port_ = 0;

  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;  // by Ports::key()
  std::vector<std::unique_ptr<Connection>> lingering_;
  std::vector<std::unique_ptr<Connection>> dead_;  // until they are out of the event loop
  std::unordered_map<int, vsock::HostClient> clients_;
  std::deque<Connection*> ready_;  // those with work, in turn
  std::vector<Connection*> dirty_;
  std::deque<Header> resets_;  // answers to packets of no connection

  bool transmit_pending_ = false;  // the queue may hold packets
  bool reset_event_due_ = false;   // the guest is to reset its sockets
  uint32_t resets_unhandled_ = 0;  // events sent that the driver has not handled
  // No client is let in until the driver has handled them: it would reset that connection too.
  bool holding_ = false;
  uint64_t hold_until_ = 0;
  uint16_t handled_index_ = 0;  // of the event queue, once it has

  virtio::DescriptorChain chain_;
  std::vector<virtio::DescriptorChain> receive_chains_;
  std::vector<iovec> iovecs_;

  struct {
    uint64_t from_host, from_guest, refused, resets, malformed, bytes_to_guest, bytes_to_host,
        packets_to_guest, packets_from_guest, timeouts;
  } counts_ = {};
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_VSOCK_VSOCK_H_
