#include "api/http_parser.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>

namespace cube::api {

HeaderScan::Found HeaderScan::Look(std::string_view text) {
  for (; place_ < text.size(); ++place_) {
    char c = text[place_];
    if (c == '\0') {
      wrong_ = "a zero byte in the header";
      return Found::kWrong;
    }
    if (c == '\r' && place_ + 1 == text.size()) return Found::kMore;
    if (c == '\r' && text[place_ + 1] != '\n') {
      wrong_ = "a CR without LF in the header";
      return Found::kWrong;
    }
    if (c == '\n' && (place_ == 0 || text[place_ - 1] != '\r')) {
      wrong_ = "a line of the header ends without CR";
      return Found::kWrong;
    }
    if (place_ == line_ && line_ != 0 && (c == ' ' || c == '\t')) {
      wrong_ = "a line of the header is continued";
      return Found::kWrong;
    }
    if (c != '\n') continue;
    bool is_empty = place_ - line_ == 1;
    line_ = place_ + 1;
    if (!is_empty) continue;
    ++place_;
    return Found::kWhole;
  }
  return Found::kMore;
}

std::optional<const char*> ParseRequestHeader(std::string_view header, RequestParser* parser) {
  parser->header_limit(static_cast<uint32_t>(header.size()) + 1);
  parser->body_limit(boost::none);
  boost::system::error_code failed;
  size_t used = parser->put(boost::asio::buffer(header.data(), header.size()), failed);
  if (failed || used != header.size() || !parser->is_header_done()) {
    return "the header is not HTTP/1.1";
  }
  const auto& message = parser->get();
  if (message.version() != 11 && message.version() != 10) return "the version is not HTTP/1.1";
  size_t lengths = 0, codings = 0, hosts = 0;
  for (const auto& field : message) {
    lengths += field.name() == http::field::content_length;
    codings += field.name() == http::field::transfer_encoding;
    hosts += field.name() == http::field::host;
  }
  if (lengths > 1) return "more than one Content-Length";
  if (codings > 1 || (codings == 1 && message.version() == 10)) return "Transfer-Encoding";
  if (lengths != 0 && codings != 0) return "both Content-Length and Transfer-Encoding";
  if (codings == 1 && !beast::iequals(message[http::field::transfer_encoding], "chunked")) {
    return "a Transfer-Encoding other than chunked";
  }
  if (hosts > 1 || (hosts == 0 && message.version() == 11)) return "there is not one Host";
  return std::nullopt;
}

}  // namespace cube::api
