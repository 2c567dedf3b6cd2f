#ifndef CUBE_API_GATEWAY_H_
#define CUBE_API_GATEWAY_H_

#include <memory>

#include "api/connection.h"
#include "pool/node.h"

namespace cube::api {

// Lets requests of clients through to servers in sandboxes. On one thread.
class Gateway {
 public:
  explicit Gateway(pool::Node* node) : node_(node) {}

  // A connection to the sandbox's port, or what is answered instead: see Handlers::open.
  Task<Handlers::Opened> Open(SandboxAddress address, std::shared_ptr<Request> request,
                              std::shared_ptr<GuestLink> idle);

 private:
  // Running, if need be after it was resumed; or null.
  Task<std::shared_ptr<pool::Sandbox>> Awake(std::string id);

  pool::Node* node_;
};

}  // namespace cube::api

#endif  // CUBE_API_GATEWAY_H_
