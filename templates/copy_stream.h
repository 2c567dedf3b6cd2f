#ifndef CUBE_TEMPLATES_COPY_STREAM_H_
#define CUBE_TEMPLATES_COPY_STREAM_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "templates/build_context.h"
#include "templates/digest.h"

namespace cube::templates {

// Entries as the stream that a guest unpacks (base/file_stream.h), piece by piece.
class CopyStream {
 public:
  // Both outlive this. `context` may be null if no entry has a source.
  CopyStream(const BuildContext* context, const std::vector<CopyEntry>* entries)
      : context_(context), entries_(entries) {}

  // The next bytes; 0 at the end. A file that is not any more what its entry says is an error.
  Result<size_t> Read(std::span<uint8_t> out);

 private:
  Status Begin();
  Result<size_t> ReadFile(std::span<uint8_t> out);

  const BuildContext* context_;
  const std::vector<CopyEntry>* entries_;
  size_t next_ = 0;      // entry
  std::string pending_;  // to be sent before the file goes on
  size_t sent_ = 0;      // of it
  UniqueFd file_;        // of the entry before `next_`, while it has more
  uint64_t left_ = 0;    // of it
  std::unique_ptr<Sha256> sum_;
  bool ended_ = false;
};

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_COPY_STREAM_H_
