#include "api/date_text.h"

#include <time.h>

#include <cstdio>

namespace cube::api {
namespace {

// Takes `count` digits off the front.
bool Digits(std::string_view* text, size_t count, int* value) {
  if (text->size() < count) return false;
  *value = 0;
  for (size_t i = 0; i < count; ++i) {
    char c = (*text)[i];
    if (c < '0' || c > '9') return false;
    *value = *value * 10 + (c - '0');
  }
  text->remove_prefix(count);
  return true;
}

bool Take(std::string_view* text, std::string_view any_of) {
  if (text->empty() || any_of.find(text->front()) == std::string_view::npos) return false;
  text->remove_prefix(1);
  return true;
}

}  // namespace

std::string DateText(int64_t ms) {
  int64_t part = ms % 1000;
  if (part < 0) part += 1000;
  time_t seconds = (ms - part) / 1000;
  tm date = {};
  gmtime_r(&seconds, &date);
  char text[64];
  snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", date.tm_year + 1900,
           date.tm_mon + 1, date.tm_mday, date.tm_hour, date.tm_min, date.tm_sec,
           static_cast<int>(part));
  return text;
}

std::optional<int64_t> ParseDate(std::string_view text) {
  tm date = {};
  int hours = 0, minutes = 0, sign = 0;
  int64_t ms = 0;
  if (!Digits(&text, 4, &date.tm_year) || !Take(&text, "-") || !Digits(&text, 2, &date.tm_mon) ||
      !Take(&text, "-") || !Digits(&text, 2, &date.tm_mday) || !Take(&text, "Tt ") ||
      !Digits(&text, 2, &date.tm_hour) || !Take(&text, ":") || !Digits(&text, 2, &date.tm_min) ||
      !Take(&text, ":") || !Digits(&text, 2, &date.tm_sec)) {
    return std::nullopt;
  }
  if (Take(&text, ".")) {
    int64_t unit = 100;
    int digit = 0;
    if (!Digits(&text, 1, &digit)) return std::nullopt;
    do {
      ms += digit * unit;
      unit /= 10;
    } while (Digits(&text, 1, &digit));
  }
  if (!Take(&text, "Zz")) {
    if (text.empty()) return std::nullopt;
    sign = text.front() == '-' ? -1 : 1;
    if (!Take(&text, "+-") || !Digits(&text, 2, &hours) || !Take(&text, ":") ||
        !Digits(&text, 2, &minutes)) {
      return std::nullopt;
    }
  }
  bool in_range = date.tm_mon >= 1 && date.tm_mon <= 12 && date.tm_mday >= 1 &&
                  date.tm_mday <= 31 && date.tm_hour <= 23 && date.tm_min <= 59 &&
                  date.tm_sec <= 60 && hours <= 23 && minutes <= 59;
  if (!text.empty() || !in_range) return std::nullopt;
  date.tm_year -= 1900;
  date.tm_mon -= 1;
  int64_t seconds = timegm(&date);
  seconds -= sign * (hours * 3600 + minutes * 60);
  return seconds * 1000 + ms;
}

}  // namespace cube::api
