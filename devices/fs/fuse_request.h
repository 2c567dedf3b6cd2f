#ifndef CUBE_DEVICES_FS_FUSE_REQUEST_H_
#define CUBE_DEVICES_FS_FUSE_REQUEST_H_

#include <linux/fuse.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "devices/virtio/descriptor_chain.h"

namespace cube::devices::fs {

// A FUSE request in the readable part of a chain: header, then arguments, taken in order. All is
// copied out before it is looked at.
class FuseRequest {
 public:
  // Nothing if there is no header, or it announces another length than there is.
  static std::optional<FuseRequest> Parse(const virtio::DescriptorChain& chain);

  const fuse_in_header& header() const { return header_; }
  uint32_t left() const { return header_.len - offset_; }

  // EINVAL if there is not that much left.
  template <typename T>
  int Take(T* object) {
    std::optional<T> taken;
    if (left() >= sizeof(T)) taken = chain_->ReadObject<T>(offset_);
    if (!taken) return EINVAL;
    offset_ += sizeof(T);
    *object = *taken;
    return 0;
  }
  // A string with its NUL. EINVAL without one, ENAMETOOLONG if longer than `limit`.
  int TakeText(size_t limit, std::string* text);
  // A name within a directory, checked.
  int TakeName(std::string* name);
  int TakeBytes(uint32_t size, std::vector<uint8_t>* bytes);
  // Buffers with the next `size` bytes, to write from; EINVAL if there are not so many.
  int TakeIovecs(uint32_t size, std::vector<iovec>* out);

 private:
  FuseRequest(const virtio::DescriptorChain& chain, const fuse_in_header& header)
      : chain_(&chain), header_(header), offset_(sizeof header) {}

  const virtio::DescriptorChain* chain_;
  fuse_in_header header_;
  uint32_t offset_;
};

// The reply in the writable part of the same chain: header, which is written last, then payload.
class FuseReply {
 public:
  FuseReply(const virtio::DescriptorChain& chain, uint64_t unique);

  // Bytes of payload that there is still room for.
  uint32_t room() const { return room_ - size_; }

  // Appends; the caller has checked that there is room.
  template <typename T>
  void Put(const T& object) {
    PutBytes({reinterpret_cast<const uint8_t*>(&object), sizeof object});
  }
  void PutBytes(std::span<const uint8_t> bytes);
  // Buffers to read at most `size` bytes into, and how many then were.
  void RoomIovecs(uint32_t size, std::vector<iovec>* out) const;
  void AddRead(uint32_t size) { size_ += size; }

  // The guest expects none.
  void Withhold() { withheld_ = true; }
  bool withheld() const { return withheld_; }

  // Writes the header; with an error value nothing follows it. The length of all that was written,
  // 0 if there is no reply or no room for one.
  uint32_t Finish(int error);

 private:
  const virtio::DescriptorChain* chain_;
  uint64_t unique_;
  uint32_t room_;
  uint32_t size_ = 0;
  bool withheld_ = false;
};

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_FUSE_REQUEST_H_
