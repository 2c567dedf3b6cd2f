#ifndef CUBE_POOL_CLIENT_CONNECTION_H_
#define CUBE_POOL_CLIENT_CONNECTION_H_

#include <boost/json/object.hpp>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::pool {

// A client's connection to cubed's control socket (control_api.h).
class ClientConnection {
 public:
  static Result<ClientConnection> Open(const std::string& path);

  // The answer's text, whatever it says.
  Result<std::string> Ask(const std::string& request);
  // The next line of a stream.
  Result<std::string> Next();

 private:
  explicit ClientConnection(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
  std::string buffer_;
};

// An answer's object, or its "error".
Result<boost::json::object> Understand(const std::string& answer);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_CONNECTION_H_
