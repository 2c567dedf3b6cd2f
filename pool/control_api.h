#ifndef CUBE_POOL_CONTROL_API_H_
#define CUBE_POOL_CONTROL_API_H_

#include <functional>
#include <string>

#include "pool/node.h"
#include "pool/request_fields.h"

namespace cube::pool {

// The control protocol of cubed: a request is a JSON object in a line, with "op"; its answer has
// "ok" and, if that is false, "error", one line, and "code", the Fault's name. "tag", a string,
// comes back with the answer. docs/node.md lists the operations and their fields.
class ControlApi {
 public:
  struct Owner {
    Node* node;
    // The daemon ends, once whoever asked has been answered.
    std::function<void()> leave;
    // Reads the configuration file again.
    std::function<Outcome<Done>()> reload;
    // key.create, key.list and key.revoke.
    std::function<Outcome<std::string>(const std::string& op, RequestFields* fields)> keys;
    // Where HTTP is served; "" if it is not.
    std::function<std::string()> http_address;
  };

  explicit ControlApi(Owner owner) : owner_(std::move(owner)) {}

  // The answer to a line that may be anything. The line "{"op":"events"}" is the caller's.
  Task<std::string> Carry(std::string line);

 private:
  Task<Outcome<std::string>> Dispatch(RequestFields* fields);
  Task<Outcome<std::string>> Create(RequestFields* fields);
  Task<Outcome<std::string>> OfSandbox(std::string op, RequestFields* fields);
  Task<Outcome<std::string>> Change(std::string op, std::string id, RequestFields* fields);
  Outcome<std::string> Logs(const Sandbox& sandbox, RequestFields* fields);
  Outcome<std::string> Metrics(const Sandbox& sandbox);

  Owner owner_;
};

// {"ok":false,...}
std::string RefusalAnswer(const Refusal& refusal, const std::string& tag);

}  // namespace cube::pool

#endif  // CUBE_POOL_CONTROL_API_H_
