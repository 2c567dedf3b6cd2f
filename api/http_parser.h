#ifndef CUBE_API_HTTP_PARSER_H_
#define CUBE_API_HTTP_PARSER_H_

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <optional>
#include <string_view>

namespace cube::api {

namespace beast = boost::beast;
namespace http = boost::beast::http;

using RequestParser = http::request_parser<http::buffer_body>;
using ResponseParser = http::response_parser<http::buffer_body>;

// Where the next header in a buffer ends, or why it cannot be one. What two parsers could
// understand in two ways is wrong: lines that end without CR, continued lines, zero bytes.
class HeaderScan {
 public:
  enum class Found { kMore, kWhole, kWrong };
  // `text`: all that has come, of which what was there at the last call is not looked at again.
  Found Look(std::string_view text);
  // The header's length, with its empty line.
  size_t size() const { return place_; }
  const char* wrong() const { return wrong_; }

 private:
  size_t place_ = 0;  // up to here it is well
  size_t line_ = 0;   // where the present line begins
  const char* wrong_ = "";
};

// Parses a header that was found whole. Framing that is not plain is refused: more than one length,
// a length and chunks, other codings; hosts that are missing or more than one.
// `header`: without what follows it.
std::optional<const char*> ParseRequestHeader(std::string_view header, RequestParser* parser);

}  // namespace cube::api

#endif  // CUBE_API_HTTP_PARSER_H_
