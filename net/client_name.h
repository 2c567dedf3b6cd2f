#ifndef CUBE_NET_CLIENT_NAME_H_
#define CUBE_NET_CLIENT_NAME_H_

#include <cstdint>
#include <span>
#include <string>

namespace cube::net {

// What the first bytes of a connection say of the name that its client wants.
struct ClientName {
  enum State {
    kMore,     // they do not say it yet
    kKnown,    // `name`
    kRefused,  // they never will: `why`
  };
  State state = kMore;
  std::string name;  // lower-cased, without a port
  std::string why;
  std::string head;  // HTTP: what is to be sent in place of the first `consumed` bytes
  size_t consumed = 0;
};

// So many bytes are waited for at most.
inline constexpr size_t kMaxClientHead = 32 * 1024;

// The server_name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3), which may be
// in several records.
ClientName ReadTlsName(std::span<const uint8_t> bytes);

// The Host of an HTTP/1 request (RFC 9112). Strict: what two servers could read in two ways is
// refused. `head` asks the server to close the connection after its answer, so that a second
// request, for another name, is not heard.
ClientName ReadHttpName(std::span<const uint8_t> bytes);

}  // namespace cube::net

#endif  // CUBE_NET_CLIENT_NAME_H_
