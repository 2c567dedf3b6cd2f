#ifndef CUBE_DEVICES_VIRTIO_TESTING_FUZZ_INPUT_H_
#define CUBE_DEVICES_VIRTIO_TESTING_FUZZ_INPUT_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

namespace cube::devices::virtio::fake {

// A fuzzer's input, consumed from the front; zeros when it has ended. The bytes are the caller's.
class FuzzInput {
 public:
  explicit FuzzInput(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::span<const uint8_t> rest() const { return bytes_; }
  template <typename T>
  T Take() {
    T value = {};
    auto taken = TakeBytes(sizeof value);
    if (!taken.empty()) memcpy(&value, taken.data(), taken.size());
    return value;
  }
  // Fewer, if there are no more.
  std::span<const uint8_t> TakeBytes(size_t size) {
    auto taken = bytes_.first(std::min(size, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace cube::devices::virtio::fake

#endif  // CUBE_DEVICES_VIRTIO_TESTING_FUZZ_INPUT_H_
