#ifndef CUBE_API_MESSAGE_H_
#define CUBE_API_MESSAGE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "pool/outcome.h"

namespace cube::api {

// The fields of an HTTP header in their order; names are compared without regard to case.
class Headers {
 public:
  void Add(std::string name, std::string value) {
    all_.emplace_back(std::move(name), std::move(value));
  }
  // The first of that name, or null.
  const std::string* Find(std::string_view name) const;
  const std::vector<std::pair<std::string, std::string>>& all() const { return all_; }

 private:
  std::vector<std::pair<std::string, std::string>> all_;
};

// A request to the control plane, read as a whole; everything in it may be anything.
struct Request {
  std::string id;    // ours, for logs
  std::string peer;  // the client's address
  std::string method;
  std::string target;  // as it came
  std::string path;    // of that, before the '?'; escapes as they came
  std::string query;   // after it
  Headers headers;
  std::string body;
};

// What is answered.
struct Reply {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  // In place of a body: so many bytes of a file from its beginning. One that has got shorter ends
  // the connection.
  std::shared_ptr<UniqueFd> file;
  uint64_t file_size = 0;

  static Reply Json(unsigned status, std::string text) {
    Reply reply;
    reply.status = status;
    reply.body = std::move(text);
    return reply;
  }
  // Without a body: 204.
  static Reply Nothing() {
    Reply reply;
    reply.status = 204;
    reply.content_type.clear();
    return reply;
  }
  // {"code":STATUS,"message":MESSAGE}
  static Reply Error(unsigned status, std::string_view message);
};

// The status that tells of that kind of fault.
unsigned StatusOf(pool::Fault fault);
Reply ReplyOf(const pool::Refusal& refusal);

}  // namespace cube::api

#endif  // CUBE_API_MESSAGE_H_
