#ifndef CUBE_VMM_CLI_OUTPUT_SINK_H_
#define CUBE_VMM_CLI_OUTPUT_SINK_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace cube::vmm {

// Where output of the guest goes: a descriptor of the caller's, written without ever blocking the
// event loop on a slow reader and without changing the descriptor's flags, which other processes
// share.
class OutputSink {
 public:
  explicit OutputSink(int fd);

  // Writes what can be written now; returns how many bytes that was. 0 with !closed() means: wait
  // until the descriptor is writable.
  size_t Write(std::span<const uint8_t> bytes);
  // The reader has gone; nothing more can be written.
  bool closed() const { return closed_; }
  // False for files, which are always writable and cannot be waited for.
  bool may_block() const { return kind_ != Kind::kFile; }
  int fd() const { return fd_; }

 private:
  enum class Kind { kFile, kPipe, kSocket };

  int fd_;
  Kind kind_;
  bool closed_ = false;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_OUTPUT_SINK_H_
