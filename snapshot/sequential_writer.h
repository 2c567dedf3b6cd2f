#ifndef CUBE_SNAPSHOT_SEQUENTIAL_WRITER_H_
#define CUBE_SNAPSHOT_SEQUENTIAL_WRITER_H_

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "snapshot/page_hasher.h"

namespace cube::snapshot {

// Writes a file of known length front to back, and hashes it. What is large goes past the page
// cache where the file system lets it (O_DIRECT), by io_uring with several writes in flight: what
// is appended is copied and hashed, in the processor's cache, while the disk has what came before.
// Pages of a fork of a process cannot be written to a disk without a copy of them in any case: the
// kernel would make each the child's own first. Where there is no io_uring, writes are made one at
// a time.
//
// One thread. A file whose writer goes before Finish() has any content.
class SequentialWriter {
 public:
  // `fd`, which outlives this, is an empty file; `size`, a multiple of the page, is what it will
  // have. The file system is asked for the room at once: an error says that there is none. What
  // comes before `direct_from`, a multiple of the page, stays in the page cache, where who reads it
  // next finds it.
  static Result<std::unique_ptr<SequentialWriter>> Create(int fd, uint64_t size,
                                                          uint64_t direct_from);
  ~SequentialWriter();
  SequentialWriter(const SequentialWriter&) = delete;
  SequentialWriter& operator=(const SequentialWriter&) = delete;

  // The next bytes of the file.
  Status Append(std::span<const uint8_t> bytes);
  // Waits until all is written, though not durable; xxh3-128 of it in hexadecimal. `size` bytes
  // have been appended.
  Result<std::string> Finish();

 private:
  // In flight at once; a disk of this kind needs some MiB to be busy.
  static constexpr size_t kBuffers = 8;
  static constexpr size_t kBufferBytes = 1 << 20;

  SequentialWriter(int fd, uint64_t size, uint64_t direct_from)
      : fd_(fd), size_(size), direct_from_(direct_from) {}
  Status Prepare();
  std::span<uint8_t> Buffer(size_t index) const {
    return buffers_.span().subspan(index * kBufferBytes, kBufferBytes);
  }
  // Finds `current_` a buffer that is not being written.
  Status TakeBuffer();
  void StartDirect();
  // Sends the current buffer on its way.
  Status Send();
  // Takes the end of one write.
  Status Reap();
  Status WriteNow(std::span<const uint8_t> bytes, uint64_t offset);
  void StopDirect();

  struct InFlight {
    uint64_t offset = 0;
    size_t size = 0;
  };

  int fd_;
  uint64_t size_;
  uint64_t direct_from_;
  uint64_t sent_ = 0;  // up to here
  int flags_ = 0;      // of the file, as they were
  bool direct_ = false;
  std::optional<io_uring> ring_;
  Mapping buffers_;
  std::vector<size_t> free_;
  InFlight writes_[kBuffers];
  size_t in_flight_ = 0;
  std::optional<size_t> current_;
  size_t filled_ = 0;  // of the current buffer
  size_t room_ = 0;    // in it
  PageHasher hasher_;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_SEQUENTIAL_WRITER_H_
