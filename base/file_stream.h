#ifndef CUBE_BASE_FILE_STREAM_H_
#define CUBE_BASE_FILE_STREAM_H_

#include <cstdint>

// Files on their way into a guest: a stream of entries, each a header, its strings, and of a file
// its bytes. What writes it runs on the host (templates/), what reads it in the guest
// (guestkernel/agent/tools), which has the guest's files to lose and nothing else.
namespace cube::file_stream {

inline constexpr uint32_t kMagic = 0x31736663;  // "cfs1"
inline constexpr uint32_t kMaxPath = 4095;
inline constexpr uint32_t kMaxOwner = 255;

enum class Kind : uint32_t {
  kEnd = 0,     // nothing follows; without it the stream was cut off
  kFolder = 1,  // made with those above it, if it is not there; if it is, it gets the mode
  kFile = 2,    // replaces what is at its path
  kLink = 3,    // a symbolic link, whose target is the content
};

// Little-endian. Then `path_bytes` of path, which begins with '/', `name_bytes` of name,
// `owner_bytes` of owner, and `size` bytes of content.
struct Header {
  uint32_t magic;
  uint32_t kind;
  uint32_t mode;  // permissions, 07777
  uint32_t path_bytes;
  uint32_t name_bytes;   // of a file's or link's name in `path`, should that be a folder; 0: none
  uint32_t owner_bytes;  // USER[:GROUP]; 0: root
  uint64_t size;
};
static_assert(sizeof(Header) == 32);

inline constexpr uint32_t kKeepMode = 0xffffffff;  // of a folder: 0755 if made, else as it is

}  // namespace cube::file_stream

#endif  // CUBE_BASE_FILE_STREAM_H_
