#ifndef CUBE_API_NETWORK_REQUEST_H_
#define CUBE_API_NETWORK_REQUEST_H_

#include <optional>
#include <string>

#include "api/fields.h"
#include "pool/network_control.h"

namespace cube::api {

// What a client says about a sandbox's network.
struct NetworkRequest {
  pool::NetworkPolicy policy;
  std::optional<bool> allow_internet_access;
  bool allow_public_traffic = true;
  std::string mask_host;
  std::string text;         // the object again, JSON, without what is secret; "" if empty
  std::string unsupported;  // what it asks for that no node does: its name
};

// `network` is the object or null; `outer` has allow_internet_access. What is wrong is noted in the
// fields.
NetworkRequest ReadNetwork(Fields* outer, Fields* network);

// The object of a create after an update that replaces what can be updated: what comes in, and who
// may, stays as it was.
std::string MergeNetwork(const std::string& created, const std::string& updated);

// a.b.c.d or a.b.c.d/n.
bool IsAddressRange(const std::string& text);
// A name of a host, or "*." before one.
bool IsDomainPattern(const std::string& text);

}  // namespace cube::api

#endif  // CUBE_API_NETWORK_REQUEST_H_
