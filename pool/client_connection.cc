#include "pool/client_connection.h"

#include <sys/socket.h>

#include <boost/json.hpp>
#include <cerrno>

#include "vmm/cli/control_server.h"

namespace cube::pool {

namespace json = boost::json;

Result<ClientConnection> ClientConnection::Open(const std::string& path) {
  auto socket = vmm::ConnectControl(path);
  if (!socket.ok()) {
    return Errorf("%s: does cubed run? \"cube up\" starts it", socket.error().message().c_str());
  }
  return ClientConnection(std::move(*socket));
}

Result<std::string> ClientConnection::Ask(const std::string& request) {
  CUBE_TRY(vmm::SendLine(socket_.get(), request));
  return Next();
}

// An answer has what a node with thousands of sandboxes has to say: there is no limit but memory.
Result<std::string> ClientConnection::Next() {
  for (;;) {
    size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    char piece[65536];
    ssize_t n = recv(socket_.get(), piece, sizeof piece, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("the control socket");
    if (n == 0) return Errorf("cubed has ended the connection");
    buffer_.append(piece, static_cast<size_t>(n));
  }
}

Result<json::object> Understand(const std::string& answer) {
  json::error_code failed;
  json::value value = json::parse(answer, failed);
  if (failed || !value.is_object()) return Errorf("not an answer: %.200s", answer.c_str());
  json::object object = std::move(value.get_object());
  const json::value* ok = object.if_contains("ok");
  if (ok != nullptr && ok->is_bool() && ok->get_bool()) return object;
  const json::value* error = object.if_contains("error");
  if (error == nullptr || !error->is_string()) return Errorf("cubed gives no reason");
  return Error(std::string(error->get_string()));
}

}  // namespace cube::pool
