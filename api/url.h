#ifndef CUBE_API_URL_H_
#define CUBE_API_URL_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cube::api {

// The bytes that `text` stands for; nothing if an escape is not "%" and two hexadecimal digits.
// `plus_is_space`: as in a query.
std::optional<std::string> PercentDecode(std::string_view text, bool plus_is_space);
std::string PercentEncode(std::string_view text);

// The fields of a query string in their order, decoded; nothing if an escape is wrong, or there are
// more than 100.
using QueryFields = std::vector<std::pair<std::string, std::string>>;
std::optional<QueryFields> ParseQuery(std::string_view query);

// The pieces between a path's slashes, decoded; nothing if an escape is wrong, if a piece has a
// zero byte, or the path does not begin with a slash.
std::optional<std::vector<std::string>> SplitPath(std::string_view path);

// Base64 for URLs, without padding (RFC 4648 section 5).
std::string Base64Url(std::string_view bytes);
std::optional<std::string> DecodeBase64Url(std::string_view text);

}  // namespace cube::api

#endif  // CUBE_API_URL_H_
