#include "snapshot/sequential_writer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "snapshot/memory_file.h"

namespace cube::snapshot {
namespace {

// What is copied before it is hashed: it stays in the cache meanwhile.
constexpr size_t kPiece = 64 << 10;

}  // namespace

Result<std::unique_ptr<SequentialWriter>> SequentialWriter::Create(int fd, uint64_t size,
                                                                   uint64_t direct_from) {
  std::unique_ptr<SequentialWriter> writer(new SequentialWriter(fd, size, direct_from));
  CUBE_TRY(writer->Prepare());
  return writer;
}

Status SequentialWriter::Prepare() {
  // Also what lets direct writes go on side by side: the file does not grow under them.
  if (size_ != 0 && fallocate(fd_, 0, 0, static_cast<off_t>(size_)) < 0) {
    if (errno != EOPNOTSUPP && errno != ENOSYS) {
      return ErrnoError("room for %llu bytes of memory", static_cast<unsigned long long>(size_));
    }
    if (ftruncate(fd_, static_cast<off_t>(size_)) < 0) return ErrnoError("sizing memory");
  }
  const bool large = size_ > direct_from_;
  const size_t count = large ? kBuffers : 1;
  CUBE_ASSIGN(buffers_, Mapping::Map(count * kBufferBytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "buffers"));
  for (size_t i = 0; i < count; ++i) free_.push_back(i);
  if (large) (void)madvise(buffers_.data(), buffers_.size(), MADV_HUGEPAGE);
  return OkStatus();
}

void SequentialWriter::StartDirect() {
  direct_from_ = UINT64_MAX;
  flags_ = fcntl(fd_, F_GETFL);
  direct_ = flags_ >= 0 && fcntl(fd_, F_SETFL, flags_ | O_DIRECT) == 0;
  ring_.emplace();
  if (io_uring_queue_init(kBuffers, &*ring_, 0) < 0) ring_.reset();
}

SequentialWriter::~SequentialWriter() {
  // The buffers are the kernel's until it has done with them.
  while (in_flight_ > 0) {
    size_t before = in_flight_;
    (void)Reap();
    if (in_flight_ == before) break;
  }
  if (ring_) io_uring_queue_exit(&*ring_);
  StopDirect();
}

void SequentialWriter::StopDirect() {
  if (direct_) (void)fcntl(fd_, F_SETFL, flags_);
  direct_ = false;
}

Status SequentialWriter::Append(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    if (!current_) CUBE_TRY(TakeBuffer());
    size_t size = std::min({bytes.size(), kPiece, room_ - filled_});
    uint8_t* to = Buffer(*current_).data() + filled_;
    memcpy(to, bytes.data(), size);
    hasher_.Add(to, size);
    filled_ += size;
    bytes = bytes.subspan(size);
    if (filled_ == room_) CUBE_TRY(Send());
  }
  return OkStatus();
}

Result<std::string> SequentialWriter::Finish() {
  if (current_) CUBE_TRY(Send());
  while (in_flight_ > 0) CUBE_TRY(Reap());
  StopDirect();
  if (sent_ != size_) {
    return Errorf("%llu bytes of memory were written, not %llu",
                  static_cast<unsigned long long>(sent_), static_cast<unsigned long long>(size_));
  }
  return hasher_.Hex();
}

Status SequentialWriter::TakeBuffer() {
  if (sent_ >= direct_from_) StartDirect();
  while (free_.empty()) CUBE_TRY(Reap());
  current_ = free_.back();
  free_.pop_back();
  filled_ = 0;
  room_ = std::min<uint64_t>(kBufferBytes, direct_from_ - sent_);
  return OkStatus();
}

Status SequentialWriter::Send() {
  const size_t index = *current_;
  std::span<uint8_t> bytes = Buffer(index).first(filled_);
  current_.reset();
  const uint64_t offset = sent_;
  sent_ += bytes.size();
  // What the file system has set aside reads as zeros.
  const bool zero = IsZero(bytes);
  io_uring_sqe* entry = ring_ && !zero ? io_uring_get_sqe(&*ring_) : nullptr;
  if (entry == nullptr) {
    free_.push_back(index);
    return zero ? OkStatus() : WriteNow(bytes, offset);
  }
  writes_[index] = {offset, bytes.size()};
  io_uring_prep_write(entry, fd_, bytes.data(), static_cast<unsigned>(bytes.size()), offset);
  io_uring_sqe_set_data64(entry, index);
  int submitted = io_uring_submit(&*ring_);
  if (submitted < 0) {
    errno = -submitted;
    return ErrnoError("io_uring_submit");
  }
  ++in_flight_;
  return OkStatus();
}

Status SequentialWriter::Reap() {
  io_uring_cqe* end = nullptr;
  int waited = io_uring_wait_cqe(&*ring_, &end);
  if (waited == -EINTR) return OkStatus();
  if (waited < 0) {
    errno = -waited;
    return ErrnoError("io_uring_wait_cqe");
  }
  const auto index = static_cast<size_t>(io_uring_cqe_get_data64(end));
  const int result = end->res;
  io_uring_cqe_seen(&*ring_, end);
  --in_flight_;
  free_.push_back(index);
  const InFlight& write = writes_[index];
  size_t done = result > 0 ? static_cast<size_t>(result) : 0;
  if (done == write.size) return OkStatus();
  // A file system may take O_DIRECT and then refuse such writes.
  if (result == -EINVAL) StopDirect();
  if (result < 0 && result != -EINVAL && result != -EAGAIN && result != -EINTR) {
    errno = -result;
    return ErrnoError("writing memory at %llu", static_cast<unsigned long long>(write.offset));
  }
  return WriteNow(Buffer(index).first(write.size).subspan(done), write.offset + done);
}

Status SequentialWriter::WriteNow(std::span<const uint8_t> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EINVAL && direct_) {
      StopDirect();
      continue;
    }
    if (n <= 0)
      return ErrnoError("writing memory at %llu", static_cast<unsigned long long>(offset));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return OkStatus();
}

}  // namespace cube::snapshot
