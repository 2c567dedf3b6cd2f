#ifndef CUBE_API_DATE_TEXT_H_
#define CUBE_API_DATE_TEXT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cube::api {

// RFC 3339 in UTC with milliseconds: "2026-01-02T03:04:05.678Z". `ms`: since 1970.
std::string DateText(int64_t ms);

// The same from text, with or without a fraction, with "Z" or "+hh:mm". Finer digits than
// milliseconds are dropped.
std::optional<int64_t> ParseDate(std::string_view text);

}  // namespace cube::api

#endif  // CUBE_API_DATE_TEXT_H_
