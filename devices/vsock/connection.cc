#include "devices/vsock/connection.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cube::devices::vsock {
namespace {

// A call takes no more buffers than that (IOV_MAX).
constexpr size_t kMaxBuffers = 1024;

}  // namespace

Connection::Connection(Ports ports, uint64_t guest_cid, uint32_t buffer_size, State state,
                       UniqueFd fd)
    : ports_(ports),
      guest_cid_(guest_cid),
      buffer_size_(buffer_size),
      state_(state),
      fd_(std::move(fd)),
      request_(state == State::kRequested),
      response_(state == State::kEstablished) {}

void Connection::Accept(UniqueFd fd) {
  fd_ = std::move(fd);
  state_ = State::kEstablished;
  response_ = true;
}

void Connection::Kill() {
  state_ = State::kDead;
  buffer_ = {};
  buffer_start_ = 0;
}

// ---- from the guest

bool Connection::UpdateCredit(const Header& header) {
  uint32_t unread = sent_ - guest_forwarded_;
  uint32_t advance = header.fwd_cnt - guest_forwarded_;
  if (advance <= unread) {
    guest_forwarded_ = header.fwd_cnt;
  } else if (static_cast<int32_t>(advance) > 0) {
    return false;
  }
  guest_buffer_ = header.buf_alloc;
  if (guest_credit() > 0) credit_request_sent_ = false;
  return true;
}

bool Connection::TakeData(const virtio::DescriptorChain& chain, uint32_t size,
                          std::vector<iovec>* scratch) {
  if (size > buffer_size_ - (received_ - forwarded_)) return false;
  received_ += size;
  if (end_write_ || !fd_.valid() || (guest_shutdown_ & kShutdownSend) != 0) {
    Forwarded(size);  // nobody is there to take it
    return true;
  }
  uint32_t taken = 0;
  if (buffered() == 0) {
    scratch->clear();
    chain.ReadableIovecs(sizeof(Header), size, scratch);
    taken = static_cast<uint32_t>(WriteSocket(*scratch));
    Forwarded(taken);
    if (end_write_) {
      Forwarded(size - taken);
      return true;
    }
  }
  if (taken == size) return true;
  if (buffer_start_ > 0) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(buffer_start_));
    buffer_start_ = 0;
  }
  size_t end = buffer_.size();
  buffer_.resize(end + size - taken);
  chain.Read(sizeof(Header) + taken, std::span(buffer_).subspan(end));
  return true;
}

size_t Connection::WriteSocket(std::span<iovec> buffers) {
  msghdr message = {};
  message.msg_iov = buffers.data();
  message.msg_iovlen = std::min(buffers.size(), kMaxBuffers);
  if (message.msg_iovlen == 0) return 0;
  ssize_t written = sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (written >= 0) return static_cast<size_t>(written);
  if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ENOMEM) EndWrite();
  return 0;
}

void Connection::Flush() {
  while (buffered() > 0 && !end_write_) {
    iovec buffer = {buffer_.data() + buffer_start_, buffered()};
    size_t written = WriteSocket({&buffer, 1});
    if (written == 0) break;
    buffer_start_ += written;
    Forwarded(written);
  }
  if (buffered() == 0) {
    // An idle connection keeps no memory.
    buffer_ = {};
    buffer_start_ = 0;
    PassOnShutdown();
    if (state_ == State::kLingering) Kill();
  }
}

void Connection::EndWrite() {
  end_write_ = true;
  Forwarded(buffered());
  buffer_ = {};
  buffer_start_ = 0;
}

void Connection::GuestShutDown(uint32_t flags) {
  uint32_t added = flags & kShutdownBoth & ~guest_shutdown_;
  guest_shutdown_ |= added;
  if ((added & kShutdownReceive) != 0 && fd_.valid()) shutdown(fd_.get(), SHUT_RD);
  PassOnShutdown();
}

void Connection::PassOnShutdown() {
  if ((guest_shutdown_ & kShutdownSend) == 0 || shut_write_ || buffered() > 0 || !fd_.valid()) {
    return;
  }
  shut_write_ = true;
  shutdown(fd_.get(), SHUT_WR);
}

void Connection::GuestClosed() {
  guest_shutdown_ = kShutdownBoth;
  if (state_ == State::kEstablished && buffered() > 0) {
    state_ = State::kLingering;
    shutdown(fd_.get(), SHUT_RD);
  } else {
    Kill();
  }
}

// ---- from the host

bool Connection::CheckHangUp() {
  // Asked again: an event may be of a descriptor that had this number before.
  pollfd poller = {fd_.get(), 0, 0};
  if (poll(&poller, 1, 0) != 1 || (poller.revents & (POLLHUP | POLLERR)) == 0) return false;
  hung_up_ = true;
  if (state_ == State::kEstablished) {
    EndWrite();
    // What it has sent before is still there to be read, unless all was read.
    if ((guest_shutdown_ & kShutdownReceive) != 0) end_read_ = true;
  }
  return true;
}

uint32_t Connection::ReadData(std::span<iovec> buffers) {
  size_t wanted = guest_credit();
  size_t count = 0, room = 0;
  for (; count < std::min(buffers.size(), kMaxBuffers) && room < wanted; ++count) {
    buffers[count].iov_len = std::min(buffers[count].iov_len, wanted - room);
    room += buffers[count].iov_len;
  }
  msghdr message = {};
  message.msg_iov = buffers.data();
  message.msg_iovlen = count;
  ssize_t got = recvmsg(fd_.get(), &message, MSG_DONTWAIT);
  if (got > 0) {
    // Less than there was room for: that was all, most likely; if not, the event loop says so. Of a
    // client that is gone the end is still to be read.
    if (static_cast<size_t>(got) < room && !hung_up_) readable_ = false;
    sent_ += static_cast<uint32_t>(got);
    return static_cast<uint32_t>(got);
  }
  readable_ = false;
  if (got == 0) {
    end_read_ = true;
  } else if (errno != EAGAIN && errno != EINTR) {
    Kill();
  }
  return 0;
}

// ---- to the guest

bool Connection::CreditUpdateDue() const {
  return credit_update_ || forwarded_ - forwarded_told_ >= buffer_size_ / 2;
}

bool Connection::ShutdownDue() const {
  if (end_read_ && (shutdown_sent_ & kShutdownSend) == 0) return true;
  // Of a client that is gone, what it left to be read comes first: one packet then tells of both.
  return end_write_ && (shutdown_sent_ & kShutdownReceive) == 0 && !(hung_up_ && CanRead());
}

bool Connection::HasControl() const {
  switch (state_) {
    case State::kRequested:
      return request_;
    case State::kEstablished:
      return response_ || CreditUpdateDue() || ShutdownDue() ||
             (readable_ && !end_read_ && guest_credit() == 0 && !credit_request_sent_);
    default:
      return false;
  }
}

std::optional<Header> Connection::NextControl() {
  if (!HasControl()) return std::nullopt;
  if (std::exchange(request_, false)) return MakeHeader(kOpRequest);
  if (std::exchange(response_, false)) return MakeHeader(kOpResponse);
  if (ShutdownDue()) {
    uint32_t ended = (end_read_ ? kShutdownSend : 0) | (end_write_ ? kShutdownReceive : 0);
    shutdown_sent_ = ended;
    if (ended == kShutdownBoth) state_ = State::kClosing;
    Header header = MakeHeader(kOpShutdown);
    header.flags = ended;
    return header;
  }
  if (CreditUpdateDue()) return MakeHeader(kOpCreditUpdate);
  credit_request_sent_ = true;
  return MakeHeader(kOpCreditRequest);
}

Header Connection::MakeHeader(Operation op, uint32_t size) {
  // Every packet tells the guest of its credit.
  forwarded_told_ = forwarded_;
  credit_update_ = false;
  Header header = {};
  header.src_cid = kHostCid;
  header.dst_cid = guest_cid_;
  header.src_port = ports_.host;
  header.dst_port = ports_.guest;
  header.len = size;
  header.type = kTypeStream;
  header.op = op;
  header.buf_alloc = buffer_size_;
  header.fwd_cnt = forwarded_;
  return header;
}

std::optional<uint32_t> Connection::WantedEvents() const {
  if (!fd_.valid()) return std::nullopt;
  uint32_t out = buffered() > 0 ? uint32_t{EPOLLOUT} : 0;
  switch (state_) {
    case State::kRequested:
      return 0;
    case State::kLingering:
      return EPOLLOUT;
    case State::kEstablished: {
      bool reads = !end_read_ && (guest_shutdown_ & kShutdownReceive) == 0;
      if (reads && !readable_) return EPOLLIN | out;
      if (out != 0) return out;
      // Once it has been read to its end, the socket has only its hang-up to tell.
      if (!reads && !hung_up_) return 0;
      return std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace cube::devices::vsock
