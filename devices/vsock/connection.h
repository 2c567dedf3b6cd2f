#ifndef CUBE_DEVICES_VSOCK_CONNECTION_H_
#define CUBE_DEVICES_VSOCK_CONNECTION_H_

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/unique_fd.h"
#include "devices/virtio/descriptor_chain.h"
#include "devices/vsock/spec.h"

namespace cube::devices::vsock {

// The two ends of a connection; it is known by them.
struct Ports {
  uint32_t guest;
  uint32_t host;
  uint64_t key() const { return uint64_t{guest} << 32 | host; }
};

// One stream between a port of the guest and a Unix socket of the host: credit (virtio 1.2 section
// 5.10.6.3), what the host could not take yet, and which control packets the guest is owed. It
// knows nothing of queues or of the event loop. Used under the device's lock.
class Connection {
 public:
  enum class State : uint8_t {
    kBusy,       // the guest's; the host's listener has no room at the moment
    kRequested,  // the host's; the guest has not answered yet
    kEstablished,
    kClosing,    // ended on the host's side; the guest is to say that it has ended too
    kLingering,  // ended on the guest's side; the host has yet to take what was sent
    kDead,       // of no more use
  };

  // The most bytes that are put into one packet.
  static constexpr uint32_t kMaxPacket = 64 * 1024;

  // `buffer_size` is the credit the guest is given, in bytes. `fd` is non-blocking, or none yet.
  Connection(Ports ports, uint64_t guest_cid, uint32_t buffer_size, State state, UniqueFd fd);

  const Ports& ports() const { return ports_; }
  State state() const { return state_; }
  int fd() const { return fd_.get(); }
  uint32_t buffer_size() const { return buffer_size_; }

  // The guest asked for this connection and it is there: it is told, and data may flow.
  void Accept(UniqueFd fd);
  // The guest has accepted the host's connection.
  void GuestAccepted() { state_ = State::kEstablished; }
  // Of no more use: drops what is buffered. The socket stays open for the owner, who has to take it
  // out of the event loop first.
  void Kill();
  // The guest knows of it: it was sent a packet, or has sent one.
  bool known_to_guest() const { return !request_; }

  // ---- from the guest

  // Takes the guest's credit out of a packet. False if it acknowledges bytes that were never sent.
  // An acknowledgement older than the last one changes nothing: a driver may well reorder those.
  bool UpdateCredit(const Header& header);
  // Passes the `size` bytes after the header of a packet on: what the socket does not take is kept.
  // False if the guest had no credit for them. `size` bytes are in the chain.
  bool TakeData(const virtio::DescriptorChain& chain, uint32_t size, std::vector<iovec>* scratch);
  // The guest will not send, or receive, any more.
  void GuestShutDown(uint32_t flags);
  uint32_t guest_shutdown() const { return guest_shutdown_; }
  void RequestCreditUpdate() { credit_update_ = true; }
  // The guest has ended both ways and has forgotten the connection: kLingering while there is
  // something left for the host, else kDead.
  void GuestClosed();

  // ---- from the host

  // The socket has something to read, or its end.
  void SetReadable() { readable_ = true; }
  // Gives the socket what it takes now of what is buffered.
  void Flush();
  // To be called when the socket reports a hang-up; true if that is so, and both ways have ended.
  bool CheckHangUp();

  // ---- to the guest

  // Whether NextControl() or ReadData() has something to do.
  bool HasWork() const { return HasControl() || CanRead(); }
  // The next packet without payload that the guest is owed. To be sent.
  std::optional<Header> NextControl();
  // Whether the socket may have something that the guest has credit for.
  bool CanRead() const {
    return state_ == State::kEstablished && readable_ && !end_read_ &&
           (guest_shutdown_ & kShutdownReceive) == 0 && guest_credit() > 0;
  }
  // Reads from the socket into `buffers`, at most as much as the guest has credit for. Returns the
  // number of bytes; 0 if there were none, or no more come, or the connection is broken (kDead).
  uint32_t ReadData(std::span<iovec> buffers);
  // The header of a packet with `size` bytes of what was read.
  Header DataHeader(uint32_t size) { return MakeHeader(kOpData, size); }
  Header MakeHeader(Operation op, uint32_t size = 0);
  // Bytes that the guest has room for.
  uint32_t guest_credit() const {
    uint32_t unread = sent_ - guest_forwarded_;
    return unread >= guest_buffer_ ? 0 : guest_buffer_ - unread;
  }

  // What the event loop is to wait for on the socket: epoll's events, where 0 means hang-up only;
  // nothing if the socket is to be left alone, because what it would say is known already.
  std::optional<uint32_t> WantedEvents() const;

  // ---- for the owner: its book-keeping
  bool queued = false;              // in the list of those that have work
  bool dirty = false;               // in the list of those whose wanted events may differ
  std::optional<uint32_t> watched;  // what the event loop waits for
  uint64_t deadline = 0;            // CLOCK_MONOTONIC nanoseconds, 0 for none
  uint64_t retry_until = 0;         // of kBusy
  uint32_t burst = 1;               // buffers to read into at once

 private:
  bool HasControl() const;
  bool CreditUpdateDue() const;
  bool ShutdownDue() const;
  size_t buffered() const { return buffer_.size() - buffer_start_; }
  // Writes to the socket; returns how much it took. Ends the writing if nobody reads any more.
  size_t WriteSocket(std::span<iovec> buffers);
  void Forwarded(size_t size) { forwarded_ += static_cast<uint32_t>(size); }
  void EndWrite();
  void PassOnShutdown();

  Ports ports_;
  uint64_t guest_cid_;
  uint32_t buffer_size_;
  State state_;
  UniqueFd fd_;

  // Host to guest. Counters of bytes wrap.
  uint32_t sent_ = 0;
  uint32_t guest_forwarded_ = 0;  // what the guest has consumed, as it says
  uint32_t guest_buffer_ = 0;     // its whole buffer
  bool readable_ = false;
  bool end_read_ = false;  // the host sends no more

  // Guest to host.
  uint32_t received_ = 0;
  uint32_t forwarded_ = 0;
  uint32_t forwarded_told_ = 0;  // as of the last packet to the guest
  bool end_write_ = false;       // the host reads no more
  uint32_t guest_shutdown_ = 0;
  bool shut_write_ = false;  // the guest's end was passed on to the socket
  std::vector<uint8_t> buffer_;
  size_t buffer_start_ = 0;

  // Control packets owed.
  bool request_ = false;
  bool response_ = false;
  bool credit_update_ = false;
  bool credit_request_sent_ = false;  // since the guest had credit last
  uint32_t shutdown_sent_ = 0;
  bool hung_up_ = false;
};

}  // namespace cube::devices::vsock

#endif  // CUBE_DEVICES_VSOCK_CONNECTION_H_
