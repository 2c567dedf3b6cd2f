#ifndef CUBE_GUESTKERNEL_AGENT_HTTP_REQUEST_PARSER_H_
#define CUBE_GUESTKERNEL_AGENT_HTTP_REQUEST_PARSER_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "guestkernel/agent/http/request.h"

namespace cube::agent::http {

// Parses one request, in pieces as they arrive. The head has to be given from its start until it is
// whole; of the body every byte is taken at once, chunks are undone.
class RequestParser {
 public:
  static constexpr size_t kMaxHead = 64 * 1024;
  static constexpr size_t kMaxFields = 256;

  // What Parse() stopped at.
  enum class Step {
    kNeedMore,  // what is left is to be given again, with more after it
    kHead,      // the head is whole; a body may follow
    kDone,      // the request is whole
    kTooLarge,  // the head is larger than kMaxHead or has too many fields
    kBad,       // not HTTP/1.1
  };

  RequestParser();
  ~RequestParser();

  // Is given the body, in pieces that lie in the parser's input.
  using Body = std::function<void(std::string_view bytes)>;

  // Takes what it can from the front of `input`. After kTooLarge and kBad it is not to be called
  // again, after kDone neither.
  Step Parse(std::string_view* input, const Body& body);

  // Of the request whose head is whole.
  Request& request() const;

 private:
  class Beast;

  std::unique_ptr<Beast> beast_;
};

}  // namespace cube::agent::http

#endif  // CUBE_GUESTKERNEL_AGENT_HTTP_REQUEST_PARSER_H_
