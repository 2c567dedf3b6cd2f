#ifndef CUBE_POOL_TLS_AUTHORITY_H_
#define CUBE_POOL_TLS_AUTHORITY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace cube::pool {

// A certification authority of one's own, and a certificate that it vouches for.
struct TlsFiles {
  std::string authority;    // PEM: what clients have to trust
  std::string certificate;  // PEM: the server's, and the authority's behind it
  std::string key;          // PEM, mode 0600: the server's
  std::vector<std::string> names;
  int64_t until_ms = 0;  // of the server's certificate, since 1970
};

// Writes them, with keys on the curve P-256, into `folder`, which is made if need be; each file is
// the old one or the new one. An authority that is there is used again, so that its clients need
// not be told of another; a server's certificate is made anew. It is for localhost, 127.0.0.1, ::1,
// this host's name, `domain` and all names one step beneath it (not if empty), and `names`: names
// of hosts, of which the first piece may be "*", or addresses.
Result<TlsFiles> MakeTlsFiles(const std::string& folder, const std::string& domain,
                              const std::vector<std::string>& names);

}  // namespace cube::pool

#endif  // CUBE_POOL_TLS_AUTHORITY_H_
