#ifndef CUBE_POOL_CLIENT_COPY_H_
#define CUBE_POOL_CLIENT_COPY_H_

#include <cstdint>
#include <optional>
#include <string>

#include "pool/client_guest.h"

namespace cube::pool {

// One end of a copy.
struct CopyEnd {
  std::string sandbox;  // its id; empty: a path of this host
  std::string path;

  // "ID:PATH", or a path. What begins with '/' or '.' is always a path.
  static CopyEnd Parse(const std::string& text);
};

struct Copied {
  uint64_t files = 0, folders = 0, bytes = 0;
  uint64_t left_out = 0;  // that are neither files nor folders
};

// Copies a file, or a folder with all that is in it, as cp(1) -r does: a folder that is there
// already gets it within. Modes are kept, without set-user-id; owners are not. What is left out is
// said on stderr.
Result<Copied> CopyToGuest(const GuestAccess& access, const std::string& from,
                           const std::string& to);
// Likewise. Names are the guest's words: nothing is written outside of `to`, whatever they are, and
// no link is followed that lies in it.
Result<Copied> CopyFromGuest(const GuestAccess& access, const std::string& from,
                             const std::string& to);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_COPY_H_
