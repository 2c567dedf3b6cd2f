#include "templates/copy_stream.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/byte_io.h"

namespace cube::templates {

using file_stream::Header;
using file_stream::Kind;

Status CopyStream::Begin() {
  Header header = {};
  header.magic = file_stream::kMagic;
  pending_.clear();
  sent_ = 0;
  if (next_ == entries_->size()) {
    ended_ = true;
    pending_.assign(reinterpret_cast<const char*>(&header), sizeof header);
    return OkStatus();
  }
  const CopyEntry& entry = (*entries_)[next_++];
  header.kind = static_cast<uint32_t>(entry.kind);
  header.mode = entry.mode;
  header.path_bytes = static_cast<uint32_t>(entry.path.size());
  header.name_bytes = static_cast<uint32_t>(entry.name.size());
  header.owner_bytes = static_cast<uint32_t>(entry.owner.size());
  header.size = entry.content.size();
  if (entry.path.size() > file_stream::kMaxPath || entry.owner.size() > file_stream::kMaxOwner) {
    return Errorf("\"%.100s\" or its owner is longer than possible", entry.path.c_str());
  }
  if (!entry.source.empty()) {
    CUBE_ASSIGN(file_, context_->OpenSource(entry.source));
    CUBE_ASSIGN(left_, RegularFileSize(file_.get(), entry.source.c_str()));
    header.size = left_;
    sum_ = std::make_unique<Sha256>();
  }
  pending_.assign(reinterpret_cast<const char*>(&header), sizeof header);
  pending_ += entry.path + entry.name + entry.owner + entry.content;
  return OkStatus();
}

Result<size_t> CopyStream::ReadFile(std::span<uint8_t> out) {
  const CopyEntry& entry = (*entries_)[next_ - 1];
  size_t size = static_cast<size_t>(std::min<uint64_t>(left_, out.size()));
  ssize_t n = 0;
  do {
    n = read(file_.get(), out.data(), size);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return ErrnoError("\"%s\"", entry.source.c_str());
  left_ -= static_cast<uint64_t>(n);
  sum_->Add(std::span<const uint8_t>(out.data(), static_cast<size_t>(n)));
  if (left_ > 0 && n > 0) return static_cast<size_t>(n);
  file_.Reset();
  if (left_ > 0 || sum_->Finish() != entry.digest) {
    return Errorf("\"%s\" changed while it was copied", entry.source.c_str());
  }
  return static_cast<size_t>(n);
}

Result<size_t> CopyStream::Read(std::span<uint8_t> out) {
  while (true) {
    if (sent_ < pending_.size()) {
      size_t size = std::min(out.size(), pending_.size() - sent_);
      memcpy(out.data(), pending_.data() + sent_, size);
      sent_ += size;
      return size;
    }
    if (file_.valid()) {
      CUBE_ASSIGN(size_t size, ReadFile(out));
      if (size > 0) return size;
      continue;  // an empty file
    }
    if (ended_) return size_t{0};
    CUBE_TRY(Begin());
  }
}

}  // namespace cube::templates
