#include "api/body_reader.h"

#include <boost/beast/http/read.hpp>

namespace cube::api {

template <typename Parser>
Task<std::pair<boost::system::error_code, size_t>> ReadBody(Socket* socket,
                                                            beast::flat_buffer* buffer,
                                                            Parser* parser, char* piece,
                                                            size_t size) {
  auto& body = parser->get().body();
  while (!parser->is_done()) {
    body.data = piece;
    body.size = size;
    body.more = true;
    auto [failed, used] = co_await http::async_read_some(*socket, *buffer, *parser, pool::kAsTuple);
    if (failed == http::error::need_buffer) failed = {};
    size_t got = size - body.size;
    if (failed || got != 0) co_return std::pair(failed, got);
  }
  co_return std::pair(boost::system::error_code(), size_t{0});
}

template Task<std::pair<boost::system::error_code, size_t>> ReadBody(Socket*, beast::flat_buffer*,
                                                                     RequestParser*, char*, size_t);
template Task<std::pair<boost::system::error_code, size_t>> ReadBody(Socket*, beast::flat_buffer*,
                                                                     ResponseParser*, char*,
                                                                     size_t);

}  // namespace cube::api
