#include "guestkernel/agent/envd/clock_setting.h"

#include <time.h>

#include <charconv>
#include <system_error>

#include "base/result.h"
#include "guestkernel/agent/log.h"

namespace cube::agent::envd {
namespace {

constexpr int64_t kNanoseconds = 1'000'000'000;
constexpr int64_t kMostBehind = 50'000'000;
constexpr int64_t kMostAhead = 5 * kNanoseconds;

// Takes a number of `digits` digits, followed by `after` unless that is 0, off `text`.
bool Take(std::string_view* text, size_t digits, char after, int* number) {
  if (text->size() < digits) return false;
  auto [end, error] = std::from_chars(text->data(), text->data() + digits, *number);
  if (error != std::errc() || end != text->data() + digits || *number < 0) return false;
  text->remove_prefix(digits);
  if (after == 0) return true;
  if (!text->starts_with(after)) return false;
  text->remove_prefix(1);
  return true;
}

}  // namespace

std::optional<int64_t> ParseTimestamp(std::string_view text) {
  tm date = {};
  if (!Take(&text, 4, '-', &date.tm_year) || !Take(&text, 2, '-', &date.tm_mon) ||
      !Take(&text, 2, 'T', &date.tm_mday) || !Take(&text, 2, ':', &date.tm_hour) ||
      !Take(&text, 2, ':', &date.tm_min) || !Take(&text, 2, 0, &date.tm_sec)) {
    return std::nullopt;
  }
  // What nanoseconds in 64 bits can tell, with room.
  if (date.tm_year < 1970 || date.tm_year > 2200 || date.tm_mon < 1 || date.tm_mon > 12 ||
      date.tm_mday < 1 || date.tm_mday > 31 || date.tm_hour > 23 || date.tm_min > 59 ||
      date.tm_sec > 60) {
    return std::nullopt;
  }
  date.tm_year -= 1900;
  date.tm_mon -= 1;
  int64_t fraction = 0;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    int64_t unit = kNanoseconds;
    while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
      unit /= 10;
      fraction += (text[0] - '0') * unit;
      text.remove_prefix(1);
    }
  }
  int64_t offset = 0;
  if (text != "Z" && text != "z") {
    if (text.empty() || (text[0] != '+' && text[0] != '-')) return std::nullopt;
    const int64_t sign = text[0] == '-' ? -1 : 1;
    text.remove_prefix(1);
    int hours = 0;
    int minutes = 0;
    if (!Take(&text, 2, ':', &hours) || !Take(&text, 2, 0, &minutes) || !text.empty()) {
      return std::nullopt;
    }
    offset = sign * (hours * 3600 + minutes * 60);
  }
  return (static_cast<int64_t>(timegm(&date)) - offset) * kNanoseconds + fraction;
}

std::string FormatTimestamp(int64_t seconds, int64_t nanoseconds) {
  const time_t time = seconds;
  tm date = {};
  gmtime_r(&time, &date);
  return Format("%04d-%02d-%02dT%02d:%02d:%02d.%09lldZ", date.tm_year + 1900, date.tm_mon + 1,
                date.tm_mday, date.tm_hour, date.tm_min, date.tm_sec,
                static_cast<long long>(nanoseconds));
}

void SetClockIfWrong(int64_t now) {
  timespec clock;
  clock_gettime(CLOCK_REALTIME, &clock);
  const int64_t ahead = clock.tv_sec * kNanoseconds + clock.tv_nsec - now;
  if (ahead >= -kMostBehind && ahead <= kMostAhead) return;
  const timespec right = {now / kNanoseconds, now % kNanoseconds};
  if (clock_settime(CLOCK_REALTIME, &right) < 0) Log(ErrnoError("cannot set the time").message());
}

}  // namespace cube::agent::envd
