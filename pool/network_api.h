#ifndef CUBE_POOL_NETWORK_API_H_
#define CUBE_POOL_NETWORK_API_H_

#include <string>

#include "pool/network_control.h"
#include "pool/node.h"
#include "pool/request_fields.h"

namespace cube::pool {

// "allow", "deny" and "internet", "bytes_per_second", "packets_per_second": a policy as requests
// have it (docs/network.md).
Outcome<net::Policy> PolicyFields(RequestFields* fields);

// A client's lists as a policy: "*" is every name, ranges of IPv6 are none that a sandbox could
// reach, and bits beyond a prefix do not count.
Outcome<net::Policy> PolicyOfLists(const NetworkPolicy& lists);

// The operations net.* of the control protocol: their answers.
Task<Outcome<std::string>> NetworkOperation(Node* node, std::string op, RequestFields* fields);

}  // namespace cube::pool

#endif  // CUBE_POOL_NETWORK_API_H_
