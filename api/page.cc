#include "api/page.h"

#include <charconv>

namespace cube::api {

pool::Outcome<Page> Page::Of(const Call& call) {
  Page page;
  POOL_ASSIGN(std::optional<int64_t> limit, call.QueryWhole("limit", 1, kMost));
  page.limit_ = static_cast<size_t>(limit.value_or(kMost));
  auto token = call.Query("nextToken");
  if (!token || token->empty()) return page;
  auto text = DecodeBase64Url(*token);
  int64_t time = 0;
  size_t colon = text ? text->find(':') : std::string::npos;
  bool good = colon != std::string::npos;
  if (good) {
    auto [end, failed] = std::from_chars(text->data(), text->data() + colon, time);
    good = failed == std::errc() && end == text->data() + colon;
  }
  if (!good) return pool::Refuse(pool::Fault::kInvalid, "\"nextToken\" is not one of this list");
  page.last_ = {time, text->substr(colon + 1)};
  return page;
}

std::string Page::Token(int64_t time_ms, const std::string& id) {
  return Base64Url(std::to_string(time_ms) + ":" + id);
}

bool Page::IsPast(int64_t time_ms, const std::string& id, bool ascending) const {
  if (!last_) return true;
  auto item = std::pair(time_ms, id);
  return ascending ? item > *last_ : item < *last_;
}

}  // namespace cube::api
