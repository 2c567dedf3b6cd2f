#include "devices/virtio/descriptor_chain.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace cube::devices::virtio {
namespace {

// Calls `visit` with each piece of [offset, offset + size) of `buffers`; returns their sum.
template <typename Visit>
size_t ForEach(std::span<const std::span<uint8_t>> buffers, uint32_t offset, size_t size,
               Visit visit) {
  size_t done = 0;
  for (const std::span<uint8_t>& buffer : buffers) {
    if (done == size) break;
    if (offset >= buffer.size()) {
      offset -= static_cast<uint32_t>(buffer.size());
      continue;
    }
    std::span<uint8_t> piece =
        buffer.subspan(offset, std::min(buffer.size() - offset, size - done));
    visit(piece, done);
    done += piece.size();
    offset = 0;
  }
  return done;
}

size_t Iovecs(std::span<const std::span<uint8_t>> buffers, uint32_t offset, uint32_t size,
              std::vector<iovec>* out) {
  return ForEach(buffers, offset, size, [out](std::span<uint8_t> piece, size_t) {
    out->push_back({piece.data(), piece.size()});
  });
}

}  // namespace

DescriptorChain& DescriptorChain::operator=(DescriptorChain&& other) noexcept {
  if (this == &other) return *this;
  if (valid()) __builtin_trap();
  head_ = std::exchange(other.head_, std::nullopt);
  buffers_.swap(other.buffers_);
  readable_count_ = other.readable_count_;
  readable_size_ = other.readable_size_;
  writable_size_ = other.writable_size_;
  other.Clear();
  return *this;
}

DescriptorChain::~DescriptorChain() {
  if (valid()) __builtin_trap();
}

void DescriptorChain::Clear() {
  head_.reset();
  buffers_.clear();
  readable_count_ = 0;
  readable_size_ = writable_size_ = 0;
}

size_t DescriptorChain::Read(uint32_t offset, std::span<uint8_t> out) const {
  return ForEach(readable(), offset, out.size(), [out](std::span<uint8_t> piece, size_t done) {
    memcpy(out.data() + done, piece.data(), piece.size());
  });
}

size_t DescriptorChain::Write(uint32_t offset, std::span<const uint8_t> bytes) const {
  return ForEach(writable(), offset, bytes.size(), [bytes](std::span<uint8_t> piece, size_t done) {
    memcpy(piece.data(), bytes.data() + done, piece.size());
  });
}

size_t DescriptorChain::ReadableIovecs(uint32_t offset, uint32_t size,
                                       std::vector<iovec>* out) const {
  return Iovecs(readable(), offset, size, out);
}

size_t DescriptorChain::WritableIovecs(uint32_t offset, uint32_t size,
                                       std::vector<iovec>* out) const {
  return Iovecs(writable(), offset, size, out);
}

}  // namespace cube::devices::virtio
