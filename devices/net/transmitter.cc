#include "devices/net/transmitter.h"

#include <cerrno>

#include "devices/net/frame_header.h"

namespace cube::devices::net {

Stopped Transmitter::Run(virtio::Virtqueue& queue, int fd, RateLimiter& limiter) {
  queue.DisableKicks();
  for (int frame = 0; frame < kMaxBatch;) {
    if (queue.HasAvailable() && !limiter.Ready()) {
      queue.Notify();
      return Stopped::kLimited;
    }
    if (!queue.Pop(&chain_)) {
      queue.Notify();
      if (!queue.EnableKicks()) return Stopped::kIdle;
      queue.DisableKicks();
      continue;
    }
    ++frame;
    uint32_t size = chain_.readable_size();
    switch (Send(fd)) {
      case Outcome::kSent:
        ++frames_;
        if (size > sizeof(Header) + kMaxEthernetFrame) ++large_;
        bytes_ += size - sizeof(Header);
        limiter.Charge(size - sizeof(Header));
        break;
      case Outcome::kDropped:
        break;
      case Outcome::kFull:
        ++full_;
        queue.UndoPop(&chain_);
        queue.Notify();
        return Stopped::kBlocked;
      case Outcome::kGone:
        queue.UndoPop(&chain_);
        queue.Notify();
        return Stopped::kGone;
    }
    queue.Push(&chain_, 0);
  }
  queue.Notify();
  return Stopped::kBatch;
}

Transmitter::Outcome Transmitter::Send(int fd) {
  auto header = chain_.ReadObject<Header>(0);
  if (!header || !CheckTransmit(features_, chain_.readable_size() - sizeof *header, &*header)) {
    ++invalid_;
    return Outcome::kDropped;
  }
  iovecs_.clear();
  iovecs_.push_back({&*header, sizeof *header});
  uint32_t done = sizeof *header;
  FrameStart start;
  if (header->flags != 0) {
    auto read = chain_.ReadObject<FrameStart>(done);
    if (!read || !ChecksumIsItsOwn(*header, *read)) {
      ++invalid_;
      return Outcome::kDropped;
    }
    // What was looked at is sent, whatever the guest has made of it meanwhile.
    start = *read;
    iovecs_.push_back({&start, sizeof start});
    done += sizeof start;
  }
  chain_.ReadableIovecs(done, kMaxFrame, &iovecs_);
  ssize_t sent = writev(fd, iovecs_.data(), static_cast<int>(iovecs_.size()));
  if (sent >= 0) return Outcome::kSent;
  switch (errno) {
    case EAGAIN:
      return Outcome::kFull;
    case EBADFD:  // the interface was deleted
      return Outcome::kGone;
    case EINVAL:  // the kernel knows more about headers than is checked here
      ++invalid_;
      return Outcome::kDropped;
    default:  // the interface is down, or there is no memory
      ++errors_;
      return Outcome::kDropped;
  }
}

void Transmitter::Metrics(const virtio::Device::Count& count) const {
  count("tx_frames", frames_);
  count("tx_large", large_);
  count("tx_bytes", bytes_);
  count("tx_full", full_);
  count("tx_invalid", invalid_);
  count("tx_errors", errors_);
}

}  // namespace cube::devices::net
