#ifndef CUBE_API_RELAY_H_
#define CUBE_API_RELAY_H_

#include <memory>
#include <string>

#include "api/body_reader.h"
#include "api/guest_link.h"

namespace cube::api {

// A client's side of a connection; shared by those that carry one exchange.
struct ClientSide {
  explicit ClientSide(Socket connected) : socket(std::move(connected)) {}
  Socket socket;
  beast::flat_buffer buffer;  // what has come and was not yet used
};

// One request and its response, carried between a client and a sandbox as they come: pieces are
// passed on at once, and neither side is read faster than the other takes it.
struct RelayOrder {
  std::shared_ptr<ClientSide> client;
  std::shared_ptr<RequestParser> request;  // its header is read, its body is not
  std::shared_ptr<GuestLink> guest;
  std::string host;  // in place of the client's Host, if not empty
  // A browser may show the response as a page, and would take it for one of the dashboard's origin:
  // it is told to keep it apart.
  bool keep_apart = false;
};

struct RelayResult {
  bool keep_client = false;  // another request may follow
  bool keep_guest = false;   // another may be sent
  bool answered = false;     // the client has got something
  unsigned status = 0;
};

Task<RelayResult> Relay(RelayOrder order);

}  // namespace cube::api

#endif  // CUBE_API_RELAY_H_
