#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_CLOCK_SETTING_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_CLOCK_SETTING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cube::agent::envd {

// Unix time in nanoseconds of a time as RFC 3339 writes it; nothing if it is not one.
std::optional<int64_t> ParseTimestamp(std::string_view text);
// The other way round, in UTC.
std::string FormatTimestamp(int64_t seconds, int64_t nanoseconds);

// Sets the machine's clock to `now`, Unix time in nanoseconds, if it is more than 50 ms behind or
// 5 s ahead: less than that is the time the word took to get here.
void SetClockIfWrong(int64_t now);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_CLOCK_SETTING_H_
