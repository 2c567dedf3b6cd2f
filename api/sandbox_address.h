#ifndef CUBE_API_SANDBOX_ADDRESS_H_
#define CUBE_API_SANDBOX_ADDRESS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/message.h"

namespace cube::api {

// A port of a sandbox, as a request's header names it.
struct SandboxAddress {
  std::string sandbox;
  uint16_t port = 0;
};

// To whom a request is: to a sandbox, to nobody because what it says is wrong, or, with neither of
// both, to the control plane.
struct Addressee {
  std::optional<SandboxAddress> sandbox;
  std::string wrong;
};

// A host PORT-ID.anything names a sandbox, whatever else there is; else the fields E2b-Sandbox-Id
// and E2b-Sandbox-Port do. Any request may claim anything.
Addressee AddresseeOf(const Headers& headers);

// The host without a port; "[::1]" without its brackets.
std::string_view HostName(std::string_view host);
// Whether that is an address or a name of this host itself.
bool IsLocalName(std::string_view name);

}  // namespace cube::api

#endif  // CUBE_API_SANDBOX_ADDRESS_H_
