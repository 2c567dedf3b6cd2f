#ifndef CUBE_TEMPLATES_LAYER_READER_H_
#define CUBE_TEMPLATES_LAYER_READER_H_

#include <cstdint>
#include <string>

#include "base/result.h"
#include "templates/tree.h"

namespace cube::templates {

// What may still be unpacked: a hostile archive of a few kilobytes says it has petabytes.
struct UnpackBudget {
  static constexpr uint64_t kDefaultBytes = uint64_t{16} << 30;
  static constexpr uint64_t kDefaultEntries = 2'000'000;
  static constexpr uint64_t kMaxLinkTarget = 4095;
  static constexpr uint64_t kMaxAttribute = 64 * 1024;

  uint64_t bytes = kDefaultBytes;  // of files' content, holes as well
  uint64_t entries = kDefaultEntries;
};

enum class ArchiveKind {
  kLayer,  // of a container image: whiteouts delete (OCI image specification, layer.md)
  kPlain,  // files and links, as they are
};

// Unpacks the tar `fd` (ustar, pax, GNU; bare or compressed by gzip or zstd) into `tree`: over what
// is there, with owners, modes, times, hard links, extended attributes and device nodes; those
// beneath dev/ are left out, as a guest makes its own. `what` names it in errors. Root is needed
// for other owners than one's own. On an error the tree has a part of it.
Status UnpackArchive(int fd, const std::string& what, ArchiveKind kind, const Tree& tree,
                     UnpackBudget* budget);

// The SHA-256 of what is in the file `fd`, without its compression.
Result<std::string> UncompressedSha256(int fd, const std::string& what, uint64_t max_bytes);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_LAYER_READER_H_
