#ifndef CUBE_DEVICES_VIRTIO_DESCRIPTOR_CHAIN_H_
#define CUBE_DEVICES_VIRTIO_DESCRIPTOR_CHAIN_H_

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace cube::devices::virtio {

// One request of the driver's: the memory it may be read from, then the memory it may be written
// to. Made by Virtqueue::Pop(), which has checked every buffer to lie in guest memory, and given
// back by Virtqueue::Push() or UndoPop(); a chain that is dropped otherwise is a bug of the
// device's, and aborts. An empty one can be popped into again and keeps its allocations.
//
// The guest can change the bytes at any time: what is checked must have been copied before (Read).
class DescriptorChain {
 public:
  DescriptorChain() = default;
  DescriptorChain(DescriptorChain&& other) noexcept { *this = std::move(other); }
  DescriptorChain& operator=(DescriptorChain&& other) noexcept;
  DescriptorChain(const DescriptorChain&) = delete;
  DescriptorChain& operator=(const DescriptorChain&) = delete;
  ~DescriptorChain();

  bool valid() const { return head_.has_value(); }

  // Bytes in all buffers of a kind; their sum is below 2^32.
  uint32_t readable_size() const { return readable_size_; }
  uint32_t writable_size() const { return writable_size_; }

  // Copies out of the readable part, or into the writable one, from `offset` on. Returns how many
  // bytes there were, at most the size of the span.
  size_t Read(uint32_t offset, std::span<uint8_t> out) const;
  size_t Write(uint32_t offset, std::span<const uint8_t> bytes) const;

  // An object at `offset` of the readable part; nothing if it is not all there.
  template <typename T>
  std::optional<T> ReadObject(uint32_t offset) const {
    static_assert(std::is_trivially_copyable_v<T>);
    T object;
    if (Read(offset, {reinterpret_cast<uint8_t*>(&object), sizeof object}) != sizeof object) {
      return std::nullopt;
    }
    return object;
  }
  // False if the writable part has no room for it there; then a part may have been written.
  template <typename T>
  bool WriteObject(uint32_t offset, const T& object) const {
    static_assert(std::is_trivially_copyable_v<T>);
    return Write(offset, {reinterpret_cast<const uint8_t*>(&object), sizeof object}) ==
           sizeof object;
  }

  // Appends the buffers that make up [offset, offset + size) of a part, cut to what there is, to
  // `out`, for readv(2) and writev(2). Returns the number of bytes.
  size_t ReadableIovecs(uint32_t offset, uint32_t size, std::vector<iovec>* out) const;
  size_t WritableIovecs(uint32_t offset, uint32_t size, std::vector<iovec>* out) const;

  // Gives the chain up without returning it: the queue was reset while the request was under way.
  void Abandon() { Clear(); }

 private:
  friend class Virtqueue;
  using Buffer = std::span<uint8_t>;

  std::span<const Buffer> readable() const { return {buffers_.data(), readable_count_}; }
  std::span<const Buffer> writable() const {
    return std::span<const Buffer>(buffers_).subspan(readable_count_);
  }
  void Clear();

  std::optional<uint16_t> head_;
  std::vector<Buffer> buffers_;  // the readable ones first
  size_t readable_count_ = 0;
  uint32_t readable_size_ = 0;
  uint32_t writable_size_ = 0;
};

}  // namespace cube::devices::virtio

#endif  // CUBE_DEVICES_VIRTIO_DESCRIPTOR_CHAIN_H_
