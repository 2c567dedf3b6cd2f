#include "devices/fs/fuse_request.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "devices/fs/host_file.h"

namespace cube::devices::fs {

std::optional<FuseRequest> FuseRequest::Parse(const virtio::DescriptorChain& chain) {
  auto header = chain.ReadObject<fuse_in_header>(0);
  if (!header || header->len != chain.readable_size()) return std::nullopt;
  return FuseRequest(chain, *header);
}

int FuseRequest::TakeText(size_t limit, std::string* text) {
  size_t size = std::min<size_t>(left(), limit + 1);
  text->resize(size);
  auto* bytes = reinterpret_cast<uint8_t*>(text->data());
  chain_->Read(offset_, {bytes, size});
  const void* end = memchr(bytes, 0, size);
  if (end == nullptr) return size > limit ? ENAMETOOLONG : EINVAL;
  text->resize(static_cast<size_t>(static_cast<const uint8_t*>(end) - bytes));
  offset_ += static_cast<uint32_t>(text->size()) + 1;
  return 0;
}

int FuseRequest::TakeName(std::string* name) {
  CUBE_FS_TRY(TakeText(NAME_MAX, name));
  return CheckName(*name);
}

int FuseRequest::TakeBytes(uint32_t size, std::vector<uint8_t>* bytes) {
  if (left() < size) return EINVAL;
  bytes->resize(size);
  chain_->Read(offset_, *bytes);
  offset_ += size;
  return 0;
}

int FuseRequest::TakeIovecs(uint32_t size, std::vector<iovec>* out) {
  if (left() < size) return EINVAL;
  chain_->ReadableIovecs(offset_, size, out);
  offset_ += size;
  return 0;
}

FuseReply::FuseReply(const virtio::DescriptorChain& chain, uint64_t unique)
    : chain_(&chain), unique_(unique), room_(chain.writable_size()) {
  room_ -= std::min<uint32_t>(room_, sizeof(fuse_out_header));
}

void FuseReply::PutBytes(std::span<const uint8_t> bytes) {
  size_ += static_cast<uint32_t>(
      chain_->Write(static_cast<uint32_t>(sizeof(fuse_out_header)) + size_, bytes));
}

void FuseReply::RoomIovecs(uint32_t size, std::vector<iovec>* out) const {
  chain_->WritableIovecs(static_cast<uint32_t>(sizeof(fuse_out_header)) + size_, size, out);
}

uint32_t FuseReply::Finish(int error) {
  if (withheld_ || chain_->writable_size() < sizeof(fuse_out_header)) return 0;
  fuse_out_header header = {};
  header.len = static_cast<uint32_t>(sizeof header) + (error == 0 ? size_ : 0);
  header.error = -error;
  header.unique = unique_;
  chain_->WriteObject(0, header);
  return header.len;
}

}  // namespace cube::devices::fs
