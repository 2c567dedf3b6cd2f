#include "devices/balloon/balloon.h"

#include <algorithm>
#include <cstring>
#include <mutex>

namespace cube::devices {

using balloon::kDeflateQueue;
using balloon::kInflateQueue;
using balloon::kPageShift;
using balloon::kReportingQueue;

std::unique_ptr<Balloon> Balloon::Create(uint32_t target) {
  return std::unique_ptr<Balloon>(new Balloon(target));
}

void Balloon::SetTarget(uint32_t pages) {
  std::lock_guard lock(mutex());
  if (config_.num_pages == pages) return;
  config_.num_pages = pages;
  host().ConfigChanged();
}

uint32_t Balloon::actual() {
  std::lock_guard lock(mutex());
  return config_.actual;
}

bool Balloon::WriteConfig(uint32_t offset, std::span<const uint8_t> bytes) {
  if (offset != offsetof(balloon::Config, actual) || bytes.size() != sizeof config_.actual) {
    return false;
  }
  memcpy(&config_.actual, bytes.data(), bytes.size());
  return true;
}

void Balloon::ProcessQueue(uint32_t index) {
  virtio::Virtqueue& queue = host().queue(index);
  int handled = 0;
  do {
    queue.DisableKicks();
    while (handled < kMaxBatch && queue.Pop(&chain_)) {
      ++handled;
      switch (index) {
        case kInflateQueue:
          Inflate();
          break;
        case kDeflateQueue:
          // The pages are the guest's again as soon as it touches them: nothing to do.
          ++deflate_requests_;
          break;
        case kReportingQueue:
          Report();
          break;
        default:
          break;
      }
      queue.Push(&chain_, 0);
    }
    queue.Notify();
  } while (queue.EnableKicks() && handled < kMaxBatch);
  if (queue.HasAvailable()) host().ProcessLater(index);
}

void Balloon::Resume() {
  for (uint32_t index : {kInflateQueue, kDeflateQueue, kReportingQueue}) {
    host().ProcessLater(index);
  }
}

// The request is an array of page numbers (5.5.6.1). Neighbours go together: each call of the
// host's kernel takes its time.
void Balloon::Inflate() {
  uint32_t count = std::min(chain_.readable_size() / uint32_t{sizeof(uint32_t)}, kMaxPageNumbers);
  page_numbers_.resize(count);
  chain_.Read(0, {reinterpret_cast<uint8_t*>(page_numbers_.data()), count * sizeof(uint32_t)});
  std::ranges::sort(page_numbers_);
  for (size_t first = 0; first < count;) {
    size_t end = first + 1;
    while (end < count && page_numbers_[end] - page_numbers_[end - 1] <= 1) ++end;
    uint64_t address = uint64_t{page_numbers_[first]} << kPageShift;
    uint64_t size = ((uint64_t{page_numbers_[end - 1]} + 1) << kPageShift) - address;
    if (auto bytes = host().memory().Slice(address, size)) {
      Discard(*bytes, &inflated_pages_);
      first = end;
      continue;
    }
    // Part of it is not memory: page by page, as they may each be.
    for (; first < end; ++first) {
      address = uint64_t{page_numbers_[first]} << kPageShift;
      if (auto page = host().memory().Slice(address, 1u << kPageShift)) {
        Discard(*page, &inflated_pages_);
      } else {
        ++refused_;
      }
    }
  }
}

// The request's buffers are the free pages themselves (5.5.6.7); the queue has found them to be
// memory.
void Balloon::Report() {
  iovecs_.clear();
  chain_.WritableIovecs(0, chain_.writable_size(), &iovecs_);
  for (const iovec& area : iovecs_) {
    Discard({static_cast<uint8_t*>(area.iov_base), area.iov_len}, &reported_pages_);
  }
}

void Balloon::Discard(std::span<uint8_t> bytes, uint64_t* pages) {
  if (host().memory().Discard(bytes)) {
    *pages += bytes.size() >> kPageShift;
  } else {
    ++refused_;
  }
}

// The target is the host's: a restored device keeps the one it was made with, and the driver is
// told if that is another.
Status Balloon::Save(StateWriter* state) {
  state->Put(config_);
  return OkStatus();
}

Status Balloon::Load(StateReader* state) {
  balloon::Config saved;
  CUBE_TRY(state->Get(&saved));
  config_.actual = saved.actual;
  if (saved.num_pages != config_.num_pages) host().ConfigChanged();
  return OkStatus();
}

void Balloon::Metrics(const Count& count) const {
  count("target_pages", config_.num_pages);
  count("actual_pages", config_.actual);
  count("reported_pages", reported_pages_);
  count("inflated_pages", inflated_pages_);
  count("deflate_requests", deflate_requests_);
  count("refused", refused_);
}

}  // namespace cube::devices
