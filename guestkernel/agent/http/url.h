#ifndef CUBE_GUESTKERNEL_AGENT_HTTP_URL_H_
#define CUBE_GUESTKERNEL_AGENT_HTTP_URL_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cube::agent::http {

// Names and values of a query string or form, in their order.
using Parameters = std::vector<std::pair<std::string, std::string>>;

// Undoes percent-encoding (RFC 3986 section 2.1), and with `plus` that of blanks in queries. What
// is not a valid escape is left as it is.
std::string DecodePercent(std::string_view text, bool plus);

// Takes what follows the '?' of a request target apart.
Parameters ParseQuery(std::string_view query);

}  // namespace cube::agent::http

#endif  // CUBE_GUESTKERNEL_AGENT_HTTP_URL_H_
