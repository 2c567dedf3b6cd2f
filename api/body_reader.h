#ifndef CUBE_API_BODY_READER_H_
#define CUBE_API_BODY_READER_H_

#include <utility>

#include "api/guest_link.h"
#include "api/http_parser.h"

namespace cube::api {

// Reads some of a body into `piece`; bytes read. 0 with parser->is_done(): its end.
template <typename Parser>
Task<std::pair<boost::system::error_code, size_t>> ReadBody(Socket* socket,
                                                            beast::flat_buffer* buffer,
                                                            Parser* parser, char* piece,
                                                            size_t size);
extern template Task<std::pair<boost::system::error_code, size_t>> ReadBody(Socket*,
                                                                            beast::flat_buffer*,
                                                                            RequestParser*, char*,
                                                                            size_t);
extern template Task<std::pair<boost::system::error_code, size_t>> ReadBody(Socket*,
                                                                            beast::flat_buffer*,
                                                                            ResponseParser*, char*,
                                                                            size_t);

}  // namespace cube::api

#endif  // CUBE_API_BODY_READER_H_
